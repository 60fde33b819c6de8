"""The native callback of a device, which exchanges blocks with two timelines.

PortAudio calls `callback` on its own thread. It runs no Python, takes no lock, allocates nothing
and never takes the GIL, so Python code cannot delay it. All its data are in one block of memory:
the record `CONTROL`, followed by arrays that the record refers to by offsets from itself. So the
block works in every process that maps it.

The callback also implements the deadline policy. Input is stored by its time, and the worker's
output is played at its time or not at all. If it is missing, the output fades to the equally
delayed mixture (or to silence) and back. If the headroom changes, the output is cross-faded from
one time to the other.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.cgutils import voidptr_t
from numba.extending import intrinsic

from rtsep.devices import drift
from rtsep.devices.control_block import CONTROL
from rtsep.dsp import timed_ring
from rtsep.dsp.kernel import kernel
from rtsep.dsp.overlap_add import LIMIT
from rtsep.dsp.ring import acquire, release
from rtsep.spec import Float32

_ULONG = types.int64 if ctypes.sizeof(ctypes.c_ulong) == 8 else types.int32
_DRIFT = 0.01
"""Share of a callback's deviation from its due time that shifts the next due time, to follow a
device whose clock deviates from its nominal rate."""


@intrinsic
def _make_pointer(typingctx: Any, address: Any) -> Any:
    """Convert an address to a pointer for `carray`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], voidptr_t)

    return types.voidptr(types.int64), codegen


# Typed as Any, because numba's annotations do not fit these calls.
pointer: Any = _make_pointer
carray: Any = numba.carray  # type: ignore[attr-defined]


@kernel()
def _peak(block: Float32) -> np.float32:
    """Return the largest absolute value."""
    peak = np.float32(0.0)
    for i in range(block.shape[0]):
        for channel in range(block.shape[1]):
            size = abs(block[i, channel])
            if peak < size <= LIMIT:
                peak = size
    return peak


@kernel()
def _count_input_flags(control: Any, flags: int) -> None:
    control.input_underflows += flags & 1
    control.input_overflows += flags >> 1 & 1


@kernel()
def _count_xruns(control: Any, flags: int, now: float, frames: Any) -> None:
    """Count PortAudio's flags and the callbacks missed before this one, of ``frames`` samples."""
    control.callbacks += 1
    if control.callbacks == 1 or control.resumed:
        flags = 0  # the flags of the first callback are from before the stream
    if not control.two_clocks:
        _count_input_flags(control, flags)
    control.output_underflows += flags >> 2 & 1
    control.output_overflows += flags >> 3 & 1
    if now == 0.0:  # the host API has no clock
        return
    if control.due == 0.0:
        control.due = now
    # A late callback that is followed by an early one was not missed: uncount it.
    period = frames * control.sample_s
    slip = np.int64(np.floor((now - control.due) / period + 0.5))
    control.missed = max(control.missed + slip, 0)
    control.due += slip * period
    control.due += period + _DRIFT * (now - control.due)


@kernel()
def _keep(control: Any, data: Float32, cursors: Any, block: Float32) -> None:
    """Append a block to the mixture; replace and count NaN, Inf and excessive values."""
    mask = data.shape[0] - 1
    start = cursors[timed_ring.WRITTEN, 0]
    for i in range(block.shape[0]):
        for channel in range(block.shape[1]):
            sample = block[i, channel]
            if not abs(sample) <= LIMIT:
                sample = np.float32(0.0)
                control.nonfinite += 1
            data[(start + i) & mask, channel] = sample
    release()  # write the samples before the cursor
    cursors[timed_ring.WRITTEN, 0] = start + block.shape[0]


