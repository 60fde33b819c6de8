"""Recognise the layout of a data set and list its files.

:func:`table` returns the rows of a folder. If a data set has no validation split, one speaker or
song in eight of its training split is held out for validation, so none is in both.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rtsep.errors import CorpusError
from rtsep.train.corpus import STEMS, Row

HELD_OUT = 8
"""One key in this many is held out if a data set has no validation split."""

VOICES_HIDE_IN = (
    "amb_cafe",
    "amb_crowd",
    "berlin_street",
    "berlin_crowd",
    "sc_miaowing",
    "esc10_baby_cry",
)
"""Noise categories with audible speech; they are not used as noise."""

SPLITS = {
    **dict.fromkeys(("train", "tr", "Dev", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "dev", "cv"), "val"),
    **dict.fromkeys(("test", "tt", "Test", "testset"), "test"),
}
"""Split by the name that a data set gives it."""

NATIVE_STEMS = ("drums", "bass", "other", "vocals")
"""Tracks of a ``.stem.mp4`` in order, after the first one, which is the mixture."""


def table(folder: Path) -> list[Row]:
    """List the files of a data set.

    Raises
    ------
    CorpusError
        The folder does not exist, its layout is unknown, or its manifest is invalid.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: there is no such folder")
    for read in LAYOUTS.values():
        rows = list(read(folder))
        if rows:
            return [*_with_validation(rows)]
    raise CorpusError(f"{folder} has no known layout; known are: {'; '.join(LAYOUTS)}")


def _manifest(folder: Path) -> Iterator[Row]:
    path = folder / "MANIFEST.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = {"path", "split", "speaker_or_category"} - set(rows.fieldnames or ())
        if missing:
            raise CorpusError(f"{path} has no column {', '.join(sorted(missing))}")
        for row in rows:
            role, key = row.get("role"), row["speaker_or_category"]
            if not role:
                role, key = _role(Path(row["path"]), key)
            if role and not (role == "noise" and key in VOICES_HIDE_IN):
                labelled = not key.startswith(("pv", "pvw_"))
                yield Row(folder / row["path"], row["split"], role, key, labelled)


def _role(path: Path, key: str) -> tuple[str, str]:
    """Return role and key of a file by its folders; an empty role if it is not used."""
    for prefix, role in (("speech", "speech"), ("noise", "noise"), ("rir", "room")):
        if path.parts[0].startswith(prefix):
            return role, key
    if path.parts[0].startswith("music") and len(path.parts) > 2:
        if "songs" in path.parts:
            return (path.stem, path.parent.name) if path.stem in STEMS else ("", key)
        parts = [part for part in path.parts[1:-1] if part in STEMS]
        return (f"{parts[0]} piece", key) if parts else ("", key)
    return "", key


def _musdb(folder: Path) -> Iterator[Row]:
    for split in ("train", "valid", "test"):
        yield from _songs((folder / split).glob("*/"), SPLITS[split])
        for path in sorted((folder / split).glob("*.stem.mp4")):
            for track, stem in enumerate(NATIVE_STEMS, start=1):
                yield Row(path, SPLITS[split], stem, path.name[:-9], track=track)


def _dsd(folder: Path) -> Iterator[Row]:
    for split in ("Dev", "Test"):
        yield from _songs((folder / "Sources" / split).glob("*/"), SPLITS[split])


def _songs(folders: Iterable[Path], split: str) -> Iterator[Row]:
    for song in sorted(folders):
        for stem in STEMS:
            for path in sorted(song.glob(f"{stem}.*")):
                yield Row(path, split, stem, song.name)


def _mixed(folder: Path) -> Iterator[Row]:
    """LibriMix and WSJ0-mix as generated: ``.../train-100/s1/A_B.wav`` beside ``s2/A_B.wav``."""
    seen: set[tuple[str, str]] = set()
    for first in sorted(folder.rglob("s1")):
        split = SPLITS.get(first.parent.name.split("-")[0])
        if split is None or not (first.parent / "s2").is_dir():
            continue
        for source in sorted(first.parent.glob("s[123]")):
            for path in sorted(source.glob("*.*")):
                said = _utterance(path.stem, int(source.name[1:]) - 1)
                if said is None or (split, said) in seen:  # the same utterance is in many mixtures
                    continue
                seen.add((split, said))
                speaker = said.split("-")[0] if "-" in said else said[:3]
                yield Row(path, split, "speech", speaker)
        for path in sorted((first.parent / "noise").glob("*.*")):
            yield Row(path, split, "noise", path.stem)


