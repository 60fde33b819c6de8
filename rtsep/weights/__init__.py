"""The shipped bundles and the learned voice, each with its card, and the added bundles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from rtsep.errors import BundleError
from rtsep.learned import kept_voice
from rtsep.learned.source import Source, read
from rtsep.runtime.bundle import Bundle, load

DEFAULT = "speech"
"""Name of the default model."""

ADDED = "RTSEP_MODELS"
"""Environment variable: folder of the models that `rtsep models add` adds."""

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the shipped bundles."""
    return sorted(path.stem for path in _FOLDER.glob("*.onnx"))


def folder() -> Path:
    """Return the folder of the models that were added; it may be missing."""
    return Path(os.environ.get(ADDED) or platformdirs.user_data_path("rtsep") / "models")


def added() -> list[str]:
    """Return the names of the models that were added, without those of shipped ones."""
    try:
        found = {path.stem for path in folder().glob("*.onnx") if not path.name.startswith(".")}
    except OSError:
        return []
    return sorted(found.difference(names()))


def available() -> list[str]:
    """Return the names of all models: the shipped ones, then the added ones."""
    return [*names(), *added()]


def card(name: str) -> Path:
    """Return the path of the card of a shipped bundle."""
    return _FOLDER / f"{name}.md"


def find(name_or_path: str | Path | None = None) -> Bundle:
    """Load a shipped or added bundle by name, or a bundle by path; None loads the default.

    Raises
    ------
    BundleError
        There is no such model or file, or the file can't be run.
    """
    if name_or_path is None:
        name_or_path = DEFAULT
    if str(name_or_path) in names():
        return load(_FOLDER / f"{name_or_path}.onnx")
    if str(name_or_path) in added():
        return load(folder() / f"{name_or_path}.onnx")
    path = Path(name_or_path)
    if not path.exists():
        shipped = ", ".join(names()) or "none"
        more = f", nor was it added ({', '.join(added()) or 'none'})"
        raise BundleError(
            f"{name_or_path} is neither a file nor a shipped model ({shipped}){more}: "
            "see rtsep models"
        )
    return load(path)


def chosen(
    model: str | Path | None = None,
    controls: Mapping[str, Any] | None = None,
    keep: str | Path | None = None,
) -> Bundle:
    """Load a model, see `find`, with other initial values of its controls.

    Parameters
    ----------
    model
        By default the one that ``keep`` was made for, or the default model.
    controls
        See `rtsep.controls.check`.
    keep
        File of ``rtsep enroll`` with the voice that is kept.

    Raises
    ------
    BundleError, ControlError, LearnedError
        There is no such model, control or voice, or they do not fit.
    """
    if keep is None:
        return find(model).controlled(controls or {})
    enrolled = kept_voice.read(Path(keep))
    return enrolled.applied(find(model or enrolled.model)).controlled(controls or {})


def voice() -> Source:
    """Load the source learned from many speakers, which `rtsep run --learn-noise` keeps."""
    return read(_FOLDER / "voice.rtsep")
