"""Mixtures made on the fly from a table of audio files.

A corpus is a folder with a ``MANIFEST.csv`` whose rows hold at least ``path`` (relative to the
folder), ``split`` and ``speaker_or_category``; speech lies under ``speech*/``, noise under
``noise*/``, room responses under ``rir*/``. Batch ``i`` of a mixer is a function of the seed and
``i`` alone, so a resumed run sees the data a run in one piece would have seen.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int16 = NDArray[np.int16]

VOICES_HIDE_IN = (
    "amb_cafe",
    "amb_crowd",
    "berlin_street",
    "berlin_crowd",
    "sc_miaowing",
    "esc10_baby_cry",
)
"""Noise categories with audible speech: no training target for "noise"."""


class CorpusError(ValueError):
    """A data folder that cannot be trained on; the message names it and the reason."""


@dataclass
class Corpus:
    """Decoded audio of one split, in memory as 16-bit samples.

    Attributes
    ----------
    sample_rate
        Of every clip, in Hz.
    speech, noise
        Clips by speaker and by category.
    responses
        Room impulse responses, peak 1.
    unreadable
        Files that could not be decoded; they are skipped.
    """

    sample_rate: int
    speech: dict[str, list[Int16]] = field(default_factory=lambda: defaultdict(list))
    noise: dict[str, list[Int16]] = field(default_factory=lambda: defaultdict(list))
    responses: list[Float32] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, split: str, sample_rate: int) -> Corpus:
        """Decode the rows of ``split``; files of another rate are skipped like unreadable ones.

        Raises
        ------
        CorpusError
            No ``MANIFEST.csv``, a table without the columns, or nothing left to mix.
        """
        table = folder / "MANIFEST.csv"
        if not table.is_file():
            raise CorpusError(f"{folder} is no corpus: it has no MANIFEST.csv")
        corpus = cls(sample_rate)
        with table.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"path", "split", "speaker_or_category"} - set(rows.fieldnames or ())
            if missing:
                raise CorpusError(f"{table} has no column {', '.join(sorted(missing))}")
            for row in rows:
                if row["split"] == split and row["path"].startswith(("speech", "noise", "rir")):
                    corpus._add(folder, row["path"], row["speaker_or_category"])
        if corpus.unreadable:
            print(f"skipped {len(corpus.unreadable)} unreadable files, the first:", file=sys.stderr)
            print("  " + "\n  ".join(corpus.unreadable[:5]), file=sys.stderr)
        if not corpus.speech or not corpus.noise:
            raise CorpusError(f"{folder} holds no usable speech or no noise for split {split!r}")
        return corpus

    def _add(self, folder: Path, path: str, key: str) -> None:
        try:
            audio, rate = soundfile.read(folder / path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            self.unreadable.append(f"{path}: {error}")
            return
        mono = audio.mean(axis=1)
        peak = float(np.max(np.abs(mono), initial=0.0))
        if rate != self.sample_rate or not np.isfinite(peak) or peak < 1e-4:
            self.unreadable.append(f"{path}: {rate} Hz, peak {peak:.1e}")
            return
        if path.startswith("rir"):
            start = max(int(np.argmax(np.abs(mono))) - 16, 0)
            self.responses.append((mono / peak)[start:])
            return
        clip = np.round(mono * (32767 / max(peak, 1.0))).astype(np.int16)
        if path.startswith("speech"):
            self.speech[key].append(clip)
        elif key not in VOICES_HIDE_IN:
            self.noise[key].append(clip)


@dataclass
class Mixer:
    """Speech in noise at random levels, rooms and colours.

    Attributes
    ----------
    corpus
        Where the clips come from.
    seed
        With the batch number, the only source of chance.
    batch_size, samples
        Of one batch.
    snr_db
        Range of the speech-to-noise ratio, uniform.
    level_db
        Range of the mixture's RMS level in dB re full scale, uniform.
    """

    corpus: Corpus
    seed: int
    batch_size: int
    samples: int
    snr_db: tuple[float, float] = (-6.0, 16.0)
    level_db: tuple[float, float] = (-45.0, -15.0)

    def __post_init__(self) -> None:
        """Fix the order of speakers and categories."""
        self._speakers = sorted(self.corpus.speech)
        seconds = [sum(len(c) for c in self.corpus.speech[s]) for s in self._speakers]
        weights = np.sqrt(np.array(seconds, dtype=np.float64))
        self._speaker_weights = weights / weights.sum()
        self._categories = sorted(self.corpus.noise)

    def __len__(self) -> int:
        """Batches without end, for the loader's sake."""
        return 1 << 31

    def __getitem__(self, index: int) -> tuple[Float32, Float32]:
        """Batch ``index``: mixtures (batch, samples, 1) and sources (batch, samples, 2, 1)."""
        rng = np.random.default_rng((self.seed, index))
        sources = np.stack([self.example(rng) for _ in range(self.batch_size)])
        return sources.sum(axis=2), sources

    def example(self, rng: Generator) -> Float32:
        """One pair of sources (samples, 2, 1): speech, noise."""
        speech = self._speech(rng)
        noise = self._noise(rng)
        gain = 10 ** (-rng.uniform(*self.snr_db) / 20) * _active_rms(speech) / (_rms(noise) + 1e-6)
        noise *= min(gain, 1e3)
        kind = rng.random()
        if kind < 0.03:
            speech[:] = 0.0
        elif kind < 0.05:
            noise *= 0.001
        pair = np.stack([speech, noise], axis=1)
        mixture = pair.sum(axis=1)
        gain = 10 ** (rng.uniform(*self.level_db) / 20) / (_rms(mixture) + 1e-6)
        gain = min(gain, 0.99 / (float(np.max(np.abs(mixture))) + 1e-6))
        return (pair * gain)[:, :, None].astype(np.float32)

    def _speech(self, rng: Generator) -> Float32:
        rate = self.corpus.sample_rate
        speaker = self._speakers[rng.choice(len(self._speakers), p=self._speaker_weights)]
        clips = self.corpus.speech[speaker]
        out = np.zeros(self.samples, np.float32)
        at = -int(rng.uniform(0, 2.0) * rate)  # the segment starts anywhere in a sentence
        while at < self.samples:
            clip = clips[rng.integers(len(clips))]
            start, stop = max(at, 0), min(at + len(clip), self.samples)
            if stop > start:
                out[start:stop] = clip[start - at : stop - at]
            at += len(clip) + int(rng.exponential(0.25) * rate)
        out /= 32768
        if rng.random() < 0.25:
            out = _convolve(out, self._response(rng))
        return _coloured(out, rng, 4.0)

    def _noise(self, rng: Generator) -> Float32:
        out = np.zeros(self.samples, np.float32)
        for _ in range(1 + (rng.random() < 0.25)):
            if rng.random() < 0.15:
                part = _synthetic_noise(rng, self.samples, self.corpus.sample_rate)
            else:
                category = self._categories[rng.integers(len(self._categories))]
                clips = self.corpus.noise[category]
                part = _fill(clips[rng.integers(len(clips))], self.samples, rng)
            out += part * (10 ** (rng.uniform(-6, 6) / 20) / (_rms(part) + 1e-6))
        if rng.random() < 0.1:  # the noise comes or goes
            ramp = np.linspace(rng.uniform(-20, 6), rng.uniform(-20, 6), self.samples)
            out *= (10 ** (ramp / 20)).astype(np.float32)
        return _coloured(out, rng, 6.0)

    def _response(self, rng: Generator) -> Float32:
        rate = self.corpus.sample_rate
        if self.corpus.responses and rng.random() < 0.3:
            return self.corpus.responses[rng.integers(len(self.corpus.responses))]
        # A small room: direct sound and an exponentially decaying diffuse tail.
        decay_s = rng.uniform(0.1, 0.6)
        t = np.arange(int(decay_s * rate)) / rate
        tail = rng.standard_normal(len(t)) * np.exp(-6.9 * t / decay_s)
        tail[: int(rng.uniform(0.001, 0.01) * rate)] = 0.0
        tail *= 10 ** (-rng.uniform(0, 12) / 20) / (np.sqrt(np.sum(tail**2)) + 1e-6)
        tail[0] = 1.0
        return tail.astype(np.float32)


