"""Memory in huge pages, where the system has them."""

from __future__ import annotations

import mmap

import numpy as np

from rtsep.spec import Float32

PAGE = 1 << 21
"""Bytes of a huge page on x86-64 and arm64."""


def zeros(count: int) -> Float32:
    """Return ``count`` zeros, in huge pages if they fill a good part of one.

    A network that is run every few milliseconds reads all its weights each time. In pages of 4 kB,
    looking up their addresses takes a tenth of that time.
    """
    if 4 * count < PAGE // 4 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(count, np.float32)
    pages = -(-4 * count // PAGE)
    try:
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory is never in huge pages
        area = mmap.mmap(-1, (pages + 1) * PAGE, flags=private)
        area.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # the kernel was built without them
        return np.zeros(count, np.float32)
    values = np.frombuffer(area, np.float32)
    start = -values.ctypes.data % PAGE // 4
    return values[start : start + count]
