"""Every architecture learns: seconds of training on made-up sources, then unseen ones.

The sources are gliding harmonic tones with pauses, and noise above them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from rtsep.models import build
from rtsep.nn.frontend import Frontend, separate
from rtsep.train.loop import improvement
from rtsep.train.losses import named
from tests.support.miniatures import MINIATURES, RATE

SECONDS, BATCH = 0.5, 8
LOSSES = {"feedforward": "binary", "recurrent": "chandna"}
"""Losses of the papers; the others learn by the SNR."""
STEPS = 40


def sources(rng: np.random.Generator) -> np.ndarray:
    """Return a tone and a hiss of equal power, (samples, 2)."""
    t = np.arange(int(SECONDS * RATE)) / RATE
    pitch = rng.uniform(100, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 3) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = np.sum([np.sin(k * phase) / k for k in range(1, 8)], axis=0)
    tone *= np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * t + rng.uniform(0, 6)) + 0.5, 0, 1)
    hiss = np.diff(rng.standard_normal(len(t)), prepend=0.0)
    made = np.stack([tone, hiss], axis=1)
    return (0.1 * made / np.sqrt(np.mean(made**2, axis=0))).astype(np.float32)


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mixtures (streams, samples, 1) and targets (streams, samples, 2, 1)."""
    rng = np.random.default_rng(seed)
    while True:
        targets = torch.from_numpy(np.stack([sources(rng) for _ in range(BATCH)])).unsqueeze(3)
        yield targets.sum(dim=2), targets


@pytest.mark.parametrize("name", MINIATURES)
def test_seconds_of_training_separate_unseen_sources(name: str) -> None:
    """The tone is judged: networks over samples learn noise later."""
    spec, options = MINIATURES[name]
    torch.manual_seed(0)
    model, frontend = build(name, spec, options), Frontend(spec)
    compute = named(LOSSES.get(name, "snr"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _, (mixture, target) in zip(range(STEPS), batches(0), strict=False):
        optimizer.zero_grad()
        compute(model, frontend, mixture, target).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    mixture, target = next(batches(1))
    with torch.no_grad():
        estimate = separate(model.eval(), frontend, mixture)
    assert improvement(estimate, target, mixture, "SI-SDRi")[:, 0].mean() >= 3.0
