"""The network with weights shared over frequency: what it does at other levels."""

from __future__ import annotations

import pytest
import torch

from rtsep.models import build
from rtsep.spec import Spec

SPEC = Spec(16000, 1, "stft", "hann", 256, 128, 1, 0, ("speech", "noise"))
FRAMES, SETTLED = 10.0, 80


@torch.no_grad()
@pytest.mark.parametrize("gain", [0.03, 5.0])
def test_a_running_level_makes_the_masks_the_same_at_any_level(gain: float) -> None:
    torch.manual_seed(0)
    model = build("banded", SPEC, {"size": "small", "level_frames": FRAMES}).eval()
    x = torch.randn(1, 3 * SETTLED, 1, *SPEC.frame_shape)
    state = model.initial_state(1)
    usual, _ = model(x, state)
    other, _ = model(gain * x, state)
    torch.testing.assert_close(other / gain, usual, atol=0.01, rtol=0.01)

    stepped = x.clone()
    stepped[:, SETTLED:] *= gain
    y, _ = model(stepped, state)
    torch.testing.assert_close(y[:, -SETTLED:] / gain, usual[:, -SETTLED:], atol=0.01, rtol=0.01)

    plain = build("banded", SPEC, {"size": "small"}).eval()
    plain.load_state_dict(model.state_dict())
    quiet, _ = plain(gain * x, plain.initial_state(1))
    same, _ = plain(x, plain.initial_state(1))
    assert (quiet / gain - same).abs().max() > 0.03
