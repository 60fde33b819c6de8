"""Samples of a stream by their time: one writer that never waits, readers that copy.

The cell of a sample follows from its time alone, so nothing ever moves: what is late or left out
changes no other sample's place. The writer overwrites the oldest; who reads must have been there in
time, and can tell. Kernels are plain functions over arrays, for Python and the native callback.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numba import types

from rtsep.dsp.kernel import kernel
from rtsep.dsp.ring import Cells, acquire, release
from rtsep.spec import Float32, Int64

WRITTEN = 0
"""Row of ``cursors``: the time of the next sample to be written; only the writer moves it."""
READ = 1
"""Row of ``cursors``: the time up to which the reader is done; only the reader moves it."""
CURSORS = (2, 16)
"""Shape of ``cursors``, int64: each on cache lines of its own."""

_samples = types.Array(types.float32, 2, "C")
_const_samples = types.Array(types.float32, 2, "C", readonly=True)
_cursors = types.Array(types.int64, 2, "C")


_external: Any = types.ExternalFunction  # numba's own annotations do not fit
if sys.platform == "win32":  # whole milliseconds are the least there
    _sleep: Any = _external("Sleep", types.void(types.uint32))
    _TICK_US = 1000
else:
    _sleep = _external("usleep", types.int32(types.uint32))
    _TICK_US = 1


@kernel(types.void(types.int64), nogil=True)
def pause(duration_us: int) -> None:
    """Sleep for so many microseconds, a second at most."""
    _sleep(types.uint32(max(1, duration_us // _TICK_US)))


@kernel(types.void(_samples, _cursors, _const_samples))
def append(data: Float32, cursors: Int64, block: Float32) -> None:
    """Write ``block`` (n, width) at the present end."""
    mask = data.shape[0] - 1
    start = cursors[WRITTEN, 0]
    for i in range(block.shape[0]):
        for channel in range(data.shape[1]):
            data[(start + i) & mask, channel] = block[i, channel]
    release()  # the samples are in memory before the cursor says so
    cursors[WRITTEN, 0] = start + block.shape[0]


@kernel(types.void(_cursors, types.int64))
def leave_out(cursors: Int64, n: int) -> None:
    """Leave the next ``n`` samples unwritten."""
    release()  # whatever was said about them is in memory before
    cursors[WRITTEN, 0] += n


@kernel(types.void(_samples, types.int64, _samples))
def copy(data: Float32, start: int, out: Float32) -> None:
    """Fill ``out`` (n, width) with the samples from time ``start`` on."""
    mask = data.shape[0] - 1
    acquire()  # the samples behind the cursor that was looked at are visible
    for i in range(out.shape[0]):
        for channel in range(data.shape[1]):
            out[i, channel] = data[(start + i) & mask, channel]


@kernel(types.boolean(_cursors, types.int64, types.int64, types.int64), nogil=True)
def wait(cursors: Int64, n: int, pause_us: int, most: int) -> bool:
    """Sleep until ``n`` samples are readable, at most so many pauses; tell whether they are.

    Without the GIL, which whoever sleeps in Python must wait for after every pause.
    """
    for _ in range(most):
        if cursors[WRITTEN, 0] - cursors[READ, 0] >= n:
            return True
        pause(pause_us)
    return False


class Timeline:
    """The samples of one stream, over memory that is given.

    Parameters
    ----------
    data
        The cells, (capacity, width) float32; the capacity is a power of two.
    cursors
        `CURSORS` int64; column 0 of its rows holds the times, in samples since the stream began.
    """

    def __init__(self, data: Float32, cursors: Int64) -> None:
        if data.shape[0] & (data.shape[0] - 1) or cursors.shape != CURSORS:
            raise ValueError(f"no timeline: cells {data.shape}, cursors {cursors.shape}")
        self.data, self.cursors = data, cursors

    @property
    def cells(self) -> Cells:
        """What kernels work on."""
        return Cells(self.data, self.cursors)

    @property
    def capacity(self) -> int:
        """Newest samples that are kept."""
        return int(self.data.shape[0])

    @property
    def width(self) -> int:
        """Channels of each sample."""
        return int(self.data.shape[1])

    @property
    def written(self) -> int:
        """Time of the next sample to be written."""
        return int(self.cursors[WRITTEN, 0])

    @property
    def position(self) -> int:
        """Time up to which the reader is done."""
        return int(self.cursors[READ, 0])

    @property
    def readable(self) -> int:
        """Samples the reader has not had; negative where the writer is behind it."""
        return self.written - self.position

    def append(self, block: Float32) -> None:
        """Write a block, (n, width) float32, C-contiguous (writer's side)."""
        self._check(block)
        append(self.data, self.cursors, block)

    def leave_out(self, n: int) -> None:
        """Leave the next ``n`` samples unwritten (writer's side)."""
        leave_out(self.cursors, n)

    def copy(self, start: int, out: Float32) -> None:
        """Fill ``out`` (n, width), C-contiguous, with what was written from time ``start`` on."""
        self._check(out)
        copy(self.data, start, out)

    def read(self, out: Float32) -> bool:
        """Fill ``out`` with the next samples (reader's side).

        Returns
        -------
        bool
            Whether they were still there when the copy was complete; if not, ``out`` is a mixture
            of old and new. There must be as many as asked for.
        """
        start = self.position
        self.copy(start, out)
        whole = self.written - start <= self.capacity
        self.skip(len(out))
        return whole

    def wait(self, n: int, pause_us: int, most: int) -> bool:
        """Sleep until ``n`` samples are readable, at most so many pauses (reader's side)."""
        return bool(wait(self.cursors, n, pause_us, most))

    def skip(self, n: int) -> None:
        """Be done with the next ``n`` samples (reader's side)."""
        self.cursors[READ, 0] += n

    def _check(self, block: Float32) -> None:
        """Refuse what the kernels would read past the end of."""
        if (
            block.dtype != np.float32
            or block.ndim != 2
            or block.shape[1] != self.width
            or not block.flags.c_contiguous
            or len(block) > self.capacity
        ):
            raise ValueError(
                f"a block must be C-contiguous float32 of shape (n, {self.width}), "
                f"n up to {self.capacity}, "
                f"not {block.dtype} {block.shape} with strides {block.strides}"
            )
