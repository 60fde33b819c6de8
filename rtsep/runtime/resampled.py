"""Resample between the rate of a stream and that of a model, with an exact latency.

The polyphase filter is our own, because soxr is made for files: from 48 kHz to 16 kHz and back its
latency is 40 ms (LQ), 73 ms (HQ) or 28 ms (variable rate), and its fast setting (QQ) does not
attenuate aliases. A linear-phase filter with a transition around the lower Nyquist frequency takes
1.9 ms at 80 dB, and its delay is known exactly.

All times are integer *ticks* of the common multiple of both rates. A sample of the stream (outer)
lasts ``outer`` ticks, a sample of the model ``model`` ticks, so there is no rounding. The last
filter absorbs the fractional delay: the latency is an integer number of outer samples for any
rates.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp.full_band import NO_REST, REST, Rest, clear, make_rest
from rtsep.dsp.kernel import named
from rtsep.dsp.polyphase import LINE, Line, Polyphase, half_width
from rtsep.spec import Float32, Int64

REPLACED = 0
"""Index in ``cursors``: samples replaced by 0."""
HELD = 1
"""Index in ``cursors``: samples of the model's rate in the current block; -1 between blocks."""


_MOST_BLOCKS = 1 << 20
"""Blocks that are looked at for the longest wait; only nearly coprime rates need more."""


class Rates(NamedTuple):
    """Arrays that the kernels work on; empty if both rates are equal."""

    inward: Line
    outward: Line
    mixture: Float32
    """(most, channels), at the model's rate."""
    stems: Float32
    """(most, sources, channels), at the model's rate."""
    cursors: Int64
    """(2,), see `REPLACED` and `HELD`."""
    rest: Rest
    """What the model does not receive; empty if stems do not get it."""


RATES = named(
    Rates,
    *(LINE, LINE, types.Array(types.float32, 2, "C"), types.Array(types.float32, 3, "C")),
    *(types.int64[::1], REST),
)


def longest_wait(outer_rate_hz: int, model_rate_hz: int, block: int, step: int) -> int:
    """Return the most model samples that wait, at the end of a block, for a step to be complete.

    Parameters
    ----------
    outer_rate_hz, model_rate_hz
        In Hz.
    block
        Outer blocks are multiples of this many samples.
    step
        Model samples per call of the model.

    Examples
    --------
    >>> longest_wait(16000, 16000, 1, 128), longest_wait(16000, 16000, 96, 128)
    (127, 96)
    >>> longest_wait(48000, 16000, 128, 128)  # the last of three blocks completes the step
    85
    """
    for figure in (outer_rate_hz, model_rate_hz, block):
        if not isinstance(figure, int) or figure < 1:
            raise ValueError(f"rates and block must be whole numbers above 0, not {figure!r}")
    outer, model = _periods(outer_rate_hz, model_rate_hz)
    again = model // gcd(block * outer, model)  # blocks until the phase is the same again
    blocks = again * step // gcd(again * block * outer // model, step)
    if blocks > _MOST_BLOCKS:
        return step - 1
    counts = _model_samples(outer, model, np.arange(1, blocks + 1, dtype=np.int64) * block)
    return int((counts % step).max())


def _periods(outer_rate_hz: int, model_rate_hz: int) -> tuple[int, int]:
    """Return ticks per outer and per model sample."""
    common = gcd(outer_rate_hz, model_rate_hz)
    return model_rate_hz // common, outer_rate_hz // common


def _model_samples(outer: int, model: int, counts: Int64) -> Int64:
    """Return the numbers of model samples that exist after numbers of outer samples.

    The model's clock starts so that the first outer sample completes no earlier model sample: then
    each block gives as many model samples as the same block later.
    """
    half = half_width(outer, model) if outer != model else 0
    samples: Int64 = (counts * outer - 1 - half) // model - (-1 - half) // model
    return samples


class Resampling:
    """The resampling before and after a model of another rate.

    Parameters
    ----------
    outer_rate_hz, model_rate_hz
        Rate of the device or file, and of the model.
    block
        The length of every block is a multiple of this, in outer samples; 1 for any length.
    piece
        Longest block, in outer samples.
    delay
        Latency of the model's stems, in samples of its rate.
    sources, channels
        Number of stems, and channels of each.
    full_band
        Whether stems get what the model does not receive, see `rtsep.dsp.full_band`.

    Attributes
    ----------
    latency_samples
        Total latency in outer samples.
    added
        Term of resampling in outer samples; may be fractional, because the model's latency need not
        be an integer number of outer samples.
    rates
        Arrays that the kernels work on.
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
        full_band: bool = True,
    ) -> None:
        if outer_rate_hz == model_rate_hz:
            self.latency_samples, self.added = delay, 0.0
            self._lines: tuple[Polyphase, ...] = ()
            none = np.zeros((0, 0, 0), np.float32)
            self.rates = Rates(_NO_LINE, _NO_LINE, _NOTHING, none, np.zeros(2, np.int64), NO_REST)
            return
        outer, model = _periods(outer_rate_hz, model_rate_hz)
        half = half_width(outer, model)
        self.latency_samples = _smallest_latency(outer, model, half, delay, block)
        self.added = self.latency_samples - delay * model / outer

        start = (-1 - half) // model + 1  # see `_model_samples`
        most = piece * outer // model + 2
        late = -self.latency_samples * outer
        inward = Polyphase(outer, model, 0, start * model, channels, piece)
        out = model, outer, (start - delay) * model, late, sources * channels, most
        outward = Polyphase(*out)
        self._lines = inward, outward
        rest = NO_REST
        if full_band:
            line = Polyphase(*out)
            self._lines = inward, outward, line
            rates, delays = (outer_rate_hz, model_rate_hz), (self.latency_samples, delay)
            rest = make_rest(line, rates, delays, (piece, most), sources, channels)
        self.rates = Rates(
            inward.line,
            outward.line,
            np.zeros((most, channels), np.float32),
            np.zeros((most, sources, channels), np.float32),
            np.array([0, -1], np.int64),
            rest,
        )

    def reset(self) -> None:
        """Reset the filters."""
        for line in self._lines:
            line.reset()
        self.rates.cursors[HELD] = -1
        clear(self.rates.rest)


_NOTHING = np.zeros((0, 0), np.float32)
_NO_LINE = Line(_NOTHING, _NOTHING, np.zeros(4, np.int64))


def _smallest_latency(outer: int, model: int, half: int, delay: int, block: int) -> int:
    """Return the smallest latency in outer samples for which no block lacks a model sample.

    After ``count`` outer samples, model samples whose filter ends before tick ``count * outer``
    exist, and the engine has returned those up to ``delay`` earlier. The newest output is at tick
    ``(count - 1 - latency) * outer`` and needs model samples up to ``half`` ticks after it. In
    model samples, counts of whole blocks repeat after ``model`` blocks at most.
    """
    period = model // gcd(block * outer, model)
    counts = np.arange(1, period + 1, dtype=np.int64) * block
    newest = (counts * outer - 1 - half) // model - delay
    latency = max(0, (2 * half + (delay - 1) * model) // outer - 1)  # a lower bound
    while np.any(((counts - 1 - latency) * outer + half) // model > newest):
        latency += 1
    return latency
