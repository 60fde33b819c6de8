"""Mixtures of two speakers who take turns or talk at once, and noise."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from rtsep.errors import CorpusError
from rtsep.spec import Float32
from rtsep.train.mixers.mixer import probabilities
from rtsep.train.mixers.speech import SpeechInNoise
from rtsep.train.sound import active_rms, rms

_SEX = re.compile(r"so\d+([fm])")
"""Labelled speakers whose sex the corpus states."""
FADE_S = 0.02


@dataclass
class Conversation(SpeechInNoise):
    """Two speakers and noise; a mixture contains at most one speaker of uncertain identity.

    Attributes
    ----------
    range_db
        Largest difference of the second speaker's level from the first's, uniform.
    same_sex
        Probability that both are women or both are men, if the corpus says so of enough speakers.
    turns
        Probability that they take turns of 1 to 4 seconds, which overlap by a random share, from
        not at all to always. Otherwise both speak all the time.
    alone, silent
        Probabilities that only one speaks, and that nobody does.
    clean
        Probability that there is no noise; ``snr_db`` relates the first speaker to the noise.
    """

    snr_db: tuple[float, float] = (3.0, 25.0)
    range_db: float = 5.0
    same_sex: float = 0.5
    turns: float = 0.5
    alone: float = 0.1
    clean: float = 0.4

    judged: ClassVar[int | None] = 2
    exchangeable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Fix the order of the speakers."""
        super().__post_init__()
        pool = self.corpus.pool("speech")
        self._labelled = sorted(pool.keys() - self.corpus.unlabelled)
        if not self._labelled or len(self._speakers) < 2:
            raise CorpusError("two speakers, one of them labelled, are needed for a conversation")
        by_sex: dict[str, list[str]] = defaultdict(list)
        for speaker in self._labelled:
            if known := _SEX.fullmatch(speaker):
                by_sex[known[1]].append(speaker)
        self._by_sex = [them for _, them in sorted(by_sex.items()) if len(them) > 1]
        self._labelled_weights = probabilities(pool, self._labelled)

    def _check_sources(self) -> None:
        if len(self.sources) != 3:
            raise CorpusError(
                f"a conversation is 3 sources, two speakers and noise, not {len(self.sources)}"
            )

    def example(self, rng: Generator) -> Float32:
        """Make two speakers and noise, (samples, 3)."""
        return self._talk(rng)[0]

    def _talk(self, rng: Generator) -> tuple[Float32, list[tuple[str, float]]]:
        """Make two speakers and noise; return also who they are and how much faster they talk."""
        out, cast = np.zeros((self.samples, 3), np.float32), []
        for index, speaker in enumerate(self._pair(rng)):
            ratio = self._ratio(rng, self.semitones)
            cast.append((speaker, ratio))
            voice = self._in_a_room(self._at(speaker, ratio, rng), rng)
            voice = self._tilt(voice, rng, 3.0)
            level_db = rng.uniform(-self.range_db, self.range_db) if index else 0.0
            out[:, index] = voice * (0.1 * 10 ** (level_db / 20) / (active_rms(voice) + 1e-4))
        if rng.random() < self.turns:
            out[:, :2] *= self._taken(rng)
        if rng.random() >= self.clean:
            noise = self._noise(rng)
            level = max(rms(noise), 0.3 * active_rms(noise)) + 1e-6
            out[:, 2] = noise * (0.1 * 10 ** (-rng.uniform(*self.snr_db) / 20) / level)
        kind = rng.random()
        if kind < self.silent:
            out[:, :2] = 0.0
        elif kind < self.silent + self.alone:
            out[:, rng.integers(2)] = 0.0
        return self._stepped(out, rng), cast

    def _pair(self, rng: Generator) -> list[str]:
        """Draw two different speakers."""
        if self._by_sex and rng.random() < self.same_sex:
            them = self._by_sex[rng.integers(len(self._by_sex))]
            return [str(name) for name in rng.choice(them, 2, replace=False)]
        first = str(rng.choice(self._labelled, p=self._labelled_weights))
        weights = np.where(np.array(self._speakers) == first, 0.0, self._weights)
        second = str(rng.choice(self._speakers, p=weights / weights.sum()))
        return [first, second] if rng.random() < 0.5 else [second, first]

    def _taken(self, rng: Generator) -> Float32:
        """Draw who speaks when: gains of 0 or 1 with fades, (samples, 2)."""
        rate = self.corpus.sample_rate
        both, fade = rng.random(), np.hanning(2 * round(FADE_S * rate) + 1)
        gains = np.zeros((self.samples, 2))
        at, who = 0, int(rng.integers(2))
        while at < self.samples:
            end = at + int(rng.uniform(1.0, 4.0) * rate)
            if rng.random() < both:
                gains[at:end] = 1.0
            else:
                gains[at:end, who] = 1.0
                who = 1 - who
            at = end
        smooth = [np.convolve(gain, fade / fade.sum(), "same") for gain in gains.T]
        return np.stack(smooth, axis=1).astype(np.float32)
