"""How one model takes another's place, on a sound card and in a browser alike.

Both work side by side: the new one listens for a while, so that it knows the sound it is in, then
what is heard goes over to it along a raised cosine. Each brings the mixture as late as its own
stems.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numba import types

from rtsep.dsp.kernel import kernel
from rtsep.dsp.mixer import raised_cosine
from rtsep.realtime.chain import ProcessingChain
from rtsep.spec import Float32, Int64

LISTEN_S = 0.3
"""Time for which a new model works unheard, beside its latency, in seconds."""
CROSS_S = 0.05
"""Duration of the cross-fade from model to model, in seconds."""

Chain = TypeVar("Chain", bound=ProcessingChain)

_samples = types.Array(types.float32, 2, "C")


@kernel(types.void(_samples, types.float32[::1], types.int64[::1], _samples))
def cross(fresh: Float32, fade: Float32, cursor: Int64, out: Float32) -> None:
    """Go over from ``out`` to ``fresh``, both (n, channels), in ``out``.

    Parameters
    ----------
    fade
        (length + 1,) from 0 to 1.
    cursor
        (1,): samples of the fade so far; negative before it begins.
    """
    length = fade.size - 1
    for n in range(out.shape[0]):
        cursor[0] = min(cursor[0] + 1, length)
        share = fade[max(cursor[0], 0)]
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
    """

    def __init__(self, chain: Chain, sample_rate: int) -> None:
        self.chain = chain
        self._fade = raised_cosine(max(1, round(CROSS_S * sample_rate)))
        unheard = chain.engine.latency_samples + round(LISTEN_S * sample_rate)
        self._cursor = np.full(1, -unheard, np.int64)

    def process(self, mixture: Float32, out: Float32) -> None:
        """Separate the next samples, and put into ``out``, what is heard so far, its share."""
        cross(self.chain.process(mixture), self._fade, self._cursor, out)

    @property
    def complete(self) -> bool:
        """Whether only the new chain is heard."""
        return int(self._cursor[0]) == len(self._fade) - 1
