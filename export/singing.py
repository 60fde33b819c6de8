"""Sing with recordings of speech: the pitch of a melody, by the vocoder WORLD.

M. Morise, F. Yokomori, K. Ozawa, "WORLD: A Vocoder-Based High-Quality Speech Synthesis System for
Real-Time Applications", IEICE 2016.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyworld
import soundfile
import soxr

from export.clips import Audio

RATE = 44100
SECONDS = 30.0
"""Length of a song."""
FRAME_MS = 5.0
"""Period of the vocoder."""

Notes = list[tuple[float, float, int, int]]
"""Onset s, length s, MIDI pitch and velocity."""


@dataclass
class Speaker:
    """Sings with recordings of speech."""

    paths: list[Path]

    def __call__(self, notes: Notes, chance: random.Random) -> Audio:
        """Sing; every song has formants, a range and a tempo of syllables of its own."""
        count = round(SECONDS * 1000 / FRAME_MS)
        keys = _keys(notes, count)
        formants, stretch = chance.uniform(0.85, 1.2), chance.uniform(1.0, 1.9)
        middle = float(np.nanmedian(keys)) if np.any(np.isfinite(keys)) else 60.0
        keys += 12 * round((chance.uniform(48, 66) - middle) / 12)
        vibrato, rate = chance.uniform(0.0, 0.4), chance.uniform(5.0, 6.5)
        seconds = np.arange(count) * FRAME_MS / 1000
        keys = keys + vibrato * np.sin(2 * np.pi * rate * seconds)
        f0, spectra, noises = _speech(self.paths, count, stretch, chance)
        f0 = np.where((f0 > 0) & np.isfinite(keys), 440 * 2 ** ((keys - 69) / 12), 0.0)
        bins = np.clip(np.arange(spectra.shape[1]) / formants, 0, spectra.shape[1] - 1).astype(int)
        sung = pyworld.synthesize(
            f0, np.ascontiguousarray(spectra[:, bins]), noises, RATE, FRAME_MS
        )[: round(SECONDS * RATE)]
        open_ = np.interp(
            np.arange(len(sung)) / RATE, seconds, _smooth(np.isfinite(keys).astype(float), 9)
        )
        return np.pad(sung * open_, (0, round(SECONDS * RATE) - len(sung))).astype(np.float32)


def _keys(notes: Notes, count: int) -> np.ndarray:
    """Return the pitch of each of the vocoder's frames, gliding; NaN in rests of 0.2 s and more."""
    keys = np.full(count, np.nan)
    ends = [*(at for at, *_ in notes[1:]), SECONDS]
    for (at, length, key, _), following in zip(sorted(notes), ends, strict=True):
        end = following if following - at - length < 0.2 else at + length
        keys[round(at * 1000 / FRAME_MS) : round(end * 1000 / FRAME_MS)] = key
    sung = np.isfinite(keys)
    if sung.any():
        filled = np.interp(np.arange(count), np.flatnonzero(sung), keys[sung])
        keys = np.where(sung, _smooth(filled, 13), np.nan)
    return keys


def _speech(
    paths: list[Path], count: int, stretch: float, chance: random.Random
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Analyse sentences until there are ``count`` frames: pitch, envelopes, aperiodicity."""
    parts, total = [], 0
    while total < count:
        x = decoded(chance.choice(paths)).astype(np.float64)
        f0, times = pyworld.dio(x, RATE, frame_period=FRAME_MS)
        f0 = pyworld.stonemask(x, f0, times, RATE)
        frames = (np.arange(int(len(f0) * stretch)) / stretch).astype(int)
        spectra, noises = pyworld.cheaptrick(x, f0, times, RATE), pyworld.d4c(x, f0, times, RATE)
        parts.append((f0[frames], spectra[frames], noises[frames]))
        total += len(frames)
    f0, spectra, noises = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
    return f0, spectra, noises


def _smooth(x: np.ndarray, width: int) -> np.ndarray:
    window = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(x, width // 2, "edge"), window / window.sum(), "valid")


def decoded(path: Path) -> Audio:
    """Decode a file to mono at `RATE`."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)
    return mono if rate == RATE else np.asarray(soxr.resample(mono, rate, RATE), np.float32)
