"""Folders of mixtures and their sources, in two layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtsep.errors import AudioFileError, EvaluationError
from rtsep.files.readers import read_all
from rtsep.spec import Float32

SUFFIXES = (".flac", ".wav", ".ogg", ".aiff", ".mp3")
REST = "noise"
"""Name of the remainder if a folder has the files of one source only."""


@dataclass(frozen=True)
class Item:
    """A mixture and the files of its sources by name."""

    name: str
    mixture: Path
    stems: dict[str, Path]


@dataclass(frozen=True)
class Example:
    """Samples of an item: ``mixture`` (n, channels), ``references`` (sources, n, channels)."""

    rate_hz: int
    mixture: Float32
    references: Float32


def items(folder: Path) -> list[Item]:
    """Find the mixtures of a folder.

    Parameters
    ----------
    folder
        Contains ``NNN_mixture.flac`` and ``NNN_<source>.flac``, or one folder per mixture with
        ``mixture.flac`` and ``<source>.flac``, in any format of `SUFFIXES`.

    Raises
    ------
    EvaluationError
        There is no mixture, or no source beside any mixture.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder")
    paths = sorted(p for p in [*folder.glob("*"), *folder.glob("*/*")] if p.suffix in SUFFIXES)
    found: dict[str, dict[str, Path]] = {}
    for path in paths:
        # In 000_speaker1, the part before the last underscore names the mixture.
        name, _, part = path.stem.rpartition("_")
        if path.parent != folder:
            name, part = path.parent.name, path.stem
        if name:
            found.setdefault(name, {})[part] = path
    result = [
        Item(name, parts.pop("mixture"), parts)
        for name, parts in found.items()
        if "mixture" in parts
    ]
    if not result:
        raise EvaluationError(
            f"{folder} has neither NNN_mixture.flac with NNN_<source>.flac nor folders with "
            "mixture.flac and <source>.flac"
        )
    if not any(item.stems for item in result):
        raise EvaluationError(f"{folder} has mixtures, but none of their sources")
    return result


def stems_in(found: list[Item]) -> tuple[str, ...]:
    """Return the names of all sources beside the mixtures."""
    return tuple(sorted({name for item in found for name in item.stems}))


def matched(stems: tuple[str, ...], sources: tuple[str, ...], model: str, folder: Path) -> None:
    """Check that a model has the folder's sources; it may have one more, the remainder."""
    missing = set(sources) - set(stems)
    if set(stems) - set(sources) or len(missing) > 1:
        raise EvaluationError(
            f"{model} separates {', '.join(sources)}, but {folder} has {', '.join(stems)}"
        )


def read(item: Item, stems: tuple[str, ...], sources: tuple[str, ...]) -> Example:
    """Read a mixture and its sources, in the order of ``sources``.

    Parameters
    ----------
    item
        Mixture and files to read.
    stems
        Sources that must have a file.
    sources
        Sources to return: ``stems`` in any order and at most one more, the mixture minus the
        others.

    Raises
    ------
    AudioFileError
        A file is missing, unreadable, or differs from the mixture in length, rate or channels.
    """
    mixture, rate_hz = read_all(item.mixture)
    sounds: dict[str, Float32] = {}
    for name in stems:
        if name not in item.stems:
            raise AudioFileError(f"{item.mixture} has no {name} beside it")
        path = item.stems[name]
        sound, rate = read_all(path)
        if (rate, sound.shape) != (rate_hz, mixture.shape):
            raise AudioFileError(
                f"{path} has {_size(sound, rate)}, its mixture has {_size(mixture, rate_hz)}"
            )
        sounds[name] = sound
    rest = mixture - np.sum(list(sounds.values()), axis=0)
    return Example(rate_hz, mixture, np.stack([sounds.get(name, rest) for name in sources]))


def _size(sound: Float32, rate_hz: int) -> str:
    return f"{len(sound)} samples of {sound.shape[1]} channels at {rate_hz} Hz"
