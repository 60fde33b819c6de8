"""Synchronise a microphone that has its own clock with the loudspeaker, by resampling.

The microphone's callback appends to a timeline, the feed. The loudspeaker's callback interpolates
the samples it needs from the feed and controls its reading speed by the number of samples left: a
proportional-integral loop whose integral converges to the difference of the clocks. The number of
samples left jumps with every block, so the loop is slow and filters it with two low-pass filters.

The interpolation filter is our own, because soxr's variable-rate resampler delays the sound by 28
ms and needs the GIL; this one adds half a millisecond and runs inside the callback.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsep.dsp.kernel import kernel
from rtsep.dsp.polyphase import filter_table
from rtsep.spec import Float32

PHASES = 256
"""Tabulated positions between two samples; the filter is interpolated linearly between them."""
MARGIN_S = 0.004
"""Reserve of samples for late calls, in seconds."""
MOST = 1e-3
"""Largest relative correction; twice the largest supported difference of the clocks."""
LOOK_S = 0.5
"""Time over which the samples left are averaged before reading starts, in seconds."""
SETTLED_S = 40.0
"""After this time, in seconds, the correction changes by at most `SLEW` per second."""
SLEW = 50e-6
_QUICK, _SLOW = 0.15, 0.05  # natural frequency before and after that, rad/s
_DAMPING = 1.2
_SMOOTH_S = 0.5


def table(in_rate: int, out_rate: int) -> Float32:
    """Compute the filter for the ratio of two rates in Hz, (PHASES + 1, taps) float32.

    Row ``p`` is for a distance of ``p / PHASES`` samples. The last row is the first one shifted by
    a sample, so every row has a next one.
    """
    rows = filter_table(PHASES, round(PHASES * in_rate / out_rate))
    phases, taps = rows.shape
    result = np.zeros((phases + 1, taps + 1), np.float32)
    result[:-1, :-1] = rows
    result[-1, 1:] = rows[0]
    return result


def reserve(block: int, in_rate: int) -> int:
    """Return the average number of samples to leave in the feed after reading a block."""
    return block + round(MARGIN_S * in_rate)


@kernel()
def look(control: Any, left: float, seconds: float) -> bool:
    """Average the number of samples left, then set the reading position to leave the reserve.

    Returns
    -------
    bool
        Whether the position has been set.
    """
    control.looked_s += seconds
    control.left += seconds * left
    if control.looked_s < LOOK_S:
        return False
    control.feed_position += control.left / control.looked_s - control.reserve
    control.looked_s = control.left = control.error = control.smooth_error = 0.0
    return True


@kernel()
def steer(control: Any, left: float, seconds: float) -> None:
    """Adjust the reading speed by the number of samples left, ``seconds`` after the last call."""
    error = left - control.reserve
    share = min(seconds / _SMOOTH_S, 1.0)
    control.error += share * (error - control.error)
    control.smooth_error += share * (control.error - control.smooth_error)
    error = control.smooth_error / control.feed_rate
    natural = _QUICK if control.steered_s < SETTLED_S else _SLOW
    control.difference += natural * natural * error * seconds
    control.difference = min(max(control.difference, -MOST), MOST)
    wanted = control.difference + 2.0 * _DAMPING * natural * error
    change = min(max(wanted, -MOST), MOST) - control.correction
    control.steered_s += seconds
    if control.steered_s > SETTLED_S:
        change = min(max(change, -SLEW * seconds), SLEW * seconds)
    control.correction += change


@kernel(fastmath={"reassoc", "contract"})
def interpolate(feed: Float32, rows: Float32, position: float, ratio: float, out: Float32) -> None:
    """Evaluate the filtered feed at ``position`` and every ``ratio`` samples after it.

    Parameters
    ----------
    feed
        (capacity, width): cells of a timeline.
    rows
        See `table`.
    position
        Time of the filter's newest edge for the first output, in samples of the feed.
    ratio
        Samples of the feed per output.
    out
        (n, width).
    """
    mask, taps = feed.shape[0] - 1, rows.shape[1]
    for i in range(out.shape[0]):
        edge = position + i * ratio
        last = np.int64(np.floor(edge))
        phase = (edge - last) * PHASES
        row: Any = min(np.int64(phase), PHASES - 1)
        part = np.float32(phase - row)
        first = last - taps + 2
        for channel in range(out.shape[1]):
            total = np.float32(0.0)
            for tap in range(taps):
                weight = rows[row, tap] + part * (rows[row + 1, tap] - rows[row, tap])
                total += weight * feed[(first + tap) & mask, channel]
            out[i, channel] = total
