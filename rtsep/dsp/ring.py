"""A lock-free queue of samples for one producer and one consumer.

The kernels are functions over arrays, so Python and the native callback of a device use the same
code. They do not release the GIL: they take microseconds, and taking the GIL again may take half a
millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from rtsep.dsp.kernel import kernel, named
from rtsep.spec import Float32, Int64

WRITTEN = 0
"""Row of ``cursors``: samples written; only the producer changes it."""
READ = 1
"""Row of ``cursors``: samples read or skipped; only the consumer changes it."""

_LINE = 16  # int64 per cursor: 128 bytes, because cache lines are fetched in pairs

_samples = types.Array(types.float32, 2, "C")
_const_samples = types.Array(types.float32, 2, "C", readonly=True)
_cursors = types.Array(types.int64, 2, "C")


class Cells(NamedTuple):
    """Arrays that kernels work on: samples (capacity, width) and cursors."""

    data: Float32
    cursors: Int64


CELLS = named(Cells, _samples, _cursors)


def _fence_intrinsic(ordering: str) -> Any:
    """Make a numba intrinsic that emits a memory fence of the given ordering."""

    def fence(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence(ordering)
            return context.get_dummy_value()

        return types.void(), codegen

    return intrinsic(fence)


_acquire = _fence_intrinsic("acquire")
_release = _fence_intrinsic("release")


def acquire() -> None:
    """Acquire fence: no later access moves before earlier loads. In Python the GIL ensures it."""


def release() -> None:
    """Release fence: no earlier access moves after later stores. In Python the GIL ensures it."""


@overload(acquire)
def _compiled_acquire() -> Callable[[], None]:
    def fence() -> None:
        _acquire()

    return fence


@overload(release)
def _compiled_release() -> Callable[[], None]:
    def fence() -> None:
        _release()

    return fence


@kernel(types.int64(_samples, _cursors, _const_samples))
def write(data: Float32, cursors: Int64, block: Float32) -> int:
    """Append as much of ``block`` (n, width) as fits; return the number of samples."""
    mask = data.shape[0] - 1
    start = cursors[WRITTEN, 0]
    count: int = min(data.shape[0] - (start - cursors[READ, 0]), block.shape[0])
    acquire()  # the consumer has read the cells it released
    for i in range(count):
        for channel in range(data.shape[1]):
            data[(start + i) & mask, channel] = block[i, channel]
    release()  # write the samples before the cursor
    cursors[WRITTEN, 0] = start + count
    return count


@kernel(types.int64(_samples, _cursors, _samples))
def read(data: Float32, cursors: Int64, out: Float32) -> int:
    """Move the oldest samples to the start of ``out`` (n, width); return their number."""
    mask = data.shape[0] - 1
    start = cursors[READ, 0]
    count: int = min(cursors[WRITTEN, 0] - start, out.shape[0])
    acquire()  # read the samples after the cursor
    for i in range(count):
        for channel in range(data.shape[1]):
            out[i, channel] = data[(start + i) & mask, channel]
    release()  # copy the samples before releasing their cells
    cursors[READ, 0] = start + count
    return count


@kernel(types.int64(_cursors, types.int64))
def skip(cursors: Int64, n: int) -> int:
    """Drop the ``n`` oldest samples, or all if there are fewer; return their number."""
    start = cursors[READ, 0]
    count: int = max(min(cursors[WRITTEN, 0] - start, n), 0)
    release()
    cursors[READ, 0] = start + count
    return count


class Ring:
    """A lock-free queue of float32 samples for one producer and one consumer.

    Parameters
    ----------
    capacity
        Smallest capacity in samples; rounded up to a power of two.
    width
        Channels of each sample (sources times channels for stems).

    Attributes
    ----------
    data
        The cells, (capacity, width) float32.
    cursors
        (2, 16) int64. Column 0 of rows `WRITTEN` and `READ` counts samples since the start; the
        other columns put the two counters on separate cache lines.
    """

    data: Float32
    cursors: Int64

    def __init__(self, capacity: int, width: int) -> None:
        if capacity < 1 or width < 1:
            raise ValueError(f"capacity and width must be 1 or more, not {capacity} and {width}")
        self.data = np.zeros((1 << (capacity - 1).bit_length(), width), np.float32)
        memory = np.zeros(3 * _LINE, np.int64)
        first = -memory.ctypes.data // 8 % _LINE
        self.cursors = memory[first : first + 2 * _LINE].reshape(2, _LINE)

    @property
    def cells(self) -> Cells:
        """Arrays that kernels work on."""
        return Cells(self.data, self.cursors)

    @property
    def capacity(self) -> int:
        """Largest number of samples in the ring, a power of two."""
        return int(self.data.shape[0])

    @property
    def width(self) -> int:
        """Channels of each sample."""
        return int(self.data.shape[1])

    @property
    def readable(self) -> int:
        """Number of samples that the consumer can read; it may grow at any time."""
        return int(self.cursors[WRITTEN, 0] - self.cursors[READ, 0])

    @property
    def writable(self) -> int:
        """Number of samples that the producer can write; it may grow at any time."""
        return self.capacity - self.readable

    def write(self, block: Float32) -> int:
        """Append a block (producer's side).

        Parameters
        ----------
        block
            (n, width) float32, C-contiguous.

        Returns
        -------
        int
            Number of samples written, from the start of ``block``.
        """
        self._check(block)
        return int(write(self.data, self.cursors, block))

    def read(self, out: Float32) -> int:
        """Take the oldest samples (consumer's side).

        Parameters
        ----------
        out
            (n, width) float32, C-contiguous; filled from the start, the rest is unchanged.

        Returns
        -------
        int
            Number of samples read, at most ``n``.
        """
        self._check(out)
        return int(read(self.data, self.cursors, out))

    def skip(self, n: int) -> int:
        """Drop the ``n`` oldest samples, or all; return their number (consumer's side)."""
        return int(skip(self.cursors, n))

    def clear(self) -> None:
        """Drop all readable samples (consumer's side)."""
        self.skip(self.readable)

    def _check(self, block: Float32) -> None:
        """Check layout, type and shape, so that kernels stay within the array."""
        if (
            block.dtype != np.float32
            or block.ndim != 2
            or block.shape[1] != self.width
            or not block.flags.c_contiguous
        ):
            raise ValueError(
                f"a block must be C-contiguous float32 of shape (n, {self.width}), "
                f"not {block.dtype} {block.shape} with strides {block.strides}"
            )
