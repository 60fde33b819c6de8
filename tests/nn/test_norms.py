"""Norms over all past frames: the paper's, for as long as a stream lasts."""

from typing import Any

import numpy as np
import pytest
import torch

from rtsep.nn.norms import Averages, cumulative_norm


def norm(x: torch.Tensor, memory: float, state: tuple[torch.Tensor, torch.Tensor]) -> Any:
    matrices, weight = Averages(memory)(x.shape[1], state[1])
    y, running = cumulative_norm(x, state[0], matrices)
    return y, (running[:, -1:], weight)


def test_the_norm_is_the_papers_as_long_as_its_memory_is() -> None:
    x = 3.0 * torch.randn(1, 900, 20, generator=torch.Generator().manual_seed(0)) + 1.0
    y, _ = norm(x, 1e9, (torch.zeros(1, 1, 2), torch.zeros(1, 1)))
    for t in (0, 1, 100, 899):
        seen = x[:, : t + 1].double()
        expected = (x[:, t] - seen.mean()) / seen.var(correction=0).sqrt()
        assert torch.allclose(y[:, t], expected.float(), atol=1e-4)


def test_the_norm_is_as_precise_after_an_hour_as_at_the_start() -> None:
    """Jump ahead to where an hour of frames leads, and compare with the formula in float64."""
    memory, keep = 30000.0, float(np.exp(-1 / 30000.0))
    hour = 3_600_000
    weight = (1 - keep**hour) / (1 - keep)
    mean, square = 0.5, 1.3
    state = (torch.tensor([[[mean, square]]]), torch.tensor([[weight]], dtype=torch.float32))
    x = torch.randn(1, 8000, 20, generator=torch.Generator().manual_seed(0)) + 0.7
    parts = []
    for start in range(0, 8000, 8):
        y, state = norm(x[:, start : start + 8], memory, state)
        parts.append(y)
    frames = x[0].double().numpy()
    for t in range(8000):
        mean += (frames[t].mean() - mean) / (keep * weight + 1)
        square += ((frames[t] ** 2).mean() - square) / (keep * weight + 1)
        weight = keep * weight + 1
    expected = (frames[-1] - mean) / np.sqrt(square - mean**2)
    np.testing.assert_allclose(parts[-1][0, -1].numpy(), expected, atol=3e-5)
    assert float(state[1]) == pytest.approx(weight, rel=1e-3)  # only the size of the steps
