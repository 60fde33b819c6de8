"""The shipped bundles and the learned voice, each with its card."""

from __future__ import annotations

from pathlib import Path

from rtsep.errors import BundleError
from rtsep.learned.source import Source, read
from rtsep.runtime.bundle import Bundle, load

DEFAULT = "speech"
"""Name of the default model."""

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the shipped bundles."""
    return sorted(path.stem for path in _FOLDER.glob("*.onnx"))


def card(name: str) -> Path:
    """Return the path of the card of a shipped bundle."""
    return _FOLDER / f"{name}.md"


def find(name_or_path: str | Path | None = None) -> Bundle:
    """Load a shipped bundle by name, or a bundle by path; None loads the default.

    Raises
    ------
    BundleError
        There is no such model or file, or the file can't be run.
    """
    if name_or_path is None:
        name_or_path = DEFAULT
    if str(name_or_path) in names():
        return load(_FOLDER / f"{name_or_path}.onnx")
    path = Path(name_or_path)
    if not path.exists():
        shipped = ", ".join(names()) or "none"
        raise BundleError(f"{name_or_path} is neither a file nor a shipped model ({shipped})")
    return load(path)


def voice() -> Source:
    """Load the source learned from many speakers, which `rtsep run --learn-noise` keeps."""
    return read(_FOLDER / "voice.rtsep")