def _rms(x: Float32) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def _active_rms(x: Float32) -> float:
    """Level of the speech itself, pauses left out (20 ms blocks above -35 dB re the loudest)."""
    power = np.square(x[: len(x) // 320 * 320]).reshape(-1, 320).mean(axis=1)
    loud = power[power > 10**-3.5 * power.max(initial=0.0)]
    return float(np.sqrt(loud.mean())) if len(loud) else 1e-3


def _fill(clip: Int16, samples: int, rng: Generator) -> Float32:
    """Cut ``samples`` from a random place of ``clip``, which starts over where it is too short."""
    start = rng.integers(len(clip))
    if len(clip) >= samples:
        start = rng.integers(len(clip) - samples + 1)
    out = np.resize(np.roll(clip, -start) if len(clip) < samples else clip[start:], samples)
    return np.divide(out, 32768, dtype=np.float32)


def _convolve(x: Float32, response: Float32) -> Float32:
    n = 1 << (len(x) + len(response) - 1).bit_length()
    y = np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(response, n), n)[: len(x)]
    return y.astype(np.float32)


def _coloured(x: Float32, rng: Generator, range_db: float) -> Float32:
    """Random smooth equaliser: gains within ``range_db`` at seven bands, linear between."""
    spectrum = np.fft.rfft(x)
    knots = np.array([0.0, 0.01, 0.03, 0.08, 0.2, 0.45, 1.0])
    gains_db = rng.uniform(-range_db, range_db, len(knots))
    gain = 10 ** (np.interp(np.linspace(0, 1, len(spectrum)), knots, gains_db) / 20)
    return np.fft.irfft(spectrum * gain, len(x)).astype(np.float32)


def _synthetic_noise(rng: Generator, samples: int, rate: int) -> Float32:
    """Fans and hiss: noise of a random spectral slope, at times with a hum."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.linspace(0, rate / 2, len(spectrum)), 40.0)
    spectrum *= (frequency / 1000) ** rng.uniform(-1.2, 0.3)
    x = np.fft.irfft(spectrum, samples)
    x /= np.sqrt(np.mean(x**2)) + 1e-9
    if rng.random() < 0.4:
        t = np.arange(samples) / rate
        base = rng.uniform(45, 220)
        for harmonic in range(1, rng.integers(2, 9)):
            phase = rng.uniform(0, 2 * np.pi)
            x += rng.uniform(0, 1.5) / harmonic * np.sin(2 * np.pi * base * harmonic * t + phase)
    return x.astype(np.float32)
