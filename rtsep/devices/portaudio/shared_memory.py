"""Anonymous memory shared by two processes; it is freed with the last of them."""

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
    """Memory that a child process can map; its size is set later.

    Attributes
    ----------
    key
        Argument for `attach` in the child.
    descriptors
        File descriptors that the child must inherit, see `subprocess.Popen`.
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
        """Set the size in bytes and map the memory, which is zeroed."""
        for descriptor in self.descriptors:
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, size)
        return attach(self.key, size)


def attach(key: str, size: int) -> mmap.mmap:
    """Map the memory of ``key``, of ``size`` bytes."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=key)
    # If the system supports it, map all pages before the audio path touches them.
    return mmap.mmap(int(key), size, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
