"""A file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written there takes the place of ``path`` at the end.

    After any exception it is removed, and ``path`` is what it was. Missing folders are made.

    Raises
    ------
    OSError
        The folder can't be made, or ``path`` can't be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Where a file is written until it is complete.

    Hidden, and beside the target: renaming is atomic only within one file system.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.part")