def _utterance(name: str, index: int) -> str | None:
    """Return the utterance of source ``index`` of a mixture, from the mixture's name.

    LibriMix joins utterances, ``103-1240-0003_1235-135887-0017``, WSJ0-mix utterances and levels
    in dB, ``011a0101_0.4_20ga010m_-0.4``.
    """
    parts = name.split("_")
    said = parts if "-" in parts[0] else parts[::2]
    return said[index] if index < len(said) else None


def _lists(folder: Path) -> Iterator[Row]:
    """Lists of mixtures: LibriMix's CSV with ``source_1_path``, WSJ0-mix's ``mix_2_spk_tr.txt``."""
    seen: set[Path] = set()
    for path in sorted((*folder.rglob("*.csv"), *folder.rglob("mix_*_spk_*.txt"))):
        words = path.stem.replace("-", "_").split("_")
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        if split is None:
            continue
        for name in _sources(path):
            source = _found(folder, path, Path(name))
            if source not in seen:
                seen.add(source)
                speaker = source.stem.split("-")[0]
                speaker = speaker if "-" in source.stem else source.parent.name
                yield Row(source, split, "speech", speaker)


def _sources(path: Path) -> Iterator[str]:
    """Yield the files of single speakers that a list names."""
    with path.open(newline="", encoding="utf-8") as file:
        if path.suffix == ".txt":
            for line in file:
                yield from line.split()[::2]
            return
        rows = csv.DictReader(file)
        columns = [name for name in rows.fieldnames or () if name.startswith("source_")]
        columns = [name for name in columns if name.endswith("_path")]
        for row in rows:
            yield from (row[column] for column in columns)


def _found(folder: Path, listed: Path, name: Path) -> Path:
    """Find a listed file below the data folder or a folder between it and the list."""
    for root in (folder, *listed.parents):
        if (root / name).is_file():
            return root / name
        if root == folder.parent:
            break
    return folder / name  # missing: it will be reported as unreadable


def _voicebank(folder: Path) -> Iterator[Row]:
    for clean in sorted(folder.glob("clean_*set*_wav")):
        split = SPLITS.get(clean.name.split("_")[1])
        noisy = folder / clean.name.replace("clean", "noisy", 1)
        if split is None or not noisy.is_dir():
            continue
        for path in sorted(clean.glob("*.*")):
            speaker = path.name.split("_")[0]
            yield Row(path, split, "speech", speaker)
            yield Row(noisy / path.name, split, "noise", speaker, minus=path)


def _with_validation(rows: list[Row]) -> Iterator[Row]:
    """Hold out keys where speech, noise or songs have no validation split."""
    groups = {role: role for role in ("speech", "noise")} | dict.fromkeys(STEMS, "song")
    checked = {groups.get(row.role) for row in rows if row.split == "val"}
    parts: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        if row.split == "train" and row.role in groups and groups[row.role] not in checked:
            keys = parts.setdefault(groups[row.role], {})
            keys.setdefault(_whole(row.key), set()).add(row.role)
    held = {group: _held_out(keys) for group, keys in parts.items()}
    for row in rows:
        out = row.split == "train" and _whole(row.key) in held.get(groups.get(row.role, ""), ())
        yield replace(row, split="val") if out else row


def _held_out(parts: dict[str, set[str]]) -> set[str]:
    """Return one in `HELD_OUT` of the keys with most parts, at least one of several keys."""
    most = max(map(len, parts.values()))
    complete = sorted(key for key, roles in parts.items() if len(roles) == most)
    return set(complete[HELD_OUT - 1 :: HELD_OUT] or complete[-1:]) if len(parts) > 1 else set()


def _whole(key: str) -> str:
    """Return the song of an excerpt: ``SONG`` for ``SONG_a`` and ``SONG_b``."""
    return re.sub("_[a-z]$", "", key)


LAYOUTS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "a MANIFEST.csv with path, split, speaker_or_category": _manifest,
    "MUSDB18 (train/SONG/vocals.wav)": _musdb,
    "DSD100 (Sources/Dev/SONG/vocals.wav)": _dsd,
    "VoiceBank-DEMAND (clean_trainset_28spk_wav/, noisy_trainset_28spk_wav/)": _voicebank,
    "LibriMix or WSJ0-mix (train-100/s1/, s2/)": _mixed,
    "their lists (a CSV with source_1_path, or mix_2_spk_tr.txt)": _lists,
}
"""Reader of each layout, by its description."""
