"""Memory layout of a stream: the control record of its callbacks, its arrays, the counters.

Its layout is compiled into the callbacks, see `rtsep.dsp.kernel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rtsep.devices import drift
from rtsep.dsp.timed_ring import CURSORS

HISTORY_S = 2.0
"""Length of the kept mixture and output, in seconds, at least; an upper bound of the latency."""
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
    "ahead_wanted",
    "feed_data",
    "feed_cursors",
    "feed_capacity",
    "table",
    "taps",
    "taken",
    "two_clocks",
)
_STATE = (
    "last",
    "tail",
    "tail_left",
    "wet",
    "resumed",
    "absent",
    "lost",
    "feeding",
    "ahead",
    "ahead_before",
    "crossing",
)
_FIGURES = ("sample_s", "due", "input_peak", "output_peak", "limit", "limiter", "release")
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
    "standstills",
)
CONTROL = np.dtype(
    [(name, np.int64) for name in (*_SETTINGS, *_STATE, *COUNTERS)]
    + [(name, np.float64) for name in (*_FIGURES, *_STEERING)]
)
"""The record behind ``userdata``; counts are samples, times seconds.

input, output
    ``data`` and ``cursors`` of two timelines, as offsets from the record in bytes. The output for
    the input sample of time t is written at t + headroom, with the headroom of the start.
ahead, ahead_wanted, ahead_before, crossing
    Output is played from ``ahead`` samples after the time of the input, so the headroom is smaller
    by that; the wanted number; the former one, from which the output is cross-faded for
    ``crossing`` more samples.
dry
    Delay of the mixture that replaces missing output, equal to that of the output; -1 for silence.
fade
    Length of a fade in samples.
valid_from
    Output before this time depends on dropped input and is not played.
last, tail
    (channels,) newest sample played, and its difference to the sample after it, which fades out
    over ``tail_left`` more samples; as offsets from the record in bytes.
wet
    Samples of the fade to the worker's output so far, up to ``fade``.
resumed
    The device was lost: restart from silence.
lost
    Set when the device is lost.
sample_s, due
    Duration of a sample, and the time of the next callback, in seconds.
absent
    Length so far of the current run of samples without output.
limit, limiter, release
    Largest magnitude played (infinite: output is unchanged), the current gain, and the share of its
    distance to 1 that it regains per sample.
feed, table, taken
    With two clocks: the microphone's timeline, the filter, and a buffer for a block taken from it.
feeding, feed_position
    Whether samples are taken, and the time of the filter's newest edge, in samples of the feed.
feed_rate, feed_ratio, reserve, heard_at
    Rate of the microphone in Hz, its ratio to the loudspeaker's, the number of samples to keep in
    reserve, and the time of the microphone's last call.
error, smooth_error, difference, correction, steered_s, looked_s, left
    State of `rtsep.devices.drift.steer` and `rtsep.devices.drift.look`.
"""


def layout(
    sample_rate: int,
    in_channels: int,
    out_channels: int,
    block: int,
    source_length: int,
    taps: int = 0,
) -> np.dtype[Any]:
    """Return the layout of a stream's memory, starting with the record `CONTROL`."""
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
    """Counters of the callback since the stream was opened.

    Attributes
    ----------
    callbacks
        Blocks exchanged.
    missed
        Callbacks that did not happen, by the device's clock.
    input_underflows, input_overflows, output_underflows, output_overflows
        Callbacks with the flag of PortAudio.
    nonfinite
        Input samples replaced by 0: NaN, Inf, or excessive values.
    starvations, starved_samples, longest_starvation
        Number of runs of samples without output of the worker, the samples of all runs, and those
        of the longest.
    slips
        Losses of synchronisation between microphone and loudspeaker, see `rtsep.devices.drift`.
    standstills
        Times a device without a sound card stood still, because the machine did.
    late
        Samples by which the worker is late now; 0 if it is in time.
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
    standstills: int
    late: int

    @property
    def xruns(self) -> int:
        """Return the under- and overflows that the device reported."""
        return (
            self.input_underflows
            + self.input_overflows
            + self.output_underflows
            + self.output_overflows
        )
