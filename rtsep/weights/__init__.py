"""The shipped bundles and the learned voice, each beside its card."""

from __future__ import annotations

from pathlib import Path

from rtsep.errors import BundleError
from rtsep.learned.source import Source, read
from rtsep.runtime.bundle import Bundle, load

DEFAULT = "speech"
"""What runs when no model is named."""

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the shipped bundles."""
    return sorted(path.stem for path in _FOLDER.glob("*.onnx"))


def card(name: str) -> Path:
    """Where the card of a shipped bundle lies."""
    return _FOLDER / f"{name}.md"


def find(name_or_path: str | Path | None = None) -> Bundle:
    """Load a shipped bundle by name, or any by path; the default one for None.

    Raises
    ------
    BundleError
        There is no such name or file, or the file can't be run.
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
    """Load what was learned of many speakers: what `rtsep run --learn-noise` keeps."""
    return read(_FOLDER / "voice.rtsep")
