"""Write files atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces ``path`` at the end of the ``with`` block.

    After an exception the temporary file is removed and ``path`` is unchanged. Missing folders are
    created.

    Raises
    ------
    OSError
        The folder can't be created, or ``path`` can't be replaced.
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
    """Return the temporary path for a file: hidden, in the folder of the target.

    Renaming is atomic only within one file system.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.part")
