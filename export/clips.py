"""Sources, table and processing (cut, level, join) of additional training audio."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Audio = NDArray[np.float32]

RATE = 16000
FRAME = RATE // 50
LEVEL = -26.0
"""RMS of the active frames in dB re full scale."""
PEAK = 0.95
CLEAN, CLEAN_SHORT = 35.0, 20.0
"""Smallest difference in dB between the active level of a target and its quietest 60 ms; the second
value is for clips under 2 s, which often have no pause."""
PAUSE, PAUSE_KEPT = 0.5, 0.3
"""Longer pauses, in seconds, are shortened to the second."""
GAP = 0.25
"""Silence between joined clips, in seconds."""
JOINED = 10.0
"""Length, in seconds, at which a file of joined clips is full."""
NOISE_SECONDS = 20.0
COLUMNS = ("path", "split", "seconds", "speaker_or_category", "licence", "source", "original")
PARTS = {"speech": "speech16k", "noise": "noise16k", "music": "noise16k", "songs": "music44k"}
SEED = 20


@dataclass(frozen=True)
class Source:
    """A source of audio and its licence.

    Attributes
    ----------
    folder
        Name in the folder of sources.
    key
        Speaker or category of noise.
    pattern
        Glob pattern of its files.
    licence
        SPDX identifier.
    credit
        Line for the attributions.
    without
        Names or parts of paths of files to leave out.
    """

    folder: str
    key: str
    pattern: str
    licence: str
    credit: str
    without: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in the table: ``owner/name`` or the package."""
        return self.folder.replace("+", "/", 1)

    def files(self, sources: Path) -> list[Path]:
        """Return the files; report if there are none."""
        found = [
            path
            for path in sorted((sources / self.folder).glob(self.pattern))
            if path.stem not in self.without and path.parent.name not in self.without
        ]
        if not found:
            print(f"left out: {self.folder}/{self.pattern} is not there", file=sys.stderr)
        return found


