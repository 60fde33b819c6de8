"""Masks are aligned with the mixture they multiply; the loss against ideal binary masks."""

import pytest
import torch
from torch import Tensor

from rtsep.models import build
from rtsep.nn.frontend import Frontend
from rtsep.nn.masks import EPSILON, Masked, magnitude
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec
from rtsep.train.losses import binary_mask, named

SPEC = Spec(8000, 1, "stft", "hann", 64, 32, 1, 3, ("a", "b"))


class Itself(Streaming):
    """The magnitude as the mask of one source, without state."""

    def initial_state(self, streams: int) -> State:
        return {}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return x.unsqueeze(2), {}


@pytest.mark.parametrize("lookahead", [0, 3])
def test_masks_of_later_frames_multiply_the_delayed_mixture(lookahead: int) -> None:
    model = Masked(Itself(), 33, 2, lookahead)
    x = torch.randn(1, 10, 2, 2, 33)
    y, _ = model(x, model.initial_state(1))
    late = torch.cat([torch.zeros(1, lookahead, 2, 2, 33), x[:, : 10 - lookahead]], dim=1)
    torch.testing.assert_close(y[:, :, 0], magnitude(x)[:, :, None, None] * late)
    ahead = torch.cat(
        [magnitude(x)[:, lookahead:], torch.full((1, lookahead, 33), EPSILON**0.15)], 1
    )
    torch.testing.assert_close(model.masks(x)[:, :, 0], ahead)


def test_the_binary_loss_is_least_for_the_ideal_masks() -> None:
    torch.manual_seed(0)
    target = torch.randn(2, 640, 2, 1)
    mixture, frontend = target.sum(dim=2), Frontend(SPEC)
    powers = frontend.analyse(target.flatten(2)).square().sum(dim=3)
    ideal = (powers == powers.amax(dim=2, keepdim=True)).float()
    assert binary_mask(ideal, mixture, target, frontend) < 1e-6
    half = binary_mask(torch.full_like(ideal, 0.5), mixture, target, frontend)
    assert float(half) == pytest.approx(0.6931, abs=1e-3)
    silent = torch.zeros_like(target)
    assert binary_mask(ideal, silent.sum(dim=2), silent, frontend) == 0


def test_the_binary_loss_is_for_masks_of_magnitudes() -> None:
    x = torch.zeros(1, 64, 2, 1)
    model = build("banded", SPEC, {})
    with pytest.raises(ValueError, match="loss 'binary' is for models that mask magnitudes"):
        named("binary")(model, Frontend(SPEC), x.sum(dim=2), x)
