"""The memory of a stream: the record that its callbacks know, what it points at, the counters.

Its layout is compiled into the callbacks, see `rtsep.dsp.kernel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rtsep.devices import drift
from rtsep.dsp.timed_ring import CURSORS

HISTORY_S = 2.0
"""The mixture and what is heard are kept for at least so long, in seconds; no latency that a live
stream can have is longer."""
MAX_BLOCK = 8192
"""Largest block of a device, in samples."""

_SETTINGS = (
    "input_data",
    "input_cursors",
    "input_capacity",
    "input_width",
    "output_data",
    "output_cursors",
    "output_capacity",
    "output_width",
    "source",
    "source_length",
    "source_position",
    "microphone",
    "passthrough",
    "dry",
    "fade",
    "valid_from",
    "feed_data",
    "feed_cursors",
    "feed_capacity",
    "table",
    "taps",
    "taken",
    "two_clocks",
)
_STATE = ("last", "tail", "tail_left", "wet", "resumed", "absent", "lost", "feeding")
_FIGURES = ("period", "due", "input_peak", "output_peak", "limit", "limiter", "release")
_STEERING = (
    "feed_rate",
    "feed_ratio",
    "reserve",
    "heard_at",
    "feed_position",
    "error",
    "smooth_error",
    "difference",
    "correction",
    "steered_s",
    "looked_s",
    "left",
)
COUNTERS = (
    "callbacks",
    "missed",
    "input_underflows",
    "input_overflows",
    "output_underflows",
    "output_overflows",
    "nonfinite",
    "starvations",
    "starved_samples",
    "longest_starvation",
    "slips",
)
CONTROL = np.dtype(
    [(name, np.int64) for name in (*_SETTINGS, *_STATE, *COUNTERS)]
    + [(name, np.float64) for name in (*_FIGURES, *_STEERING)]
)
"""The record behind ``userdata``; counts are samples, times seconds.

input, output
    ``data`` and ``cursors`` of two timelines, in bytes from the record. Those of the output are
    ahead: the worker's answer to the sample of time t is written at t + headroom, heard at that.
dry
    Delay of the mixture that replaces a missing answer, as late as the answer is; -1 for silence.
fade
    Samples of a fade.
valid_from
    The worker's answers to samples before this time left something out: they are not played.
last, tail
    (channels,) of the newest sample played, and what it was more than what came after it: this
    fades away over ``tail_left`` more samples. In bytes from the record.
wet
    Samples of the fade towards the worker's answer done so far, up to ``fade``.
resumed
    The device was away: begin from silence.
lost
    Set when the device has gone away.
absent
    Length so far of the present run of samples without an answer.
limit, limiter, release
    Largest magnitude played (infinite: bit for bit what was made), the gain now, and the share of
    its distance to 1 that it regains per sample.
feed, table, taken
    With two clocks: the microphone's timeline, the filter, and room for a block taken from there.
feeding, feed_position
    Whether samples are taken, and the time of the filter's newest edge, in samples of the feed.
feed_rate, feed_ratio, reserve, heard_at
    Rate of the microphone in Hz, its ratio to the loudspeaker's, the samples to be left, and the
    time of the microphone's last call.
error, smooth_error, difference, correction, steered_s, looked_s, left
    Of `rtsep.devices.drift.steer` and `rtsep.devices.drift.look`.
"""


def layout(
    sample_rate: int,
    in_channels: int,
    out_channels: int,
    block: int,
    source_length: int,
    taps: int = 0,
) -> np.dtype[Any]:
    """Memory of one stream, the record `CONTROL` first; the same in every process that maps it."""
    capacity = 1 << (max(round(HISTORY_S * sample_rate), 16 * block) - 1).bit_length()
    feed = (capacity, MAX_BLOCK, drift.PHASES + 1) if taps else (1, 1, 1)
    return np.dtype(
        [
            ("control", CONTROL),
            ("input_cursors", np.int64, CURSORS),
            ("output_cursors", np.int64, CURSORS),
            ("feed_cursors", np.int64, CURSORS),
            ("input_data", np.float32, (capacity, in_channels)),
            ("output_data", np.float32, (capacity, out_channels)),
            ("last", np.float32, (out_channels,)),
            ("tail", np.float32, (out_channels,)),
            ("feed_data", np.float32, (feed[0], in_channels)),
            ("taken", np.float32, (feed[1], in_channels)),
            ("table", np.float32, (feed[2], max(taps, 1))),
            ("source", np.float32, (source_length + block, in_channels)),
        ],
        align=True,
    )


@dataclass(frozen=True)
class Stats:
    """What the callback has counted since the stream was opened.

    Attributes
    ----------
    callbacks
        Blocks exchanged.
    missed
        Blocks the device should have asked for and did not, by its own clock.
    input_underflows, input_overflows, output_underflows, output_overflows
        Callbacks that PortAudio flagged.
    nonfinite
        Samples from the device replaced by 0: NaN, Inf, or too large for sound.
    starvations, starved_samples, longest_starvation
        Runs of samples for which the worker's answer was missing, the samples of all runs, and of
        the longest.
    slips
        Times that the microphone's clock got away from the loudspeaker's, see
        `rtsep.devices.drift`.
    late
        Samples by which the worker is too late now; 0 when it is in time.
    """

    callbacks: int
    missed: int
    input_underflows: int
    input_overflows: int
    output_underflows: int
    output_overflows: int
    nonfinite: int
    starvations: int
    starved_samples: int
    longest_starvation: int
    slips: int
    late: int

    @property
    def xruns(self) -> int:
        """Under- and overflows the device itself has told of."""
        return (
            self.input_underflows
            + self.input_overflows
            + self.output_underflows
            + self.output_overflows
        )