@dataclass
class Table:
    """Rows of the table and credits of the written files.

    Attributes
    ----------
    out
        Folder of the data.
    rows
        Rows by part.
    credits
        Credits by part, without duplicates.
    """

    out: Path
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    credits: dict[str, list[str]] = field(default_factory=dict)

    def add(
        self, part: str, audio: Audio, source: Source, original: str, split: str = "train"
    ) -> None:
        """Write one file and add its row."""
        rows = self.rows.setdefault(part, [])
        same = sum(row["speaker_or_category"] == source.key for row in rows)
        name = f"{'music' if part == 'music' else source.folder.split('+')[0]}_{same:04d}.flac"
        path = Path(PARTS[part], split, source.key, name)
        (self.out / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(self.out / path, audio, RATE, subtype="PCM_16")
        seconds = f"{len(audio) / RATE:.2f}"
        values = (path.as_posix(), split, seconds, source.key, source.licence, source.name)
        rows.append(dict(zip(COLUMNS, (*values, original), strict=True)))
        self.credit(part, source.credit)

    def add_song(
        self, name: str, stems: dict[str, Audio], sources: Iterable[Source], split: str
    ) -> None:
        """Write the stems of a song at 44.1 kHz and add their rows."""
        for stem, audio in stems.items():
            path = Path(PARTS["songs"], split, "songs", name, f"{stem}.flac")
            (self.out / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(self.out / path, audio, 44100, subtype="PCM_16")
            licences = " AND ".join(sorted({source.licence for source in sources}))
            values = (path.as_posix(), split, f"{len(audio) / 44100:.2f}", stem, licences)
            row = (*values, "rendered", "by export.songs")
            self.rows.setdefault("songs", []).append(dict(zip(COLUMNS, row, strict=True)))
        for source in sources:
            self.credit("songs", source.credit)

    def clear(self, part: str) -> None:
        """Remove the files of a part from an earlier call."""
        path = self.out / f"{part}.csv"
        for row in read_table(path) if path.is_file() else ():
            (self.out / row["path"]).unlink(missing_ok=True)

    def credit(self, part: str, line: str) -> None:
        """Add a credit."""
        lines = self.credits.setdefault(part, [])
        if line not in lines:
            lines.append(line)

    def save(self) -> None:
        """Write the tables of these parts; tables of other parts are kept."""
        for part, rows in self.rows.items():
            write_table(self.out / f"{part}.csv", rows)
            text = "\n".join(f"- {line}" for line in self.credits[part])
            (self.out / f"{part}.txt").write_text(text + "\n", "utf-8")
        tables = [self.out / f"{part}.csv" for part in PARTS]
        rows = [row for path in tables if path.is_file() for row in read_table(path)]
        write_table(self.out / "MANIFEST.csv", rows)
        lists = [path.with_suffix(".txt") for path in tables if path.is_file()]
        text = "".join(path.read_text("utf-8") for path in lists)
        head = "All audio was modified: resampled to mono, trimmed, joined, levelled.\n\n"
        (self.out / "ATTRIBUTIONS.txt").write_text(head + text, "utf-8")


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write rows as a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def decode(path: Path) -> tuple[Audio, int]:
    """Decode a file to mono, at its own rate."""
    if path.suffix == ".g722":
        command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", str(path), "-f", "f32le", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        return np.frombuffer(raw, np.float32).copy(), 16000
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return audio.mean(axis=1), rate


def clipped(audio: Audio) -> bool:
    """Return whether peaks are flat over four samples or more."""
    peak = np.max(np.abs(audio), initial=0.0)
    if peak < 0.9:
        return False
    flat = np.abs(audio) > 0.995 * peak
    return bool(np.any(flat[:-3] & flat[1:-2] & flat[2:-1] & flat[3:]))


def levels(audio: Audio) -> NDArray[np.float64]:
    """Return the level of each frame of 20 ms, in dB re full scale."""
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return np.asarray(10 * np.log10(power + 1e-12))


def active_level(frames: NDArray[np.float64], below: float = 30.0) -> float:
    """Return the level of the frames within ``below`` dB of the loudest ones."""
    active = frames[frames > np.percentile(frames, 95) - below]
    return float(10 * np.log10(np.mean(10 ** (active / 10))))


def prepare(audio: Audio, rate: int) -> Audio:
    """Resample to `RATE` and remove the mean."""
    audio = audio - np.mean(audio)
    return audio if rate == RATE else np.asarray(soxr.resample(audio, rate, RATE), np.float32)


def runs(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def faded(audio: Audio, seconds: float = 0.005) -> Audio:
    """Fade in and out, to avoid clicks at cuts."""
    n = min(round(seconds * RATE), len(audio) // 2)
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    audio = audio.copy()
    audio[:n] *= ramp
    audio[len(audio) - n :] *= ramp[::-1]
    return audio


def trimmed(audio: Audio, below: float = 35.0, pause: float = PAUSE) -> list[Audio]:
    """Remove silence at both ends and shorten long pauses.

    Parameters
    ----------
    audio
        Sound at `RATE`.
    below
        Frames this many dB below the active level are silence.
    pause
        Longer pauses, in seconds, are shortened to `PAUSE_KEPT`.

    Returns
    -------
    list
        The pieces between the cuts, faded.
    """
    frames = levels(audio)
    sound = frames > active_level(frames) - below
    kept = max(round(min(pause, PAUSE_KEPT) / 2 * 50), 1)
    wide = np.convolve(sound, np.ones(2 * kept + 1), "same") > 0.5
    gaps = [gap for gap in runs(~sound) if (gap[1] - gap[0]) / 50 <= pause]
    for begin, end in gaps:
        wide[begin:end] |= begin > 0 and end < len(sound)
    return [faded(audio[begin * FRAME : end * FRAME]) for begin, end in runs(wide)]


def levelled(audio: Audio) -> Audio:
    """Scale the active level to `LEVEL`, or lower to keep the peak within `PEAK`."""
    gain = 10 ** ((LEVEL - active_level(levels(audio))) / 20)
    return np.asarray(audio * min(gain, PEAK / np.max(np.abs(audio))), np.float32)


def joined(pieces: Iterable[tuple[Audio, str]]) -> Iterator[tuple[Audio, str]]:
    """Join short clips to files of about `JOINED` seconds, with `GAP` between."""
    silence = np.zeros(round(GAP * RATE), np.float32)
    audio: list[Audio] = []
    names: list[str] = []

    def flush() -> tuple[Audio, str]:
        more = f" and {len(names) - 1} more joined" if len(names) > 1 else ""
        whole = np.concatenate(audio[:-1]), names[0] + more
        audio.clear()
        names.clear()
        return whole

    for piece, name in pieces:
        if audio and sum(map(len, audio)) + len(piece) > 1.2 * JOINED * RATE:
            yield flush()
        audio += [piece, silence]
        names.append(name)
        if sum(map(len, audio)) > 0.8 * JOINED * RATE:
            yield flush()
    if sum(map(len, audio)) > RATE:
        yield flush()
