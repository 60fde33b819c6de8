"""Two rates: sound of one rate through a model of another, exactly delayed.

A polyphase filter of our own, because the delay of soxr is made for files: from 48 kHz to 16 kHz
and back it holds sound for 40 ms (LQ), 73 ms (HQ) or 28 ms (variable rate), and its only quick
setting (QQ) lets aliases through unattenuated. A linear-phase filter with a transition around the
lower Nyquist frequency does it in 3.1 ms at 80 dB, and its delay is arithmetic, not measurement.

All times are whole *ticks* of the common multiple of both rates. An outer sample lasts
``outer`` ticks and a model sample ``model``, so nothing is ever rounded, and the last
filter absorbs the fractional delay: the total is a whole number of outer samples for any rates.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp.kernel import named
from rtsep.dsp.polyphase import LINE, Line, Polyphase, half_width
from rtsep.spec import Float32, Int64

REPLACED = 0
"""Of ``cursors``: samples replaced by 0."""
HELD = 1
"""Of ``cursors``: samples of the model's rate that are worked on now; -1 between blocks."""


class Rates(NamedTuple):
    """What the kernels work on between two rates; without any, the rates are the same."""

    inward: Line
    outward: Line
    mixture: Float32
    """(most, channels), at the model's rate."""
    stems: Float32
    """(most, sources, channels), at the model's rate."""
    cursors: Int64
    """(2,), see `REPLACED` and `HELD`."""


RATES = named(
    Rates,
    *(LINE, LINE, types.Array(types.float32, 2, "C"), types.Array(types.float32, 3, "C")),
    types.int64[::1],
)


def inner_block(outer_rate_hz: int, model_rate_hz: int, block: int) -> int:
    """Block size in model samples: 1 where it varies from call to call.

    Parameters
    ----------
    outer_rate_hz, model_rate_hz
        In Hz.
    block
        Outer blocks are multiples of this many samples.
    """
    for figure in (outer_rate_hz, model_rate_hz, block):
        if not isinstance(figure, int) or figure < 1:
            raise ValueError(f"rates and block must be whole numbers above 0, not {figure!r}")
    samples, rest = divmod(block * model_rate_hz, outer_rate_hz)
    return 1 if rest or not samples else samples


class Resampling:
    """What goes on between sound of one rate and a model of another.

    Parameters
    ----------
    outer_rate_hz, model_rate_hz
        Of the device or file, and of the model.
    block
        Every block is a multiple of this many outer samples; 1 for any size.
    piece
        Longest of the blocks.
    delay
        Of the model's stems, in samples of its rate.
    sources, channels
        Of the stems.

    Attributes
    ----------
    latency_samples
        Samples of the outer rate from a sound going in to its stems coming out; always whole.
    added
        The part of it that resampling adds, in samples of the outer rate (may be fractional,
        since the model's own delay need not be a whole number of outer samples).
    rates
        What the kernels work on.
    """

    def __init__(
        self,
        outer_rate_hz: int,
        model_rate_hz: int,
        block: int,
        piece: int,
        delay: int,
        sources: int,
        channels: int,
    ) -> None:
        if outer_rate_hz == model_rate_hz:
            self.latency_samples, self.added = delay, 0.0
            self._lines: tuple[Polyphase, ...] = ()
            none = np.zeros((0, 0, 0), np.float32)
            self.rates = Rates(_NO_LINE, _NO_LINE, _NOTHING, none, np.zeros(2, np.int64))
            return
        common = gcd(outer_rate_hz, model_rate_hz)
        outer, model = model_rate_hz // common, outer_rate_hz // common  # periods, in ticks
        half = half_width(outer, model)
        self.latency_samples = _smallest_latency(outer, model, half, delay, block)
        self.added = self.latency_samples - delay * model / outer

        # The model's clock starts early enough that the first outer sample completes nothing that
        # was due before it: every block then makes as many model samples as the same block later.
        start = (-1 - half) // model + 1
        most = piece * outer // model + 2
        late = -self.latency_samples * outer
        inward = Polyphase(outer, model, 0, start * model, channels, piece)
        outward = Polyphase(model, outer, (start - delay) * model, late, sources * channels, most)
        self._lines = inward, outward
        self.rates = Rates(
            inward.line,
            outward.line,
            np.zeros((most, channels), np.float32),
            np.zeros((most, sources, channels), np.float32),
            np.array([0, -1], np.int64),
        )

    def reset(self) -> None:
        """Forget everything heard."""
        for line in self._lines:
            line.reset()
        self.rates.cursors[HELD] = -1


_NOTHING = np.zeros((0, 0), np.float32)
_NO_LINE = Line(_NOTHING, _NOTHING, np.zeros(4, np.int64))


def _smallest_latency(outer: int, model: int, half: int, delay: int, block: int) -> int:
    """Outer samples of latency with which no block ever waits for a model sample.

    After ``count`` outer samples came in, model samples with their filter's edge before tick
    ``count * outer`` exist, and the engine has given those up to ``delay`` earlier. The newest
    output lies at tick ``(count - 1 - latency) * outer`` and needs those up to ``half`` ticks after
    it. Seen in model samples, counts of whole blocks repeat after ``model`` blocks at most.
    """
    period = model // gcd(block * outer, model)
    counts = np.arange(1, period + 1, dtype=np.int64) * block
    newest = (counts * outer - 1 - half) // model - delay
    latency = max(0, (2 * half + (delay - 1) * model) // outer - 1)  # nothing less can do
    while np.any(((counts - 1 - latency) * outer + half) // model > newest):
        latency += 1
    return latency
