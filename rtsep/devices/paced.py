"""A device without a sound card: the native callback, paced by the system clock."""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Any

import numpy as np
from numba import types

from rtsep.devices.callback import carray, exchange, pointer
from rtsep.devices.callback_stream import CallbackStream
from rtsep.devices.control_block import CONTROL
from rtsep.dsp.kernel import array, kernel
from rtsep.dsp.timed_ring import pause
from rtsep.spec import Float32, Int64

NEAREST = 0.97
"""Shortest time between two blocks, as a share of a block's time. A block that comes late is made
up for by several earlier ones, because a sound card does not bring blocks in bursts either. The
worker looks for a block after 0.95 of its time, so it never looks long after an early one."""
_LONGEST_PAUSE_S = 0.05
"""Time in which the clock notices that it is to stop."""
_STOP = 0
"""Index in ``flags``: whether the clock is to stop."""
PERIOD, PATIENCE, TICKS_HZ = 0, 1, 2
"""Indices in ``settings``: time of a block in seconds, delay in seconds after which the machine
stood still, and unit of the counter of Windows, in Hz."""

_external: Any = types.ExternalFunction  # numba's annotations do not fit
if sys.platform == "win32":
    _counter: Any = _external("QueryPerformanceCounter", types.int32(types.voidptr))

    @kernel()
    def _now(ticks: Any, settings: Any) -> Any:
        """Return the time of a clock that never goes back, in seconds."""
        _counter(pointer(ticks.ctypes.data))
        return ticks[0] / settings[TICKS_HZ]
else:
    _clock: Any = _external("clock_gettime", types.int32(types.int32, types.voidptr))
    _MONOTONIC = 6 if sys.platform == "darwin" else 1

    @kernel()
    def _now(ticks: Any, settings: Any) -> Any:
        """Return the time of a clock that never goes back, in seconds."""
        _clock(types.int32(_MONOTONIC), pointer(ticks.ctypes.data))
        return ticks[0] + 1e-9 * ticks[1]


@kernel(
    types.void(
        *(types.int64, array(2), array(2), array(2)),
        *(types.int64[::1], types.int64[::1], types.float64[::1], types.float64[::1]),
    ),
    nogil=True,
)
def run(
    user: int,
    block: Float32,
    out: Float32,
    kept: Float32,
    flags: Int64,
    ticks: Int64,
    settings: Any,
    clock: Any,
) -> None:
    """Exchange blocks with the callback until ``flags[0]``, one per period.

    Deadlines are absolute, so the pace does not drift, but two blocks are never nearer than
    `NEAREST`. After a longer delay than the patience the pace starts anew, and the standstill is
    counted. To the callback, each block is in time. The first outputs are copied to ``kept``.
    """
    control = carray(pointer(user), 1, CONTROL)[0]
    period = settings[PERIOD]
    start = before = _now(ticks, settings)
    count = filled = 0
    while not flags[_STOP]:
        count += 1
        due = max(start + count * period, before + NEAREST * period)
        before = _now(ticks, settings)
        while before < due and not flags[_STOP]:
            pause(int(1e6 * min(due - before, _LONGEST_PAUSE_S)))
            before = _now(ticks, settings)
        if before - due > settings[PATIENCE]:
            control.standstills += 1
            start, count = before, 0
        for i in range(clock.size):
            clock[i] += period
        exchange(block.ctypes.data, out.ctypes.data, block.shape[0], clock.ctypes.data, 0, user)
        for i in range(min(kept.shape[0] - filled, out.shape[0])):
            for channel in range(out.shape[1]):
                kept[filled, channel] = out[i, channel]
            filled += 1


class Clock(CallbackStream):
    """Call the native callback from a thread, one block per ``block / sample_rate`` seconds.

    Without a source the input is silence. The thread does not need Python's interpreter lock.

    Parameters
    ----------
    sample_rate, in_channels, out_channels, block, headroom, source, passthrough
        As in `CallbackStream`.
    kept
        (n, out_channels) float32 that is filled with the first ``n`` samples of the output.
    """

    def __init__(
        self,
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        headroom: int,
        source: Float32 | None = None,
        *,
        passthrough: bool = False,
        kept: Float32 | None = None,
    ) -> None:
        super().__init__(
            sample_rate,
            in_channels,
            out_channels,
            block,
            headroom,
            source,
            passthrough=passthrough,
        )
        self.name = "no device, paced by the system clock"
        self._flags = np.zeros(1, np.int64)
        self._kept = np.zeros((0, out_channels), np.float32) if kept is None else kept
        self._thread = threading.Thread(target=self._run, name="rtsep clock", daemon=True)

    @property
    def active(self) -> bool:
        """Whether blocks are exchanged."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start to exchange blocks; once per object."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; may be repeated."""
        self._flags[_STOP] = 1
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        """Call the callback until stopped."""
        block = np.zeros((self.block, self.input.width), np.float32)
        out = np.zeros((self.block, self.output.width), np.float32)
        patience = max(self.headroom, self.block) / self.sample_rate
        settings = np.array([self.block / self.sample_rate, patience, _ticks_hz()])
        ticks, clock = np.zeros(2, np.int64), np.ones(3)
        run(self.userdata, block, out, self._kept, self._flags, ticks, settings, clock)


def _ticks_hz() -> float:
    if sys.platform != "win32":
        return 1.0
    frequency = ctypes.c_int64()
    ctypes.windll.kernel32.QueryPerformanceFrequency(ctypes.byref(frequency))
    return float(frequency.value)
