"""Learn from another model, whose bundle separates the same sources, beside the true sources.

The true sources contain what no model can know, and the gradient of their distance varies with it.
The output of a model that is further is closer to what can be known (Hinton et al., "Distilling the
Knowledge in a Neural Network", 2015). It is learned from only where it is better than the student.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.errors import RecipeError
from rtsep.runtime.bundle import load
from rtsep.runtime.pipeline import BLOCK, LoadedModel, aligned
from rtsep.spec import Float32
from rtsep.train.mixers.mixer import Mixer


@dataclass
class Taught:
    """Batches of a mixer with the stems of a teacher as further targets.

    Attributes
    ----------
    mixer
        Makes the mixtures.
    teacher
        Path of a bundle of the mixer's sources, in their order, at its corpus' sample rate.

    Raises
    ------
    RecipeError
        The bundle has other sources or another rate.
    """

    mixer: Mixer
    teacher: Path

    def __post_init__(self) -> None:
        """Check the teacher."""
        spec = load(self.teacher).spec
        ours = self.mixer.sources, self.mixer.corpus.sample_rate
        if (spec.sources, spec.sample_rate) != ours:
            raise RecipeError(
                f"{self.teacher} separates {', '.join(spec.sources)} at {spec.sample_rate} Hz, not "
                f"{', '.join(ours[0])} at {ours[1]} Hz"
            )

    @cached_property
    def _model(self) -> LoadedModel:  # loaded by the process that mixes
        return LoadedModel(load(self.teacher), 1)

    def __len__(self) -> int:
        """Return the length of the mixer."""
        return len(self.mixer)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Make a batch: mixtures, and targets (batch, samples, twice the sources, 1)."""
        batch: tuple[Any, ...] = self.mixer[index]  # with a control, for some kinds
        mixtures, targets, *control = batch
        stems = [self._separate(mixture) for mixture in mixtures]
        return mixtures, np.concatenate([targets, np.stack(stems)], axis=2), *control

    def _separate(self, mixture: Float32) -> Float32:
        engine = self._model.engine(self.mixer.corpus.sample_rate)
        blocks = (mixture[at : at + BLOCK] for at in range(0, len(mixture), BLOCK))
        return np.concatenate([part.copy() for part in aligned(engine, blocks)])
