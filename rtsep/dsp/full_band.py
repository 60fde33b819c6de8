"""The part of a mixture that resampling for a model removes, and how the stems share it.

A model of a lower rate than the stream's does not receive the highest band. That rest is the
delayed mixture minus what the resampling filters leave of it, so that stems with the rest add up to
the delayed mixture exactly. Each source but the last gets a share:

- its share of the power of all stems near the top of the model's band, above a quarter of its rate,
- reduced by spectral subtraction (Boll, IEEE TASSP 1979): the rest that is always there, such as
  hiss or a steady tone, is not speech.

The last source gets what is left.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp import polyphase
from rtsep.dsp.kernel import FAST, array, kernel, named
from rtsep.dsp.polyphase import LINE, Line, Polyphase
from rtsep.spec import Float32, Int64

SMOOTHING_S = 0.008
"""Time constant of all powers, in seconds."""
PERIOD_S = 0.75
"""The steady power is the smallest one of the last one to two of these periods, in seconds."""
START_S = 0.05
"""Time at the start of a stream for which the rest counts as steady, in seconds."""
SUBTRACTED = np.float32(2.0)
"""Multiple of the steady power that is subtracted."""
_TINY = np.float32(1e-15)  # keeps powers from becoming denormal
_SILENCE = np.float32(1e-10)  # power near the top below which the last source gets everything
_ORDER = 4  # of the difference that emphasises the top of the model's band

POWER, LOWEST, BEFORE = 0, 1, 2
"""Indices in ``levels``: power of the rest, and the smallest of this and of the last period."""
LATENCY, DELAY, PERIOD, AGE = 0, 1, 2, 3
"""Indices in ``cursors``: latency at the stream's and at the model's rate, length of a period and
age of the current one (negative at the start of a stream), in samples."""


class Rest(NamedTuple):
    """Arrays that the kernels work on; empty if stems do not get the rest."""

    mixture: Float32
    """(latency + longest block, channels): newest samples at the stream's rate."""
    heard: Float32
    """(delay + most, channels): newest samples at the model's rate."""
    line: Line
    """To the stream's rate, for ``rows``."""
    rows: Float32
    """(most, sources * channels): mixture, then shares of each source but the last."""
    resampled: Float32
    """(longest block, sources * channels): the same at the stream's rate."""
    tops: Float32
    """(sources, channels, 1 + `_ORDER`): power near the top, and the newest differences."""
    levels: Float32
    """(channels, 3), see `POWER`."""
    rates: Float32
    """(2,): coefficients of the smoothing at the model's and at the stream's rate."""
    cursors: Int64
    """(4,), see `LATENCY`."""


REST = named(
    Rest, array(2), array(2), LINE, *map(array, (2, 2, 3, 2, 1)), types.int64[::1]
)  # fmt: skip


@kernel(types.void(REST, array(2, readonly=True)))
def put_mixture(rest: Rest, block: Float32) -> None:
    """Append a block of the stream, (n, channels)."""
    polyphase.load(rest.mixture, rest.cursors[LATENCY], block)


@kernel(types.void(REST, array(2), array(3)), **FAST)
def put_stems(rest: Rest, mixture: Float32, stems: Float32) -> None:
    """Append the model's mixture (n, channels) and stems (n, sources, channels), at its rate."""
    n, sources, channels = stems.shape
    delay, smoothing = rest.cursors[DELAY], rest.rates[0]
    polyphase.load(rest.heard, delay, mixture)
    for i in range(n):
        for c in range(channels):
            rest.rows[i, c] = rest.heard[i, c]
            total = _SILENCE
            for s in range(sources):
                top = rest.tops[s, c]
                x = stems[i, s, c]
                for order in range(1, _ORDER + 1):
                    before = top[order]
                    top[order] = x
                    x -= before
                top[0] += smoothing * (x * x + _TINY - top[0])
                total += top[0]
            for s in range(sources - 1):
                rest.rows[i, (1 + s) * channels + c] = rest.tops[s, c, 0] / total
    polyphase.shift(rest.heard, n, n + delay)
    polyphase.push(rest.line, rest.rows[:n])


