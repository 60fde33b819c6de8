"""How one model takes another's place, on a sound card and in a browser alike.

Both work side by side: the new one listens for a while, so that it knows the sound it is in, then
what is heard goes over to it along a raised cosine. Each brings the mixture as late as its own
stems.
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
"""Time for which a new model works unheard, beside its latency, in seconds."""
CROSS_S = 0.05
"""Duration of the cross-fade from model to model, in seconds."""

Chain = TypeVar("Chain", bound=ProcessingChain)

_samples = types.Array(types.float32, 2, "C")


class Fade(NamedTuple):
    """What `cross` works on."""

    curve: Float32
    """(length + 1,) from 0 to 1."""
    cursor: Int64
    """(1,): samples of the fade so far; negative before it begins."""


FADE = named(Fade, types.float32[::1], types.int64[::1])
NO_FADE = Fade(np.zeros(1, np.float32), np.full(1, -1, np.int64))


@kernel(types.void(_samples, FADE, _samples))
def cross(fresh: Float32, fade: Fade, out: Float32) -> None:
    """Go over from ``out`` to ``fresh``, both (n, channels), in ``out``."""
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
    """A chain on its way to take another's place.

    Parameters
    ----------
    chain
        Warmed up.
    sample_rate
        In Hz.

    Attributes
    ----------
    fade
        What the compiled loop works on.
    """

    def __init__(self, chain: Chain, sample_rate: int) -> None:
        self.chain = chain
        unheard = chain.engine.latency_samples + round(LISTEN_S * sample_rate)
        self.fade = Fade(
            raised_cosine(max(1, round(CROSS_S * sample_rate))), np.full(1, -unheard, np.int64)
        )

    def process(self, mixture: Float32, out: Float32) -> None:
        """Separate the next samples, and put into ``out``, what is heard so far, its share."""
        cross(self.chain.process(mixture), self.fade, out)

    @property
    def complete(self) -> bool:
        """Whether only the new chain is heard."""
        return int(self.fade.cursor[0]) == len(self.fade.curve) - 1
