"""Every architecture learns: seconds of training on made-up sources, then unseen ones.

tests/train/test_adversarial.py trains segan by its own loss.
"""

from __future__ import annotations

import pytest
import torch

from rtsep.models import build
from rtsep.nn.frontend import Frontend, separate
from rtsep.train.loop import improvement
from rtsep.train.losses import matched, named
from tests.support.miniatures import MINIATURES, batches

LOSSES = {
    "clustering": "clustering",
    "feedforward": "binary",
    "recurrent": "chandna",
}
"""Losses of the papers; the others learn by the SNR."""
STEPS, SLOW = 25, {"cdae": 40}
"""Steps of training, and of those that need more."""


@pytest.mark.parametrize("name", MINIATURES)
def test_seconds_of_training_separate_unseen_sources(name: str) -> None:
    """The tone is judged: networks over samples learn noise later."""
    spec, options = MINIATURES[name]
    torch.manual_seed(0)
    model, frontend = build(name, spec, options), Frontend(spec)
    compute = named(LOSSES.get(name, "snr"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _, (mixture, target) in zip(range(SLOW.get(name, STEPS)), batches(0), strict=False):
        optimizer.zero_grad()
        compute(model, frontend, mixture, target).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    mixture, target = next(batches(1))
    with torch.no_grad():
        estimate = separate(model.eval(), frontend, mixture)
    if name == "clustering":
        estimate = matched(estimate, target)
    assert improvement(estimate, target, mixture, "SI-SDRi")[:, 0].mean() >= 3.0
