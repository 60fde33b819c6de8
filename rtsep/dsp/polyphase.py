"""Streaming sample-rate conversion with a polyphase filter, in integer ticks.

All times are integer *ticks* of the common multiple of both rates, so there is no rounding. An
input sample lasts ``in_period`` ticks, an output sample ``out_period``, without a common divisor.
Both directions use the same linear-phase filter with a transition around the lower Nyquist
frequency.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.overlap_add import LIMIT
from rtsep.errors import SpecError
from rtsep.spec import Float32

PASSBAND = 0.835
"""End of the passband relative to the lower Nyquist frequency; the stopband is from 2 - this."""
ATTENUATION_DB = 80.0
"""Attenuation of images and aliases in the stopband."""
_MAX_TAPS = 1 << 23  # 32 MiB; 44.1 to 16 kHz needs 36,000 taps, nearly coprime rates more
_AT_ONCE = 1 << 18  # taps computed at once, because intermediate results are larger than the table

_samples = types.Array(types.float32, 2, "C")
_const_samples = types.Array(types.float32, 2, "C", readonly=True)


@kernel(
    types.void(
        _samples,
        types.int64,
        _const_samples,
        types.int64,
        types.int64,
        _samples,
    ),
    fastmath={"reassoc", "contract"},
)
def interpolate(
    history: Float32, position: int, table: Float32, in_period: int, out_period: int, out: Float32
) -> None:
    """Evaluate the filtered ``history`` at the ticks of ``out``.

    Parameters
    ----------
    history
        (rows, width), one row every ``in_period`` ticks.
    position
        Tick of the right edge of the filter for the first output, from row 0.
    table
        (in_period, taps): filter for each distance of its edge from the row before it.
    in_period, out_period
        In ticks.
    out
        (n, width), one row every ``out_period`` ticks.
    """
    taps = table.shape[1]
    for m in range(out.shape[0]):
        edge = position + m * out_period
        first = edge // in_period - taps + 1
        phase = edge % in_period
        for channel in range(out.shape[1]):
            total = np.float32(0.0)
            for i in range(taps):
                total += table[phase, i] * history[first + i, channel]
            out[m, channel] = total


@kernel(types.int64(_samples, types.int64, _const_samples))
def load(history: Float32, start: int, rows: Float32) -> int:
    """Copy ``rows`` to ``history`` from ``start`` on; return the number of samples replaced by 0.

    Samples that are not finite or beyond `rtsep.dsp.overlap_add.LIMIT` are replaced here, because
    the filter would spread each over hundreds.
    """
    replaced = 0
    for row in range(rows.shape[0]):
        for channel in range(rows.shape[1]):
            sample = rows[row, channel]
            if not abs(sample) <= LIMIT:
                sample = np.float32(0.0)
                replaced += 1
            history[start + row, channel] = sample
    return replaced


@kernel(types.void(_samples, types.int64, types.int64))
def shift(history: Float32, start: int, stop: int) -> None:
    """Move rows ``start:stop`` to the front, in place."""
    for row in range(start, stop):
        for channel in range(history.shape[1]):
            history[row - start, channel] = history[row, channel]


FILLED = 0
"""Index in ``cursors``: rows in the history."""
POSITION = 1
"""Index in ``cursors``: tick of the right edge of the filter for the next output, from row 0."""
IN_PERIOD, OUT_PERIOD = 2, 3
"""Indices in ``cursors``: ticks per input and output sample."""


class Line(NamedTuple):
    """Arrays that the kernels of one direction work on."""

    history: Float32
    table: Float32
    cursors: NDArray[np.int64]


LINE = named(Line, _samples, _samples, types.int64[::1])


@kernel(types.int64(LINE, _const_samples))
def push(line: Line, rows: Float32) -> int:
    """Append ``rows`` (n, width); return the number of samples replaced by 0."""
    replaced = load(line.history, line.cursors[FILLED], rows)
    line.cursors[FILLED] += rows.shape[0]
    return replaced


@kernel((LINE,))
def ready(line: Line) -> int:
    """Return the number of rows that can be pulled."""
    cursors = line.cursors
    inside = cursors[FILLED] * cursors[IN_PERIOD] - cursors[POSITION]
    count: int = max(0, -(-inside // cursors[OUT_PERIOD]))
    return count


@kernel(types.void(LINE, _samples))
def pull(line: Line, out: Float32) -> None:
    """Fill ``out`` (n, width) with the next rows; no more than are `ready`."""
    if out.shape[0] > ready(line):
        raise ValueError("more rows are requested than are ready")
    history, table, cursors = line
    in_period, out_period = cursors[IN_PERIOD], cursors[OUT_PERIOD]
    interpolate(history, cursors[POSITION], table, in_period, out_period, out)
    cursors[POSITION] += out.shape[0] * out_period
    done = min(max(0, cursors[POSITION] // in_period - table.shape[1] + 1), cursors[FILLED])
    shift(history, done, cursors[FILLED])
    cursors[FILLED] -= done
    cursors[POSITION] -= done * in_period


def half_width(outer_period: int, model_period: int) -> int:
    """Return half the length of the filter in ticks: the delay of one direction.

    By Kaiser's estimate, a filter of duration ``(A - 7.95) / (14.36 * transition)`` attenuates by
    ``A`` dB; the transition is ``2 * (1 - PASSBAND)`` of half the lower rate.
    """
    slow = max(outer_period, model_period)  # ticks per sample of the lower rate
    return ceil((ATTENUATION_DB - 7.95) / (14.36 * 2 * (1 - PASSBAND)) * slow)


def filter_table(in_period: int, out_period: int) -> Float32:
    """Return the Kaiser-windowed sinc, (in_period, taps) float32, one row per phase."""
    half = half_width(in_period, out_period)
    taps = 2 * half // in_period + 1
    if in_period * taps > _MAX_TAPS:
        raise SpecError(
            f"rates in the ratio {out_period}:{in_period} need a filter of {in_period} x {taps} "
            f"taps, more than {_MAX_TAPS}"
        )
    result = np.empty((in_period, taps), np.float32)
    rows = max(1, _AT_ONCE // taps)
    for first in range(0, in_period, rows):
        phase = np.arange(first, min(first + rows, in_period))[:, None]
        distance = phase - half + in_period * np.arange(taps)[None, ::-1]
        beta = 0.1102 * (ATTENUATION_DB - 8.7)
        inside = np.sqrt(np.maximum(0.0, 1.0 - (distance / half) ** 2))
        window: NDArray[np.float64] = np.where(np.abs(distance) <= half, np.i0(beta * inside), 0.0)
        table = np.sinc(distance / max(in_period, out_period)) * window
        # Normalise each phase to unit gain at 0 Hz, so that a constant has no images.
        result[first : first + rows] = table / table.sum(axis=1, keepdims=True)
    return result


class Polyphase:
    """Resamples rows from one rate to another.

    Parameters
    ----------
    in_period, out_period
        Ticks per input and output sample, without a common divisor.
    first_in, first_out
        Ticks of the first input row and the first output row.
    width
        Channels of each row.
    max_in
        Largest number of rows pushed before the next pull.

    Attributes
    ----------
    line
        Arrays that the kernels work on.
    """

    def __init__(
        self,
        in_period: int,
        out_period: int,
        first_in: int,
        first_out: int,
        width: int,
        max_in: int,
    ) -> None:
        table = filter_table(in_period, out_period)
        taps = table.shape[1]
        # Silence before the first row, for the first output.
        edge = first_out + half_width(in_period, out_period) - first_in
        self._silence = max(0, taps - 1 - edge // in_period)
        self._start = edge + self._silence * in_period
        rows = self._silence + taps + 2 * (max_in + out_period // in_period + 2)
        history = np.zeros((rows, width), np.float32)
        cursors = np.array([0, 0, in_period, out_period], np.int64)
        self.line = Line(history, table, cursors)
        self.reset()

    def reset(self) -> None:
        """Reset the filter."""
        self.line.history[: self._silence] = 0.0
        self.line.cursors[FILLED] = self._silence
        self.line.cursors[POSITION] = self._start

    @property
    def ready(self) -> int:
        """Return the number of rows that can be pulled."""
        return int(ready(self.line))

    def push(self, rows: Float32) -> int:
        """Append ``rows`` (n, width), ``n <= max_in``; return the samples replaced by 0."""
        if self.line.cursors[FILLED] + len(rows) > len(self.line.history):
            raise ValueError(f"{len(rows)} rows exceed the room in the history")
        return int(push(self.line, rows))

    def pull(self, out: Float32) -> None:
        """Fill ``out`` (n, width) with the next ``n`` rows; no more than `ready`."""
        pull(self.line, out)
