"""Folders of mixtures and their sources, in the two layouts that are common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtsep.errors import AudioFileError, EvaluationError
from rtsep.files.readers import read_all
from rtsep.spec import Float32

SUFFIXES = (".flac", ".wav", ".ogg", ".aiff", ".mp3")
REST = "noise"
"""What the rest of a mixture is called of which only one source is there."""


@dataclass(frozen=True)
class Item:
    """A mixture and the files of its sources, by their names."""

    name: str
    mixture: Path
    stems: dict[str, Path]


@dataclass(frozen=True)
class Example:
    """An item's sound: ``mixture`` (n, channels), ``references`` (sources, n, channels)."""

    rate_hz: int
    mixture: Float32
    references: Float32


def items(folder: Path) -> list[Item]:
    """Find the mixtures of a folder.

    Parameters
    ----------
    folder
        Holds ``NNN_mixture.flac`` and ``NNN_<source>.flac``, or one folder per mixture with
        ``mixture.flac`` and ``<source>.flac``; any format of `SUFFIXES`.

    Raises
    ------
    EvaluationError
        There are none, or no source lies beside any.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder")
    paths = sorted(p for p in [*folder.glob("*"), *folder.glob("*/*")] if p.suffix in SUFFIXES)
    found: dict[str, dict[str, Path]] = {}
    for path in paths:
        # Names like 000_speaker1: what comes before the last underscore belongs to the mixture.
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
            f"{folder} holds neither NNN_mixture.flac with NNN_<source>.flac nor folders with "
            "mixture.flac and <source>.flac"
        )
    if not any(item.stems for item in result):
        raise EvaluationError(f"{folder} holds mixtures, but none of their sources")
    return result


def stems_in(found: list[Item]) -> tuple[str, ...]:
    """Names of all sources that lie beside the mixtures."""
    return tuple(sorted({name for item in found for name in item.stems}))


def matched(stems: tuple[str, ...], sources: tuple[str, ...], model: str, folder: Path) -> None:
    """Refuse a model whose sources are not the folder's; one may be missing, it is the rest."""
    missing = set(sources) - set(stems)
    if set(stems) - set(sources) or len(missing) > 1:
        raise EvaluationError(
            f"{model} separates {', '.join(sources)}, but {folder} holds {', '.join(stems)}"
        )


def read(item: Item, stems: tuple[str, ...], sources: tuple[str, ...]) -> Example:
    """Read a mixture and its sources, in the order of ``sources``.

    Parameters
    ----------
    item
        What to read.
    stems
        Which files there must be.
    sources
        Which sources are wanted: ``stems`` in any order, and one more at most: the mixture without
        the others.

    Raises
    ------
    AudioFileError
        A file is missing, can't be read or does not fit the mixture; it is named.
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
