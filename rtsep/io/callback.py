"""What runs when the device asks for a block: native code between two rings, no Python in it.

PortAudio calls `callback` on its own thread. It takes no lock, allocates nothing and never asks for
the GIL, so nothing that Python does can make it late. Python sees it through two rings and one
record of counters, `CONTROL`, which only the callback writes while the stream runs.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from numba import cfunc, njit, types
from numba.core.cgutils import voidptr_t
from numba.extending import intrinsic

from rtsep import ring
from rtsep.ring import Float32

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
    "starving",
)
COUNTERS = (
    "callbacks",
    "missed",
    "input_underflows",
    "input_overflows",
    "output_underflows",
    "output_overflows",
    "input_overruns",
    "overrun_samples",
    "starvations",
    "starved_samples",
    "resyncs",
    "debt",
)
CONTROL = np.dtype(
    [(name, np.int64) for name in (*_SETTINGS, *COUNTERS)]
    + [(name, np.float64) for name in ("period", "due", "input_peak", "output_peak")]
)
"""The record behind ``userdata``: addresses and sizes, then counters; times are in seconds."""

_ULONG = types.int64 if ctypes.sizeof(ctypes.c_ulong) == 8 else types.int32
_DRIFT = 0.01
"""Share of a callback's deviation from its due time that moves the next one: follows a device
whose clock is not exactly at its nominal rate."""


@intrinsic
def _make_pointer(typingctx: Any, address: Any) -> Any:
    """Turn an address into what `carray` takes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], voidptr_t)

    return types.voidptr(types.int64), codegen


# As numba's own annotations of these do not fit how they are called.
_pointer: Any = _make_pointer
carray: Any = numba.carray  # type: ignore[attr-defined]


@njit(cache=True)
def _peak(block: Float32) -> np.float32:
    """Largest absolute value."""
    peak = np.float32(0.0)
    for i in range(block.shape[0]):
        for channel in range(block.shape[1]):
            peak = max(peak, abs(block[i, channel]))
    return peak


@njit(cache=True)
def _count_xruns(control: Any, flags: int, now: float) -> None:
    """Count PortAudio's flags, and the callbacks that should have come before this one."""
    control.callbacks += 1
    control.input_underflows += flags & 1
    control.input_overflows += flags >> 1 & 1
    control.output_underflows += flags >> 2 & 1
    control.output_overflows += flags >> 3 & 1
    if now == 0.0:  # a host without a clock
        return
    if control.due == 0.0:
        control.due = now
    # One late callback that the next one makes up for is not a missed one: it is taken back.
    slip = np.int64(np.floor((now - control.due) / control.period + 0.5))
    control.missed = max(control.missed + slip, 0)
    control.due += slip * control.period
    control.due += control.period + _DRIFT * (now - control.due)


@njit(cache=True)
def _play(control: Any, out: Float32) -> None:
    """Fill a block from the output ring, silence where it has too little.

    Every sample of silence makes what follows one sample later, every sample that was dropped
    before the input ring one sample earlier. ``debt`` keeps the sum, and what is late is dropped
    here, so the latency returns to its start value.
    """
    data = carray(
        _pointer(control.output_data), (control.output_capacity, control.output_width), np.float32
    )
    cursors = carray(_pointer(control.output_cursors), (2, 16), np.int64)
    frames = np.int64(out.shape[0])
    off = control.debt != 0
    first = np.int64(0)
    if control.debt > 0:
        control.debt -= ring.skip(cursors, control.debt)
    elif control.debt < 0:
        first = min(-control.debt, frames)
        control.debt += first
    count = first + ring.read(data, cursors, out[first:])
    for channel in range(out.shape[1]):
        out[:first, channel] = 0.0
        out[count:, channel] = 0.0
    control.debt += frames - count
    if off and control.debt == 0:
        control.resyncs += 1
    if count < frames:
        control.starvations += 1 - control.starving
        control.starved_samples += frames - count
    control.starving = np.int64(count < frames)


# The cache does not see changes of the kernels in `rtsep.ring`: after one, delete __pycache__.
@cfunc(
    types.int32(types.int64, types.int64, _ULONG, types.int64, _ULONG, types.int64),
    cache=True,
)
def callback(
    input_address: int, output_address: int, frames: int, time_address: int, flags: int, user: int
) -> int:
    """Exchange one block; a ``PaStreamCallback`` whose pointers are taken as integers."""
    control = carray(_pointer(user), 1, CONTROL)[0]
    width = control.input_width
    length = np.int64(frames)
    if not control.microphone:
        # The source ends with one block of silence, which is repeated for ever.
        start = min(control.source_position, control.source_length)
        input_address = control.source + 4 * width * start
        control.source_position += length
    block = carray(_pointer(input_address), (length, width), np.float32)
    out = carray(_pointer(output_address), (length, control.output_width), np.float32)
    # PaStreamCallbackTimeInfo: when the input was heard, now, when the output will be.
    time = carray(_pointer(time_address), 3, np.float64)
    now = time[0] if control.microphone else time[2]
    _count_xruns(control, flags, now if now > 0.0 else time[1])
    if control.passthrough:
        for i in range(length):
            for channel in range(control.output_width):
                out[i, channel] = block[i, min(channel, width - 1)]
    else:
        data = carray(_pointer(control.input_data), (control.input_capacity, width), np.float32)
        cursors = carray(_pointer(control.input_cursors), (2, 16), np.int64)
        dropped = length - ring.write(data, cursors, block)
        if dropped:
            control.input_overruns += 1
            control.overrun_samples += dropped
            control.debt -= dropped
        _play(control, out)
    control.input_peak = max(control.input_peak, _peak(block))
    control.output_peak = max(control.output_peak, _peak(out))
    return 0
