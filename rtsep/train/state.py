"""State of a training run, stored as safetensors, from which it resumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Muon, Optimizer

from rtsep.errors import CheckpointError
from rtsep.models.checkpoint import Description, read, save
from rtsep.nn.streaming import Streaming
from rtsep.train.growth import grown


@dataclass
class Run:
    """A model in training.

    Attributes
    ----------
    description
        The model's name, architecture and options.
    model, optimizers
        The network and the optimizers of its weights.
    average
        Exponential moving average of the weights.
    step
        Number of batches so far.
    best_db
        Best validation score so far.
    seconds, heard_s
        Training time, and length of all mixtures so far, both in seconds and with earlier runs.
    """

    description: Description
    model: Streaming
    optimizers: Sequence[Optimizer]
    average: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    best_db: float = float("-inf")
    seconds: float = 0.0
    heard_s: float = 0.0

    def __post_init__(self) -> None:
        """Initialise the average with the weights."""
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def follow(self, decay: float) -> None:
        """Update the average by one step."""
        keep = min(decay, (self.step + 1) / (self.step + 10))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    def store(self, path: Path) -> None:
        """Write the state to a file, atomically."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for optimizer in self.optimizers:
            states = optimizer.state_dict()["state"]
            for index, name in self._trained_by(optimizer):
                state = states.get(index, {})
                tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
        progress = [self.step, self.best_db, self.seconds, self.heard_s]
        tensors["progress"] = torch.tensor(progress, dtype=torch.float64)
        save(path, self.description, tensors)

    def begin(self, path: Path) -> None:
        """Start from the weights of a checkpoint, or the average of a training's state.

        The network may have been smaller, or have had fewer sources.

        See :func:`rtsep.train.growth.grown`.

        Raises
        ------
        CheckpointError
            The file is no checkpoint, or its weights do not fit the model.
        """
        found, tensors = read(path)
        averages = [name for name in tensors if name.startswith("average.")]
        if averages:
            tensors = {name.removeprefix("average."): tensors[name] for name in averages}
        before, after = (len(each.spec.sources) for each in (found, self.description))
        try:
            fresh = self.model.state_dict()
            self.model.load_state_dict(grown(tensors, fresh, before, after))
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path} does not fit the model to train: {reason}") from None
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def restore(self, path: Path) -> None:
        """Load a file written by :meth:`store`.

        Raises
        ------
        CheckpointError
            The file is no checkpoint, or that of another model.
        """
        found, tensors = read(path)
        mine = self.description
        for name in ("model", "spec", "options"):
            theirs, ours = getattr(found, name), getattr(mine, name)
            if theirs != ours:
                raise CheckpointError(
                    f"{path} was trained with another {name} than the recipe's: {theirs}, not "
                    f"{ours}; --fresh starts over"
                )
        try:
            self.model.load_state_dict({k: tensors[f"model.{k}"] for k in self.average})
            self.average = {k: tensors[f"average.{k}"].to(v) for k, v in self.average.items()}
            progress = [float(value) for value in tensors["progress"]]
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path} is no training state of this model: {reason}") from None
        self._restore_optimizers(tensors)
        self.step, self.best_db = int(progress[0]), progress[1]
        self.seconds, self.heard_s = (*progress[2:], 0.0, 0.0)[:2]

    def _restore_optimizers(self, tensors: dict[str, Tensor]) -> None:
        """Restore what is known of weights that the same optimizer trained before."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                weights, _, key = name.removeprefix("optimizer.").rpartition(".")
                found.setdefault(weights, {})[key] = value
        for optimizer in self.optimizers:
            needed = "momentum_buffer" if isinstance(optimizer, Muon) else "step"
            each = {i: found.get(name, {}) for i, name in self._trained_by(optimizer)}
            state = {i: values for i, values in each.items() if needed in values}
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _trained_by(self, optimizer: Optimizer) -> list[tuple[int, str]]:
        """Return the names of the weights of an optimizer, with their indices in its state."""
        names = {id(weights): name for name, weights in self.model.named_parameters()}
        groups = (weights for group in optimizer.param_groups for weights in group["params"])
        return [(index, names[id(weights)]) for index, weights in enumerate(groups)]
