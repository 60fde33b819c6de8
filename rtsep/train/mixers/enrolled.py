"""Mixtures of which one voice is to be kept, that of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from rtsep.errors import CorpusError
from rtsep.spec import Float32
from rtsep.train.mixers.conversation import Conversation
from rtsep.train.sound import active_rms, faster


@dataclass
class Enrolled(Conversation):
    """A conversation of which the first speaker's voice is kept; sources voice, rest.

    Batches have a third part, ``spoken``: other sentences of that speaker, (batch, samples, 1), or
    silence if all voices are to be kept.

    Attributes
    ----------
    spoken_s
        Length of the recording in seconds.
    anybody
        Probability that there is no recording.
    """

    spoken_s: float = 6.0
    anybody: float = 0.08

    judged: ClassVar[int | None] = 1
    exchangeable: ClassVar[bool] = False

    def _check_sources(self) -> None:
        if len(self.sources) != 2:
            raise CorpusError(f"voice and rest are 2 sources, not {len(self.sources)}")

    def __getitem__(self, index: int) -> Any:
        """Make a batch: mixtures, targets (batch, samples, 2, 1), and the recordings."""
        made = []
        for example in range(self.batch_size)[self.part[0] :: self.part[1]]:
            rng = np.random.default_rng((self.seed, index, example))
            talk, cast = self._talk(rng)
            talk = self._levelled(talk, rng)
            if rng.random() < self.anybody:
                spoken = np.zeros(round(self.spoken_s * self.corpus.sample_rate), np.float32)
                voice = talk[:, 0] + talk[:, 1]
            else:
                spoken, voice = self._spoken(*cast[0], rng), talk[:, 0]
            mixture = talk.sum(axis=1)
            targets = np.stack([voice, mixture - voice], axis=1)
            made.append((self.heard(mixture, rng), targets, spoken))
        mixtures, targets, spoken = (
            np.stack(x)[..., None].astype(np.float32) for x in zip(*made, strict=True)
        )
        return mixtures, targets, {"spoken": spoken}

    def _spoken(self, speaker: str, ratio: float, rng: Generator) -> Float32:
        """Record other sentences, in another room."""
        samples = round(self.spoken_s * self.corpus.sample_rate)
        sound = faster(self._said(speaker, rng, int(samples * max(ratio, 1.0)) + 2), ratio)
        sound = self._tilt(self._in_a_room(sound[:samples], rng), rng, 3.0)
        return np.asarray(sound * (0.1 / (active_rms(sound) + 1e-4)), np.float32)