@kernel()
def _take(control: Any, user: int, now: float, out: Float32) -> None:
    """Fill a block from the microphone's timeline at the loudspeaker's rate; silence if empty."""
    frames = out.shape[0]
    shape = (control.feed_capacity, out.shape[1])
    feed = carray(pointer(user + control.feed_data), shape, np.float32)
    cursors = carray(pointer(user + control.feed_cursors), timed_ring.CURSORS, np.int64)
    shape = (drift.PHASES + 1, control.taps)
    rows = carray(pointer(user + control.table), shape, np.float32)
    written = cursors[timed_ring.WRITTEN, 0]
    acquire()
    ratio = control.feed_ratio * (1.0 + control.correction)
    span = frames * ratio
    seconds = frames / control.feed_rate * control.feed_ratio
    if control.resumed or not control.feed_position:
        control.feed_position = written
        control.feeding = 0
    left = written - (control.feed_position + span)
    # Add the samples recorded since the microphone's last call; otherwise the level would jump by
    # a block with the beat of the two clocks.
    heard = left + min(now - control.heard_at, 1.0) * control.feed_rate
    if not control.feeding:
        control.feeding = drift.look(control, heard, seconds)
    elif not 1.0 <= left <= 0.5 * control.feed_capacity:
        control.slips += 1
        control.feeding = 0
        control.feed_position = written
    else:
        drift.steer(control, heard, seconds)
    if control.feeding:
        drift.interpolate(feed, rows, control.feed_position, ratio, out)
    else:
        for channel in range(out.shape[1]):
            out[:, channel] = 0.0
    control.feed_position += span
    cursors[timed_ring.READ, 0] = np.int64(control.feed_position)


@kernel()
def _count_starvation(control: Any, first: int, count: int, frames: int) -> None:
    """Count the samples of a block outside ``first:count``, and their runs."""
    before = first if first < count else frames
    behind = frames - count if first < count else 0
    if before:
        control.starvations += control.absent == 0
        control.absent += before
        control.longest_starvation = max(control.longest_starvation, control.absent)
    if before < frames:
        control.absent = 0
    if behind:
        control.starvations += 1
        control.absent = behind
        control.longest_starvation = max(control.longest_starvation, control.absent)
    control.starved_samples += before + behind


@kernel()
def _change_headroom(control: Any) -> bool:
    """Adopt the wanted headroom; return whether the output jumps, because it is not whole now."""
    if control.ahead == control.ahead_wanted or control.crossing:
        return False
    control.ahead_before, control.ahead = control.ahead, control.ahead_wanted
    whole = control.wet == control.fade and not control.tail_left
    control.crossing = control.fade if whole else 0
    return not whole


@kernel()
def _dry(control: Any, mixture: Float32, time: int, channel: int) -> Any:
    """Return the mixture that replaces the output of a time."""
    if control.dry < 0:
        return np.float32(0.0)
    row = (time - control.dry) & (mixture.shape[0] - 1)
    return mixture[row, min(channel, mixture.shape[1] - 1)]


@kernel()
def _play(control: Any, user: int, mixture: Float32, now_at: int, out: Float32) -> None:
    """Fill the block of time ``now_at`` with the worker's output, or else the delayed mixture.

    When the worker's output returns, both are cross-faded. Output that suddenly ends cannot be
    faded itself, so its difference to the replacement is faded out instead.
    """
    frames, width = out.shape
    jumped = _change_headroom(control)
    start = now_at + control.ahead
    shape = (control.output_capacity, width)
    answers = carray(pointer(user + control.output_data), shape, np.float32)
    cursors = carray(pointer(user + control.output_cursors), timed_ring.CURSORS, np.int64)
    last = carray(pointer(user + control.last), width, np.float32)
    tail = carray(pointer(user + control.tail), width, np.float32)
    written = cursors[timed_ring.WRITTEN, 0]
    acquire()  # read the samples and the worker's notes after the cursor
    count = min(max(written - start, 0), frames)
    first = min(max(control.valid_from - start, 0), frames)
    cursors[timed_ring.READ, 0] = start + frames
    _count_starvation(control, first, count, frames)
    timed_ring.copy(answers, start, out)
    fade = control.fade
    steady = first == 0 and count == frames and control.wet == fade and not control.crossing
    if steady and not control.tail_left and not control.resumed:
        for channel in range(width):
            last[channel] = out[frames - 1, channel]
        return
    for i in range(frames):
        present = first <= i < count
        broken = control.resumed or jumped or (control.wet and not present)
        control.wet = min(control.wet + 1, fade) if present else 0
        control.resumed, jumped = 0, False
        gain = np.float32(control.wet) / np.float32(fade)
        if broken:
            control.tail_left = fade
        share = np.float32(control.tail_left) / np.float32(fade)
        crossing = np.float32(control.crossing) / np.float32(fade)
        former = now_at + control.ahead_before + i
        for channel in range(width):
            dry = _dry(control, mixture, start + i, channel)
            sample = dry
            if present and control.wet == fade:
                sample = out[i, channel]
            elif present:
                sample += gain * (out[i, channel] - dry)
            if control.crossing:
                before = _dry(control, mixture, former, channel)
                if control.valid_from <= former < written:
                    before = answers[former & (answers.shape[0] - 1), channel]
                sample += crossing * (before - sample)
            if broken:
                tail[channel] = last[channel] - sample
            sample += share * tail[channel]
            last[channel] = sample
            out[i, channel] = sample
        control.tail_left = max(control.tail_left - 1, 0)
        control.crossing = max(control.crossing - 1, 0)


