"""Keep the processor from deep sleep while a stream runs.

A core that sleeps deeply between two blocks takes up to a millisecond to wake, and its caches are
empty then. Linux lets programs limit that time as long as they hold a file open (Linux kernel
documentation, "PM Quality Of Service Interface").

The limit is not 0, which means no sleep at all: cores would spin in place of sleeping, and a host
may stop cores of a virtual machine that spin, for 100 ms at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PATH = Path("/dev/cpu_dma_latency")
"""The file that is held open."""
_LONGEST_WAKE_US = 20
"""Allows the light sleeps of x86 processors (1 to 18 µs), not the deep ones (85 µs and more)."""


@contextmanager
def awake(ask: bool = True) -> Iterator[bool]:
    """Allow no sleep that takes time to wake from, for the duration of the ``with`` block.

    Parameters
    ----------
    ask
        Whether to request it at all.

    Yields
    ------
    Whether the system allows it.
    """
    with ExitStack() as held:
        granted = False
        if ask:
            with suppress(OSError):  # no such file, or not allowed
                file = held.enter_context(PATH.open("r+b", buffering=0))
                granted = file.write(struct.pack("=i", _LONGEST_WAKE_US)) == 4
        yield granted
