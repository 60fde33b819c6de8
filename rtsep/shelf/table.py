"""The table of models by others that can be added by name."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtsep.errors import ShelfError

TABLE = "RTSEP_SHELF"
"""Environment variable: another table, for a mirror."""


@dataclass(frozen=True)
class PublishedFile:
    """A file as its authors publish it: address, SHA-256 in hexadecimal digits, size in bytes."""

    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Published:
    """A model by others.

    Attributes
    ----------
    purpose, author, licence
        Texts.
    sample_rate
        In Hz.
    latency_ms
        Window and lookahead, in ms.
    files
        Its ONNX files, in the order of `rtsep adopt`.
    """

    purpose: str
    author: str
    licence: str
    sample_rate: int
    latency_ms: float
    files: tuple[PublishedFile, ...]

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.bytes for file in self.files)


def published() -> dict[str, Published]:
    """Return the models that can be added by name.

    Raises
    ------
    ShelfError
        `TABLE` names a file that can't be read or is invalid.
    """
    path = Path(os.environ.get(TABLE) or Path(__file__).with_name("known.toml"))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: _row(row) for name, row in table.items()}
    except OSError as error:
        raise ShelfError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise ShelfError(f"{path} is not a table of models: {error}") from None


def about(name: str, row: Published) -> str:
    """Return licence, size and latency of a model of the table, as one line."""
    return (
        f"{name}: {row.purpose}; by {row.author}, not by rtsep; licence {row.licence}; "
        f"{row.size / 1e6:.1f} MB; latency {row.latency_ms:.0f} ms at {row.sample_rate} Hz"
    )


def _row(row: dict[str, Any]) -> Published:
    files = tuple(PublishedFile(**file) for file in row["files"]) if "files" in row else ()
    return Published(**{**row, "files": files})
