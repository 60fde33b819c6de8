"""Pairs of speakers and noises from a folder with a manifest, and separation of arrays."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from rtsep.learned.decoder import UPDATES, Penalty, fit
from rtsep.learned.frames import magnitudes, masked
from rtsep.learned.source import Source, alike, stream
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.runtime.pipeline import BLOCK, aligned
from rtsep.spec import Float32

RATE_HZ, WINDOW, HOP = 16000, 512, 128
"""Window of 512 samples and hop of 25 %, as in the papers."""
LEARN_S = 20.0
"""Training sound of each speaker, in seconds."""
PAUSE = 1e-3
"""Peak below which the ends of the mixed sentences are cut."""


@dataclass(frozen=True)
class Pair:
    """Two speakers: training sound, (n,) each, and a sentence of each at 0 dB, (n, 2)."""

    names: tuple[str, str]
    learned_from: tuple[Float32, Float32]
    sentences: Float32

    @property
    def mixture(self) -> Float32:
        """Return the sum of both sentences, (n,)."""
        return np.asarray(self.sentences.sum(axis=1), np.float32)


def rows(data: Path, folder: str, split: str) -> list[dict[str, str]]:
    """Return the rows of the manifest of one folder and split, in order."""
    with (data / "MANIFEST.csv").open(encoding="utf-8") as file:
        return [
            row
            for row in csv.DictReader(file)
            if row["path"].startswith(f"{folder}/") and row["split"] == split
        ]


def sound(path: Path) -> Float32:
    """Read a file; return (n,) samples at `RATE_HZ`."""
    x, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE_HZ and x.ndim == 1, path
    return np.asarray(x)


def pairs(data: Path, count: int, seed: int = 0) -> list[Pair]:
    """Return random pairs of labelled speakers; each speaker is in one pair only."""
    spoken: dict[str, list[str]] = {}
    for row in rows(data, "speech16k", "train"):
        if row["speaker_or_category"].startswith("so"):
            spoken.setdefault(row["speaker_or_category"], []).append(row["path"])
    rng = np.random.default_rng(seed)
    order = [speaker for speaker in sorted(spoken) if len(spoken[speaker]) >= 10]
    rng.shuffle(order)
    found: list[Pair] = []
    material = [_speaker(data, spoken[speaker]) for speaker in order[: 2 * count]]
    for first in range(0, 2 * count, 2):
        learned, sentences = zip(*material[first : first + 2], strict=True)
        n = min(map(len, sentences))
        both = np.stack([s[:n] / np.sqrt(np.mean(s[:n] ** 2)) for s in sentences], axis=1)
        both *= 0.25 / np.abs(both.sum(axis=1)).max()
        found.append(Pair((order[first], order[first + 1]), learned, both.astype(np.float32)))
    return found


def _speaker(data: Path, paths: list[str]) -> tuple[Float32, Float32]:
    """Return the training sound and another sentence of a speaker."""
    longest = sorted(paths, key=lambda path: (data / path).stat().st_size)[-1]
    parts, samples = [], 0
    for path in paths:
        if path != longest and samples < LEARN_S * RATE_HZ:
            parts.append(sound(data / path))
            samples += len(parts[-1])
    sentence = sound(data / longest)
    loud = np.flatnonzero(np.abs(sentence) > PAUSE)
    return np.concatenate(parts)[: round(LEARN_S * RATE_HZ)], sentence[loud[0] : loud[-1]]


def cut(x: Float32) -> list[Float32]:
    """Split (n,) samples into blocks of one channel."""
    return [
        np.ascontiguousarray(x[i : i + BLOCK, None], np.float32) for i in range(0, len(x), BLOCK)
    ]


def spectra(x: Float32) -> Float32:
    """Return the magnitudes of (n,) samples, (frames, bins)."""
    return magnitudes(cut(x), stream("any", RATE_HZ, WINDOW, HOP), 1, RATE_HZ)[0]


def full_fit(x: Float32, learned: Sequence[Source], penalty: Penalty | None = None) -> Float32:
    """Separate (n,) samples by a full fit; (n, sources)."""
    spec = alike(learned)
    masks = fit(spectra(x), [source.decoder for source in learned], UPDATES, penalty)
    parts = masked(cut(x), spec, 1, RATE_HZ, masks[None])
    return np.concatenate([part.copy() for part in parts])[:, :, 0]


def live(x: Float32, bundle: Bundle) -> Float32:
    """Separate (n,) samples with the live engine; (n, sources)."""
    engine = Engine(make_step(bundle), bundle.spec, rate_hz=RATE_HZ)
    return np.concatenate([part.copy() for part in aligned(engine, cut(x))])[:, :, 0]