@kernel()
def _guard(control: Any, out: Float32) -> None:
    """Replace NaN and Inf by 0, apply the limiter, and update the peak."""
    limit = np.float32(control.limit)
    for i in range(out.shape[0]):
        peak = np.float32(0.0)
        for channel in range(out.shape[1]):
            if not abs(out[i, channel]) <= LIMIT:
                out[i, channel] = np.float32(0.0)
            peak = max(peak, abs(out[i, channel]))
        if limit < LIMIT:
            control.limiter += control.release * (1.0 - control.limiter)
            if peak * control.limiter > limit:
                control.limiter = control.limit / peak
            for channel in range(out.shape[1]):
                sample = np.float32(out[i, channel] * control.limiter)
                out[i, channel] = min(max(sample, -limit), limit)
            peak = min(np.float32(peak * control.limiter), limit)
        control.output_peak = max(control.output_peak, peak)


_exchange = types.int32(types.int64, types.int64, _ULONG, types.int64, _ULONG, types.int64)


@kernel(_exchange, nogil=True)
def exchange(
    input_address: int, output_address: int, frames: int, time_address: int, flags: int, user: int
) -> int:
    """Exchange one block, see `callback`."""
    control = carray(pointer(user), 1, CONTROL)[0]
    width = control.input_width
    length = np.int64(frames)
    if not control.microphone:
        # The source ends with one block of silence, which is repeated.
        start = min(control.source_position, control.source_length)
        input_address = user + control.source + 4 * width * start
        control.source_position += length
    if control.two_clocks:
        input_address = user + control.taken
    block = carray(pointer(input_address), (length, width), np.float32)
    out = carray(pointer(output_address), (length, control.output_width), np.float32)
    # PaStreamCallbackTimeInfo: time of the input, now, time of the output.
    time = carray(pointer(time_address), 3, np.float64)
    now = time[0] if control.microphone and not control.two_clocks else time[2]
    _count_xruns(control, flags, now if now > 0.0 else time[1], length)
    if control.passthrough:
        for i in range(length):
            for channel in range(control.output_width):
                out[i, channel] = block[i, min(channel, width - 1)]
    else:
        shape = (control.input_capacity, width)
        mixture = carray(pointer(user + control.input_data), shape, np.float32)
        cursors = carray(pointer(user + control.input_cursors), timed_ring.CURSORS, np.int64)
        now_at = cursors[timed_ring.WRITTEN, 0]
        if control.two_clocks:
            _take(control, user, time[1], block)
        _keep(control, mixture, cursors, block)
        _play(control, user, mixture, now_at, out)
    control.input_peak = max(control.input_peak, _peak(block))
    _guard(control, out)
    return 0


@kernel(_exchange, callback=True)
def callback(
    input_address: int, output_address: int, frames: int, time_address: int, flags: int, user: int
) -> int:
    """Exchange one block: a ``PaStreamCallback`` with pointers as integers."""
    return exchange(input_address, output_address, frames, time_address, flags, user)


@kernel(_exchange, callback=True)
def listen(
    input_address: int, output_address: int, frames: int, time_address: int, flags: int, user: int
) -> int:
    """Append a block of a microphone with its own clock to its timeline."""
    control = carray(pointer(user), 1, CONTROL)[0]
    shape = (control.feed_capacity, control.input_width)
    block = carray(pointer(input_address), (np.int64(frames), shape[1]), np.float32)
    feed = carray(pointer(user + control.feed_data), shape, np.float32)
    cursors = carray(pointer(user + control.feed_cursors), timed_ring.CURSORS, np.int64)
    _count_input_flags(control, flags)
    control.heard_at = carray(pointer(time_address), 3, np.float64)[1]
    _keep(control, feed, cursors, block)
    return 0
