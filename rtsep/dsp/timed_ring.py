"""A ring of samples addressed by time: one writer that never waits, and readers that copy.

The cell of a sample depends on its time only, so late or omitted samples do not shift others. The
writer overwrites the oldest samples; a reader can detect that. Kernels are functions over arrays,
for Python and the native callback.
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
"""Row of ``cursors``: time of the next sample to write; only the writer changes it."""
READ = 1
"""Row of ``cursors``: time up to which samples were read; only the reader changes it."""
CURSORS = (2, 16)
"""Shape of ``cursors``, int64: each row on separate cache lines."""

_samples = types.Array(types.float32, 2, "C")
_const_samples = types.Array(types.float32, 2, "C", readonly=True)
_cursors = types.Array(types.int64, 2, "C")


_external: Any = types.ExternalFunction  # numba's own annotations do not fit
if sys.platform == "win32":  # Windows sleeps whole milliseconds
    _sleep: Any = _external("Sleep", types.void(types.uint32))
    _TICK_US = 1000
else:
    _sleep = _external("usleep", types.int32(types.uint32))
    _TICK_US = 1


@kernel(types.void(types.int64), nogil=True)
def pause(duration_us: int) -> None:
    """Sleep for ``duration_us`` microseconds, at most a second."""
    _sleep(types.uint32(max(1, duration_us // _TICK_US)))


@kernel(types.void(_samples, _cursors, _const_samples))
def append(data: Float32, cursors: Int64, block: Float32) -> None:
    """Append ``block`` (n, width)."""
    mask = data.shape[0] - 1
    start = cursors[WRITTEN, 0]
    for i in range(block.shape[0]):
        for channel in range(data.shape[1]):
            data[(start + i) & mask, channel] = block[i, channel]
    release()  # write the samples before the cursor
    cursors[WRITTEN, 0] = start + block.shape[0]


@kernel(types.void(_cursors, types.int64))
def leave_out(cursors: Int64, n: int) -> None:
    """Skip the next ``n`` samples without writing them."""
    release()  # write what the caller noted about them before the cursor
    cursors[WRITTEN, 0] += n


@kernel(types.void(_samples, types.int64, _samples))
def copy(data: Float32, start: int, out: Float32) -> None:
    """Copy the samples from time ``start`` on to ``out`` (n, width)."""
    mask = data.shape[0] - 1
    acquire()  # read the samples after the caller has read the cursor
    for i in range(out.shape[0]):
        for channel in range(data.shape[1]):
            out[i, channel] = data[(start + i) & mask, channel]


@kernel(types.boolean(_cursors, types.int64, types.int64, types.int64), nogil=True)
def wait(cursors: Int64, n: int, pause_us: int, most: int) -> bool:
    """Sleep until ``n`` samples are readable, at most ``most`` pauses; return whether they are.

    It runs without the GIL, so the thread does not wait for the GIL after every pause.
    """
    for _ in range(most):
        if cursors[WRITTEN, 0] - cursors[READ, 0] >= n:
            return True
        pause(pause_us)
    return False


class Timeline:
    """The samples of one stream by their time, in given memory.

    Parameters
    ----------
    data
        The cells, (capacity, width) float32; the capacity is a power of two.
    cursors
        `CURSORS` int64; column 0 of its rows contains the times, in samples since the start.
    """

    def __init__(self, data: Float32, cursors: Int64) -> None:
        if data.shape[0] & (data.shape[0] - 1) or cursors.shape != CURSORS:
            raise ValueError(f"invalid timeline: cells {data.shape}, cursors {cursors.shape}")
        self.data, self.cursors = data, cursors

    @property
    def cells(self) -> Cells:
        """Arrays that kernels work on."""
        return Cells(self.data, self.cursors)

    @property
    def capacity(self) -> int:
        """Number of newest samples that are kept."""
        return int(self.data.shape[0])

    @property
    def width(self) -> int:
        """Channels of each sample."""
        return int(self.data.shape[1])

    @property
    def written(self) -> int:
        """Time of the next sample to write."""
        return int(self.cursors[WRITTEN, 0])

    @property
    def position(self) -> int:
        """Time up to which samples were read."""
        return int(self.cursors[READ, 0])

    @property
    def readable(self) -> int:
        """Number of unread samples; negative if the writer is behind the reader."""
        return self.written - self.position

    def append(self, block: Float32) -> None:
        """Append a block, (n, width) float32, C-contiguous (writer's side)."""
        self._check(block)
        append(self.data, self.cursors, block)

    def leave_out(self, n: int) -> None:
        """Skip the next ``n`` samples without writing them (writer's side)."""
        leave_out(self.cursors, n)

    def copy(self, start: int, out: Float32) -> None:
        """Copy the samples from time ``start`` on to ``out`` (n, width), C-contiguous."""
        self._check(out)
        copy(self.data, start, out)

    def read(self, out: Float32) -> bool:
        """Fill ``out`` with the next samples (reader's side).

        Returns
        -------
        bool
            False if samples were overwritten during the copy; ``out`` then has old and new ones.
            As many samples as ``out`` has must be readable.
        """
        start = self.position
        self.copy(start, out)
        whole = self.written - start <= self.capacity
        self.skip(len(out))
        return whole

    def wait(self, n: int, pause_us: int, most: int) -> bool:
        """Sleep until ``n`` samples are readable, at most ``most`` pauses (reader's side)."""
        return bool(wait(self.cursors, n, pause_us, most))

    def skip(self, n: int) -> None:
        """Skip the next ``n`` samples (reader's side)."""
        self.cursors[READ, 0] += n

    def _check(self, block: Float32) -> None:
        """Check layout, type and shape, so that kernels stay within the array."""
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
