"""Larger networks, and those of more sources, start as the smaller one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rtsep.errors import CheckpointError
from rtsep.models.checkpoint import Description, save
from rtsep.nn.recurrent import Recurrent
from rtsep.spec import Spec
from rtsep.train.growth import grown
from rtsep.train.optimizers import optimizers
from rtsep.train.state import Run

SPEC = Spec(16000, 1, "stft", "hann", 256, 128, 1, 1, ("speech", "noise"))
DESCRIPTION = Description("small", "banded", SPEC, {"size": "small"})


def test_outputs_for_more_sources_start_as_those_of_fewer(tmp_path: Path) -> None:
    options = {"features": 24, "channels": 32, "taps": 2}
    two = replace(DESCRIPTION, model="banded", options=options)
    three = replace(two, spec=replace(SPEC, sources=("speaker1", "speaker2", "noise")))
    given = two.build().state_dict()
    save(tmp_path / "two.safetensors", two, given)
    model = three.build()
    Run(three, model, optimizers(model, 1e-3)).begin(tmp_path / "two.safetensors")
    for key, value in model.state_dict().items():
        repeated = torch.cat([given[key]] * (2 if key.startswith("masks.") else 1))
        assert torch.equal(value, repeated), key
    x = torch.randn(1, 20, 1, 2, SPEC.window_length // 2 + 1)
    with torch.no_grad():
        fewer = two.build()
        fewer.load_state_dict(given)
        few, more = (m(x, m.initial_state(1))[0] for m in (fewer, model))
    torch.testing.assert_close(more[:, :, :2], few[:, :, :1].expand(-1, -1, 2, -1, -1, -1))


def test_masks_of_fewer_sources_start_as_the_first_ones(tmp_path: Path) -> None:
    names = ("speaker1", "speaker2", "noise")
    spec = Spec(8000, 1, "waveform", "rectangular", 16, 8, 1, 0, names)
    options = {"filters": 12, "bottleneck": 8, "hidden": 8, "skip": 6, "blocks": 2, "repeats": 1}
    three = Description("three", "convtasnet", spec, options)
    given = three.build().state_dict()
    save(tmp_path / "three.safetensors", three, given)
    two = replace(three, model="keptvoice", spec=replace(spec, sources=("voice", "rest")))
    two = replace(two, options=options | {"size": "samples", "units": 0})
    model = two.build()
    Run(two, model, optimizers(model, 1e-3)).begin(tmp_path / "three.safetensors")
    for key, value in given.items():
        kept = value[: 2 * 12] if key.startswith("mask.") else value
        assert torch.equal(model.state_dict()[key], kept), key


@pytest.mark.parametrize("sources", [("speech", "noise"), ("speaker1", "speaker2", "noise")])
def test_a_larger_network_starts_as_the_smaller_one(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    spec = replace(SPEC, sources=sources)
    small = replace(DESCRIPTION, model="banded", spec=spec, options={"size": "small"})
    larger = {"features": 24, "channels": 32, "blocks": 4, "context": 3, "taps": 2}
    deep = replace(small, options=larger)
    given = small.build()
    save(tmp_path / "small.safetensors", small, given.state_dict())
    model = deep.build()
    Run(deep, model, optimizers(model, 1e-3)).begin(tmp_path / "small.safetensors")
    x = torch.randn(1, 20, 1, 2, SPEC.window_length // 2 + 1)
    with torch.no_grad():
        before, after = (m(x, m.initial_state(1))[0] for m in (given, model))
    torch.testing.assert_close(after, before)


def test_new_units_of_a_wider_network_are_not_heard_at_first() -> None:
    old, new = Recurrent(6, 4), Recurrent(8, 10)
    new.load_state_dict(grown(old.state_dict(), new.state_dict()))
    x = torch.randn(1, 30, 2, 8)
    before = old(x[..., :6], torch.zeros(1, 2, 4))
    after = new(x, torch.zeros(1, 2, 10))
    torch.testing.assert_close(after[..., :4], before)
    assert after[..., 4:].abs().max() > 0.01


def test_a_smaller_network_cannot_start_from_a_larger_one(tmp_path: Path) -> None:
    large = replace(DESCRIPTION, model="banded", options={"size": "base"})
    save(tmp_path / "large.safetensors", large, large.build().state_dict())
    for changes, told in (
        ({"options": {"size": "small"}}, ", not"),
        (
            {
                "options": {"features": 32, "channels": 48, "taps": 2},
                "spec": replace(SPEC, sources=("speaker1", "speaker2", "noise")),
            },
            "for fewer sources",
        ),
    ):
        other = replace(large, **changes)
        model = other.build()
        run = Run(other, model, optimizers(model, 1e-3))
        with pytest.raises(CheckpointError, match=rf"not fit the model to train: .* is .*{told}"):
            run.begin(tmp_path / "large.safetensors")
