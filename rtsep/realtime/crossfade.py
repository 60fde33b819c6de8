"""Cross-fade from one model to another, for devices and browsers.

Both models run side by side. The new one first runs unheard, so that its state adapts to the sound;
then the output fades to it along a raised cosine. The bypass of each is delayed like its stems.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numba import types

from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.mixer import raised_cosine
from rtsep.realtime.chain import ProcessingChain
from rtsep.spec import Float32, Int64

LISTEN_S = 0.3
"""Time for which a new model runs unheard, in addition to its latency, in seconds."""
CROSS_S = 0.05
"""Duration of the cross-fade from model to model, in seconds."""

Chain = TypeVar("Chain", bound=ProcessingChain)

_samples = types.Array(types.float32, 2, "C")


class Fade(NamedTuple):
    """Arrays that `cross` works on."""

    curve: Float32
    """(length + 1,) from 0 to 1."""
    cursor: Int64
    """(1,): samples of the fade so far; negative before it begins."""


FADE = named(Fade, types.float32[::1], types.int64[::1])
NO_FADE = Fade(np.zeros(1, np.float32), np.full(1, -1, np.int64))


@kernel(types.void(_samples, FADE, _samples))
def cross(fresh: Float32, fade: Fade, out: Float32) -> None:
    """Fade from ``out`` to ``fresh``, both (n, channels); the result is in ``out``."""
    curve, cursor = fade
    length = curve.size - 1
    for n in range(out.shape[0]):
        cursor[0] = min(cursor[0] + 1, length)
        share = curve[max(cursor[0], 0)]
        for channel in range(out.shape[1]):
            if share == 1.0:
                out[n, channel] = fresh[n, channel]
            else:
                out[n, channel] += share * (fresh[n, channel] - out[n, channel])


class Crossfade(Generic[Chain]):
    """A chain that is being faded in.

    Parameters
    ----------
    chain
        A chain that is warmed up.
    sample_rate
        Rate of the stream in Hz.

    Attributes
    ----------
    fade
        Arrays that the compiled loop works on.
    """

    def __init__(self, chain: Chain, sample_rate: int) -> None:
        self.chain = chain
        unheard = chain.engine.latency_samples + round(LISTEN_S * sample_rate)
        self.fade = Fade(
            raised_cosine(max(1, round(CROSS_S * sample_rate))), np.full(1, -unheard, np.int64)
        )

    def process(self, mixture: Float32, out: Float32) -> None:
        """Separate samples and fade from ``out``, the former chain's output, to the new one."""
        cross(self.chain.process(mixture), self.fade, out)

    @property
    def complete(self) -> bool:
        """Whether only the new chain is heard."""
        return int(self.fade.cursor[0]) == len(self.fade.curve) - 1
