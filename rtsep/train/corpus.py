"""A corpus: decoded audio in memory, loaded from a table of files."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from rtsep.errors import CorpusError
from rtsep.spec import Float32

Int16 = NDArray[np.int16]

STEMS = ("vocals", "drums", "bass", "other")
"""Roles of the stems of a song; the key is the song, and all its stems start together."""
SILENT = 1e-4
"""Files with a peak below this, re full scale, count as silent."""
LEAD = 16
"""Samples of a room response that are kept before its peak."""


@dataclass(frozen=True)
class Row:
    """One file of a corpus.

    Attributes
    ----------
    path
        Path of the file.
    split
        ``train``, ``val`` or ``test``.
    role
        ``speech``, ``noise``, ``room`` (an impulse response), one of `STEMS`, or a stem's name and
        ``" piece"``: a note, stroke or loop to compose that stem from.
    key
        Speaker, category of noise, song, or kind of piece.
    labelled
        Whether the speaker's identity is certain. Two unlabelled speakers may be the same person.
    track
        Index of the audio track in a video container.
    minus
        File to subtract sample by sample: noise is the noisy file minus the clean one.
    """

    path: Path
    split: str
    role: str
    key: str
    labelled: bool = True
    track: int = 0
    minus: Path | None = None


@dataclass
class Corpus:
    """Decoded audio of one split, mono, as 16-bit samples.

    Attributes
    ----------
    sample_rate
        Rate of all clips in Hz; files of another rate are resampled.
    clips
        Clips by role and key.
    responses
        Room impulse responses with peak 1.
    unlabelled
        Speakers whose identity is uncertain, see `Row.labelled`.
    skipped
        Files that could not be used, each with the reason.
    """

    sample_rate: int
    clips: dict[str, dict[str, list[Int16]]] = field(default_factory=dict)
    responses: list[Float32] = field(default_factory=list)
    unlabelled: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, rows: Iterable[Row], sample_rate: int) -> Corpus:
        """Decode all readable files; report the number and the first of the others on stderr."""
        corpus = cls(sample_rate)
        for row in rows:
            try:
                corpus._add(row)
            except (soundfile.LibsndfileError, OSError, CorpusError) as error:
                corpus.skipped.append(f"{row.path}: {error}")
        if corpus.skipped:
            print(f"skipped {len(corpus.skipped)} unusable files, the first:", file=sys.stderr)
            print("  " + "\n  ".join(corpus.skipped[:5]), file=sys.stderr)
        return corpus

    def pool(self, role: str) -> dict[str, list[Int16]]:
        """Return the clips of a role by key; empty if there are none."""
        return self.clips.get(role, {})

    def _add(self, row: Row) -> None:
        mono, rate = _mono(row.path, row.track)
        if row.minus is not None:
            less, other_rate = _mono(row.minus)
            if (len(less), other_rate) != (len(mono), rate):
                raise CorpusError(f"its length or rate differs from {row.minus.name}")
            mono = mono - less
        peak = float(np.max(np.abs(mono), initial=0.0))
        if not np.isfinite(peak):
            raise CorpusError("contains NaN or Inf samples")
        if peak < SILENT:
            if row.role in STEMS:  # this instrument does not play in this song
                return
            raise CorpusError(f"silent, peak {peak:.1e}")
        if rate != self.sample_rate:
            mono = soxr.resample(mono, rate, self.sample_rate)
        if row.role == "room":
            self.responses.append(direct(mono))
            return
        if len(mono) < 2:
            raise CorpusError("too short")
        scale = 32767 / max(float(np.max(np.abs(mono))), 1.0)
        clip = np.round(mono * scale).astype(np.int16)
        self.clips.setdefault(row.role, {}).setdefault(row.key, []).append(clip)
        if not row.labelled:
            self.unlabelled.add(row.key)


def direct(response: Float32) -> Float32:
    """Cut a room response to start at the direct sound, and scale it to peak 1."""
    loudest = int(np.argmax(np.abs(response)))
    trimmed = response[max(loudest - LEAD, 0) :] / np.abs(response[loudest])
    return np.asarray(trimmed, np.float32)


def _mono(path: Path, track: int = 0) -> tuple[Float32, int]:
    if path.suffix == ".mp4":
        audio, rate = _track(path, track)
    else:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return audio.mean(axis=1), rate


def _track(path: Path, track: int) -> tuple[Float32, int]:
    """Decode one track of a container that libsndfile cannot read; (samples, channels)."""
    try:
        import av
    except ImportError:
        raise CorpusError("reading .mp4 needs the package av: pip install av") from None
    try:
        with av.open(path) as container:
            if track >= len(container.streams.audio):
                raise CorpusError(f"has no audio track {track}")
            stream = container.streams.audio[track]
            planar = av.AudioResampler("fltp")
            blocks = [b for frame in container.decode(stream) for b in planar.resample(frame)]
            if not blocks:
                raise CorpusError(f"has no audio in track {track}")
            return np.concatenate([b.to_ndarray() for b in blocks], axis=1).T, stream.rate
    except av.FFmpegError as error:
        raise CorpusError(str(error)) from None
