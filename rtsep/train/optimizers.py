"""The optimizers of a training run."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

MATRICES = ("weight", "recurrent")
"""Names of weights that multiply features. A table of vectors, say, has two axes, but is none."""


def optimizers(model: nn.Module, rate: float, matrices: float | None = None) -> list[Optimizer]:
    """Make AdamW for all weights, or Muon for the matrices of layers and AdamW for the rest.

    Muon makes a step equally long in all directions of a matrix (Jordan et al., "Muon: An optimizer
    for hidden layers in neural networks", 2024).

    Parameters
    ----------
    model
        Network to train.
    rate, matrices
        Learning rates of AdamW and of Muon; without the latter AdamW trains everything.
    """
    chosen: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weights in model.named_parameters():
        is_matrix = weights.ndim == 2 and name.rpartition(".")[2] in MATRICES
        (chosen if is_matrix and matrices is not None else rest).append(weights)
    common: dict[str, Any] = {"weight_decay": 1e-4}
    made: list[Optimizer] = [AdamW(rest, rate, betas=(0.9, 0.98), **common)] if rest else []
    return made + ([Muon(chosen, matrices, **common)] if chosen and matrices is not None else [])
