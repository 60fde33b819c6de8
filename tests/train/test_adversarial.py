"""The adversarial loss: a discriminator learns, then the model learns to deceive it."""

import torch

from rtsep.models import build
from rtsep.nn.frontend import Frontend, separate
from rtsep.train.adversarial import Adversarial
from rtsep.train.losses import named
from tests.support.miniatures import MINIATURES, batches

ALONE, TOGETHER = 10, 24
"""Steps of the discriminator against a model without training, then of both."""


def test_accuracy_of_the_discriminator_falls_towards_a_half() -> None:
    spec, options = MINIATURES["segan"]
    torch.manual_seed(0)
    model, frontend = build("segan", spec, options), Frontend(spec)
    compute = Adversarial(learning_rate=2e-3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    mixture, target = next(batches(1, 2048))

    def accuracy() -> float:
        with torch.no_grad():
            return compute.accuracy(mixture, target, separate(model, frontend, mixture))

    training = batches(0, 2048)
    for _ in range(ALONE):
        compute(model, frontend, *next(training))
    assert accuracy() >= 0.8
    for _ in range(TOGETHER):
        optimizer.zero_grad()
        compute(model, frontend, *next(training)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    assert 0.3 <= accuracy() <= 0.7


def test_each_training_has_a_discriminator_of_its_own() -> None:
    first, second = named("adversarial"), named("adversarial")
    assert isinstance(first, Adversarial) and isinstance(second, Adversarial)
    assert first is not second


def test_the_last_source_is_not_judged() -> None:
    mixture, target = next(batches(0))
    other = target.clone()
    other[:, :, -1] = 0.0
    compute = Adversarial()
    assert torch.equal(compute.beside(mixture, target), compute.beside(mixture, other))
    assert compute.beside(mixture, target).shape == (8, 2, 4000)
