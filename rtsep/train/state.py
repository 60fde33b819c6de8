"""State of a training run, stored as safetensors, from which it resumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rtsep.errors import CheckpointError
from rtsep.models.checkpoint import Description, read, save
from rtsep.nn.streaming import Streaming


@dataclass
class Run:
    """A model in training.

    Attributes
    ----------
    description
        The model's name, architecture and options.
    model, optimizer
        The network and its optimizer.
    average
        Exponential moving average of the weights.
    step
        Number of batches so far.
    best_db
        Best validation score so far.
    seconds
        Training time, earlier runs included.
    """

    description: Description
    model: Streaming
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    best_db: float = float("-inf")
    seconds: float = 0.0

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
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        progress = [self.step, self.best_db, self.seconds]
        tensors["progress"] = torch.tensor(progress, dtype=torch.float64)
        save(path, self.description, tensors)

    def begin(self, path: Path) -> None:
        """Start from the weights of a checkpoint.

        A layer with several times the outputs, for more sources, starts with them repeated.

        Raises
        ------
        CheckpointError
            The file is no checkpoint, or its weights do not fit the model.
        """
        _, tensors = read(path)
        for name, value in self.model.state_dict().items():
            given = tensors.get(name, value)
            if given.ndim and given.shape[1:] == value.shape[1:] and len(given):
                times, rest = divmod(len(value), len(given))
                if times > 1 and not rest:
                    tensors[name] = torch.cat([given] * times)
        try:
            self.model.load_state_dict(tensors)
        except RuntimeError as error:
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
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.best_db = int(progress[0]), progress[1]
        self.seconds = progress[2] if len(progress) > 2 else 0.0
