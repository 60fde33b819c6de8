"""Memory two processes share, without a name: it goes with the last of them, however it ends."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import weakref
from itertools import count
from pathlib import Path

_serial = count()


class Shared:
    """Memory that a child process can map too; its size is settled later.

    Attributes
    ----------
    key
        What the child gives to `attach`.
    descriptors
        What the child must inherit, see `subprocess.Popen`.
    """

    def __init__(self) -> None:
        self.descriptors: tuple[int, ...] = ()
        if sys.platform == "win32":
            self.key = f"rtsep-{os.getpid()}-{next(_serial)}"
            return
        if sys.platform == "linux":
            descriptor = os.memfd_create("rtsep")
        else:
            descriptor, path = tempfile.mkstemp()
            Path(path).unlink()
        weakref.finalize(self, os.close, descriptor)
        self.key = str(descriptor)
        self.descriptors = (descriptor,)

    def allocate(self, size: int) -> mmap.mmap:
        """Settle the size, in bytes, and map it; zeros."""
        for descriptor in self.descriptors:
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, size)
        return attach(self.key, size)


def attach(key: str, size: int) -> mmap.mmap:
    """Map the memory of that key, of that size in bytes."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=key)
    # Each page is there before the audio path touches it, where the system can do that.
    return mmap.mmap(int(key), size, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
