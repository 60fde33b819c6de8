"""A network can learn from the output of another model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import rtsep
from rtsep import weights
from rtsep.errors import RecipeError
from rtsep.nn.frontend import Frontend
from rtsep.spec import Spec
from rtsep.train import losses
from rtsep.train.corpus import Corpus
from rtsep.train.mixers import SpeechInNoise
from rtsep.train.recipe import parse, read
from rtsep.train.teacher import Taught
from tests.support.paths import ROOT

MODEL = "chandna-speech"
RATE = 16000


def _mixer(sources: tuple[str, ...] = ("speech", "noise")) -> SpeechInNoise:
    rng = np.random.default_rng(0)
    clips = {
        role: {"one": [(3000 * rng.standard_normal(RATE)).astype(np.int16)]}
        for role in ("speech", "noise")
    }
    return SpeechInNoise(Corpus(RATE, clips), sources, 1, 2, RATE)


def _bundle(name: str) -> Path:
    return weights.find(name).path


def test_the_stems_of_the_teacher_are_further_targets() -> None:
    mixer = _mixer()
    mixtures, targets = Taught(mixer, _bundle(MODEL))[3]
    plain = mixer[3]
    np.testing.assert_array_equal(mixtures, plain[0])
    np.testing.assert_array_equal(targets[:, :, :2], plain[1])
    for mixture, target in zip(mixtures, targets, strict=True):
        stems = rtsep.separate(mixture[:, 0], RATE, MODEL)
        np.testing.assert_allclose(target[:, 2:, 0], np.stack([*stems.values()], 1), atol=1e-6)


def test_a_teacher_of_other_sources_or_another_rate_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"separates vocals, drums, bass, other at 44100 Hz"):
        Taught(_mixer(), _bundle("music"))


def test_only_a_better_teacher_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    true = torch.randn(3, 800, 2, 1, generator=rng)
    estimate = true + 0.3 * torch.randn(true.shape, generator=rng)
    near = true + 0.1 * torch.randn(true.shape, generator=rng)
    far = true + 0.6 * torch.randn(true.shape, generator=rng)
    monkeypatch.setattr(losses, "separate", lambda *_: estimate)
    spec = Spec(RATE, 1, "stft", "hann", 512, 128, 1, 0, ("speech", "noise"))

    def loss(teacher: Tensor) -> float:
        target = torch.cat([true, teacher], dim=2)
        compute = losses.named("taught", 2.0)
        return float(compute(None, Frontend(spec), true.sum(2), target))  # type: ignore[arg-type]

    alone = float(losses._heard(estimate, true, 2.0))
    assert loss(far) == pytest.approx(alone)
    assert loss(near) == pytest.approx(alone + float(losses._heard(estimate, near, 2.0)))
    some = loss(torch.cat([near[:1], far[1:]]))
    part = float(losses._heard(estimate[:1], near[:1], 2.0)) / 3
    assert some == pytest.approx(alone + part)


def test_teacher_and_loss_need_each_other() -> None:
    recipe = read(ROOT / "export" / "speech.toml")
    for change in (
        {"teacher": Path("x.onnx")},
        {"schedule": recipe["schedule"] | {"loss": "taught"}},
    ):
        with pytest.raises(RecipeError, match="need each other"):
            parse(recipe | change)
