"""Base of the mixers: a table of batches of mixtures, made on the fly.

Example ``j`` of batch ``i`` depends only on the seed, ``i`` and ``j``. So a resumed run uses the
same data as an uninterrupted one, and several processes that share a batch use the same data as one
process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from rtsep.spec import Float32
from rtsep.train.corpus import Corpus, Int16
from rtsep.train.sound import convolve, faster, rms, room

ROOMS = 256
"""Simulated rooms of a mixer; each is computed when it is first used."""


@dataclass
class Mixer:
    """Batches of mixtures of one kind.

    Attributes
    ----------
    corpus
        Source of the clips.
    sources
        Names of the mixed sources, in the order of the targets.
    seed
        Seed of the random generator, together with the numbers of batch and example.
    batch_size, samples
        Examples per batch, and samples per example.
    level_db
        Range of the mixture's RMS level in dB re full scale, uniform.
    part
        (k, n): this process makes every n-th example of a batch, from the k-th.
    roles
        Roles of the corpus that are mixed.
    judged
        Number of sources, from the first, that a validation scores; all if None.
    exchangeable
        Whether the order of the targets is arbitrary (speakers).
    measure
        Validation score: ``"SI-SDRi"``, or ``"SNRi"`` if levels matter.

    Raises
    ------
    CorpusError
        The corpus lacks a source, or the names of the sources do not fit this mixer.
    """

    corpus: Corpus
    sources: tuple[str, ...]
    seed: int
    batch_size: int
    samples: int
    level_db: tuple[float, float] = (-45.0, -15.0)
    part: tuple[int, int] = (0, 1)
    _rooms: dict[int, Float32] = field(default_factory=dict, init=False, repr=False)

    roles: ClassVar[tuple[str, ...]]
    judged: ClassVar[int | None] = None
    exchangeable: ClassVar[bool] = False
    measure: ClassVar[str] = "SI-SDRi"

    def __post_init__(self) -> None:
        """Check that the corpus has enough to mix, and fix the order of its keys."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return a length that training never reaches; the data loader needs one."""
        return 1 << 31

    def __getitem__(self, index: int) -> tuple[Float32, Float32]:
        """Make a batch: mixtures (batch, samples, 1), targets (batch, samples, sources, 1)."""
        made = []
        for example in range(self.batch_size)[self.part[0] :: self.part[1]]:
            rng = np.random.default_rng((self.seed, index, example))
            sources = self._levelled(self.example(rng), rng)
            made.append((self.heard(sources.sum(axis=1), rng), sources))
        mixtures, targets = (np.stack(x)[..., None] for x in zip(*made, strict=True))
        return mixtures.astype(np.float32), targets.astype(np.float32)

    def example(self, rng: Generator) -> Float32:
        """Make one set of sources, (samples, sources), at their relative levels."""
        raise NotImplementedError

    def heard(self, mixture: Float32, _: Generator) -> Float32:
        """Simulate the microphone's faults on a mixture (samples,); the default has none."""
        return mixture

    def _levelled(self, sources: Float32, rng: Generator) -> Float32:
        mixture = sources.sum(axis=1)
        gain = 10 ** (rng.uniform(*self.level_db) / 20) / (rms(mixture) + 1e-6)
        return sources * min(gain, 0.99 / (float(np.max(np.abs(mixture))) + 1e-6))

    def _voice(self, speaker: str, rng: Generator, semitones: float) -> Float32:
        """Sentences of one speaker, (samples,), resampled by up to ``semitones`` up or down."""
        return self._at(speaker, self._ratio(rng, semitones), rng)

    def _ratio(self, rng: Generator, semitones: float) -> float:
        return float(2 ** (rng.uniform(-1, 1) * semitones / 12))

    def _at(self, speaker: str, ratio: float, rng: Generator) -> Float32:
        """Sentences of one speaker, ``ratio`` times as fast and high as they were."""
        return faster(self._said(speaker, rng, self._needed(ratio)), ratio)[: self.samples]

    def _needed(self, ratio: float) -> int:
        """Return how many samples are needed when played ``ratio`` times as fast."""
        return int(self.samples * max(ratio, 1.0)) + 2

    def _said(self, speaker: str, rng: Generator, samples: int) -> Float32:
        """Sentences of one speaker with pauses; a segment starts anywhere in a sentence."""
        rate, clips = self.corpus.sample_rate, self.corpus.clips["speech"][speaker]
        out = np.zeros(samples, np.float32)
        at = -int(rng.uniform(0, 2.0) * rate)
        while at < samples:
            clip = clips[rng.integers(len(clips))]
            start, stop = max(at, 0), min(at + len(clip), samples)
            if stop > start:
                out[start:stop] = clip[start - at : stop - at]
            at += len(clip) + int(rng.exponential(0.25) * rate)
        return out / np.float32(32768)

    def _in_a_room(self, sound: Float32, rng: Generator) -> Float32:
        """Add reverberation to a quarter of the sounds, of a measured or a simulated room."""
        if rng.random() >= 0.25:
            return sound
        responses = self.corpus.responses
        if responses and rng.random() < 0.3:
            return convolve(sound, responses[rng.integers(len(responses))])
        return convolve(sound, self._room(rng))

    def _room(self, rng: Generator) -> Float32:
        """Response of one of `ROOMS` simulated rooms."""
        number = int(rng.integers(ROOMS))
        if number not in self._rooms:
            made = np.random.default_rng((self.seed, number))
            self._rooms[number] = room(made, self.corpus.sample_rate)
        return self._rooms[number]


def probabilities(pool: dict[str, list[Int16]], keys: list[str]) -> np.ndarray:
    """Probabilities of keys; they grow with the length of a key's audio, below proportion."""
    roots = np.sqrt([float(sum(map(len, pool[key]))) for key in keys])
    return np.asarray(roots / roots.sum())