@kernel(types.void(REST, array(3)), **FAST)
def add_rest(rest: Rest, out: Float32) -> None:
    """Add the rest to stems (n, sources, channels) of the stream's rate."""
    n, sources, channels = out.shape
    smoothing, cursors = rest.rates[1], rest.cursors
    resampled = rest.resampled[:n]
    polyphase.pull(rest.line, resampled)
    for t in range(n):
        cursors[AGE] += 1
        ended = cursors[AGE] >= cursors[PERIOD]
        if ended:
            cursors[AGE] = 0
        for c in range(channels):
            x = rest.mixture[t, c] - resampled[t, c]
            level = rest.levels[c]
            level[POWER] += smoothing * (x * x + _TINY - level[POWER])
            if ended:
                level[BEFORE] = level[LOWEST]
                level[LOWEST] = level[POWER]
            if cursors[AGE] < 0:
                level[BEFORE] = level[LOWEST] = level[POWER]
            level[LOWEST] = min(level[LOWEST], level[POWER])
            steady = min(level[LOWEST], level[BEFORE])
            varying = max(np.float32(0.0), np.float32(1.0) - SUBTRACTED * steady / level[POWER])
            left = x
            for s in range(sources - 1):
                part = x * varying * resampled[t, (1 + s) * channels + c]
                out[t, s, c] += part
                left -= part
            out[t, sources - 1, c] += left
    polyphase.shift(rest.mixture, n, n + cursors[LATENCY])


_NONE = np.zeros((0, 0), np.float32)
NO_REST = Rest(
    _NONE, _NONE, Line(_NONE, _NONE, np.zeros(4, np.int64)), _NONE, _NONE,
    np.zeros((0, 0, 0), np.float32), _NONE, np.zeros(2, np.float32), np.zeros(4, np.int64),
)  # fmt: skip
"""For streams of the model's rate."""


def make_rest(
    line: Polyphase,
    rates_hz: tuple[int, int],
    delays: tuple[int, int],
    longest: tuple[int, int],
    sources: int,
    channels: int,
) -> Rest:
    """Allocate the arrays of a stream; all pairs are of the stream's rate and of the model's.

    Parameters
    ----------
    line
        To the stream's rate, with the timing of that for the stems, of ``sources * channels`` rows.
    rates_hz
        Rates in Hz.
    delays
        Delay of the stems behind the mixture, in samples.
    longest
        Longest block, in samples.
    sources, channels
        Number of stems, and channels of each.
    """
    (outer_hz, model_hz), (latency, delay), (piece, most) = rates_hz, delays, longest
    width = sources * channels
    rest = Rest(
        np.zeros((latency + piece, channels), np.float32),
        np.zeros((delay + most, channels), np.float32),
        line.line,
        np.zeros((most, width), np.float32),
        np.zeros((piece, width), np.float32),
        np.zeros((sources, channels, 1 + _ORDER), np.float32),
        np.zeros((channels, 3), np.float32),
        np.array([1 - exp(-1 / (SMOOTHING_S * hz)) for hz in (model_hz, outer_hz)], np.float32),
        np.array([latency, delay, round(PERIOD_S * outer_hz), 0], np.int64),
    )
    clear(rest)
    return rest


def clear(rest: Rest) -> None:
    """Reset all but the line."""
    for zeroed in (rest.mixture, rest.heard, rest.tops):
        zeroed[:] = 0.0
    rest.levels[:] = _TINY
    # By the time of the mixture, so that streams of another latency differ in nothing else.
    start = round(START_S / PERIOD_S * rest.cursors[PERIOD])
    rest.cursors[AGE] = -start - rest.cursors[LATENCY]
