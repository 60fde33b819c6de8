"""Mixtures of several speakers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from rtsep.errors import CorpusError
from rtsep.spec import Float32
from rtsep.train.mixers.mixer import Mixer, probabilities
from rtsep.train.sound import active_rms, coloured


@dataclass
class Speakers(Mixer):
    """One speaker per source, all of them different, in random rooms.

    A mixture contains at most one speaker whose identity is uncertain.

    Attributes
    ----------
    range_db
        Largest difference of a speaker's level from the first speaker's, uniform.
    semitones
        Largest change of pitch, and with it tempo, of each voice.
    """

    range_db: float = 5.0
    semitones: float = 1.5

    roles: ClassVar[tuple[str, ...]] = ("speech", "room")
    exchangeable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Fix the order of the speakers."""
        pool, count = self.corpus.pool("speech"), len(self.sources)
        self._labelled = sorted(pool.keys() - self.corpus.unlabelled)
        self._all = sorted(pool)
        if count < 2 or len(self._labelled) < count - 1 or len(self._all) < count:
            raise CorpusError(
                f"{count} speakers at once cannot be mixed from {len(self._labelled)} labelled and "
                f"{len(self._all) - len(self._labelled)} unlabelled ones"
            )
        self._labelled_weights = probabilities(pool, self._labelled)
        self._all_weights = probabilities(pool, self._all)

    def speakers(self, rng: Generator) -> list[str]:
        """Draw different speakers, one per source."""
        count = len(self.sources)
        sure = rng.choice(self._labelled, count - 1, replace=False, p=self._labelled_weights)
        weights = np.where(np.isin(self._all, sure), 0.0, self._all_weights)
        who = [*sure, rng.choice(self._all, p=weights / weights.sum())]
        return [str(who[i]) for i in rng.permutation(count)]

    def example(self, rng: Generator) -> Float32:
        """Make one set of speakers (samples, sources)."""
        voices = []
        for index, speaker in enumerate(self.speakers(rng)):
            voice = self._in_a_room(self._voice(speaker, rng, self.semitones), rng)
            voice = coloured(voice, rng, 3.0)
            level_db = rng.uniform(-self.range_db, self.range_db) if index else 0.0
            voices.append(voice * (0.1 * 10 ** (level_db / 20) / (active_rms(voice) + 1e-4)))
        return np.stack(voices, axis=1)
