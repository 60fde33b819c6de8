"""The optimizers of a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

MATRICES = ("weight", "recurrent")
"""Names of weights that multiply features. A table of vectors, say, has two axes, but is none."""


def optimizers(model: nn.Module, rate: float, matrices: float | None = None) -> list[Optimizer]:
    """Make AdamW for all weights, or Muon for matrices and convolutions and AdamW for the rest.

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
        is_matrix = weights.ndim in (2, 4) and name.rpartition(".")[2] in MATRICES
        (chosen if is_matrix and matrices is not None else rest).append(weights)
    common: dict[str, Any] = {"weight_decay": 1e-4}
    made: list[Optimizer] = [AdamW(rest, rate, betas=(0.9, 0.98), **common)] if rest else []
    return made + ([Rows(chosen, matrices, **common)] if chosen and matrices is not None else [])


class Rows(Muon):
    """Muon, to which the kernels that make one output of a convolution are one row of a matrix."""

    def __init__(self, weights: Sequence[nn.Parameter], rate: float, **options: Any) -> None:
        with _as_rows(weights):
            super().__init__(weights, rate, **options)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make a step."""
        with _as_rows(self.param_groups[0]["params"]):
            return super().step(closure)  # type: ignore[no-untyped-call]


@contextmanager
def _as_rows(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Give weights and gradients two axes for a while."""
    shapes = [each.shape for each in weights]
    _reshape(weights, [(each.shape[0], -1) for each in weights])
    try:
        yield
    finally:
        _reshape(weights, shapes)


def _reshape(weights: Sequence[nn.Parameter], shapes: Sequence[Sequence[int]]) -> None:
    for each, shape in zip(weights, shapes, strict=True):
        gradient, each.grad = each.grad, None
        each.data = each.data.reshape(*shape)
        each.grad = None if gradient is None else gradient.reshape(*shape)
