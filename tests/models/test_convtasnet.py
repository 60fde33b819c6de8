"""Conv-TasNet: the paper's figures, the contract, and that it learns."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtsep.evaluate.metrics import si_sdr_db
from rtsep.models import build
from rtsep.models.convtasnet import ConvTasNet
from rtsep.nn import checks
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.onnx import export
from rtsep.nn.streaming import flatten, unflatten
from rtsep.spec import Spec
from rtsep.train.losses import negative_snr
from tests.support.random_cases import cases
from tests.support.voices import mixtures

TEXTS = {"name": "t", "model": "m", "training": "none", "licence": "MIT", "quality": "none"}
TINY = {
    "filters": 24,
    "bottleneck": 8,
    "hidden": 12,
    "skip": 6,
    "blocks": 3,
    "repeats": 1,
}


def spec(chunk: int = 1, channels: int = 1, length: int = 16, rate: int = 8000) -> Spec:
    names = ("first", "second")
    return Spec(rate, channels, "waveform", "rectangular", length, length // 2, chunk, 0, names)


def spectra(channels: int = 1, sources: tuple[str, ...] = ("speech", "noise")) -> Spec:
    """A short synthesis window: 16 ms in all at the frequency resolution of 32."""
    return Spec(16000, channels, "stft", "hann", 512, 128, 1, 0, sources, synthesis_length=256)


def make(described: Spec, **options: Any) -> ConvTasNet:
    torch.manual_seed(0)
    model = build("convtasnet", described, options)
    assert isinstance(model, ConvTasNet)
    return model.eval()


def test_full_size_has_the_papers_figures() -> None:
    model = make(spec())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(5.05e6, abs=0.1e6)
    seconds = (model.receptive_field * 8 + 8) / 8000
    assert seconds == pytest.approx(1.53, abs=0.005)


@pytest.mark.parametrize(
    "described", [spec(), spec(channels=2), spectra(), spectra(channels=2)], ids=str
)
def test_fronts_and_channels_keep_the_contract(described: Spec) -> None:
    model = make(described, **TINY)
    checks.check_contract(model, (described.channels, *described.frame_shape), lookahead=0)


def test_the_receptive_field_is_what_reaches_the_output() -> None:
    model = make(spec(), **TINY)
    assert model.receptive_field == 1 + 2 * (1 + 2 + 4)
    x = torch.randn(1, 60, 1, 16, requires_grad=True)
    state = model.initial_state(1)
    # Statistics that have seen very much hardly move: what is left is the convolutions' reach.
    state["weight"] += 1e18
    state["statistics"][..., 1::2] += 1.0
    y, _ = model(x, state)
    (gradient,) = torch.autograd.grad(y[:, -1].square().sum(), x)
    reach = gradient.abs().amax(dim=(0, 2, 3))
    assert int((reach > 1e-12 * reach.max()).sum()) == model.receptive_field
    assert float(reach[-model.receptive_field]) > 1e-12 * float(reach.max())


@given(chunks=st.lists(st.integers(1, 700), min_size=1, max_size=5), seed=st.integers(0, 9))
@cases(6)
def test_any_chunking_gives_the_same(chunks: list[int], seed: int) -> None:
    x = torch.randn(2, 900, 1, 16, generator=torch.Generator().manual_seed(seed))
    checks.check_chunking(make(spec(), **TINY), x, chunks)


@pytest.mark.parametrize(
    "chunk", [*(pytest.param(n, marks=pytest.mark.soak) for n in (1, 2, 8)), 3]
)
def test_every_chunk_gives_a_graph_that_equals_the_module(chunk: int) -> None:
    bundle = export(make(spec(chunk), **TINY), spec(chunk), TEXTS)
    state = bundle.states["state.blocks.2.past"]  # dilation 4: frames 4 and 8 back
    assert sorted(state.inputs) == {1: [4, 8], 2: [2, 4], 3: [1, 2, 3]}.get(chunk, [1])
    assert state.shape == (chunk, 12)


@pytest.mark.parametrize(
    ("described", "options"),
    [
        pytest.param(spec(channels=2), {}, marks=pytest.mark.soak),
        (replace(spectra(2), lookahead=3), {"floor": 0.25, "repeats": 2, "units": 2, "stride": 5}),
    ],
    ids=str,
)
def test_other_fronts_and_options_give_graphs_that_equal_the_module(
    described: Spec, options: dict[str, float]
) -> None:
    """With lookahead and memory; for samples, tests/models/test_keptvoice.py exports both."""
    bundle = export(make(described, **TINY | {"blocks": 1} | options), described, TEXTS)
    assert bundle.spec == described


def test_masks_of_spectra_are_complex_factors_that_add_up_to_one() -> None:
    model = make(spectra(sources=("a", "b", "c")), **TINY)
    x, masks = torch.randn(1, 3, 1, 2, 257), torch.randn(1, 3, 2 * 1 * 2 * 257)
    y = model.domain.separate(masks, x, x)
    pair = masks.unflatten(2, (2, 1, 2, 257)).numpy()
    factor = pair[:, :, :, :, 0] + 1j * pair[:, :, :, :, 1]
    expected = factor * (x[:, :, :, 0] + 1j * x[:, :, :, 1]).numpy()[:, :, None]
    np.testing.assert_allclose(y[:, :, :2, :, 0].numpy(), expected.real, atol=1e-5)
    np.testing.assert_allclose(y[:, :, :2, :, 1].numpy(), expected.imag, atol=1e-5)
    np.testing.assert_allclose(y.sum(dim=2).numpy(), x.numpy(), atol=1e-5)


def test_a_floor_leaves_a_share_of_the_mixture_but_for_training() -> None:
    described = spectra()
    plain, floored = make(described, **TINY), make(described, **TINY, floor=0.25)
    x, masks = torch.randn(1, 3, 1, 2, 257), torch.randn(1, 3, 2 * 257)
    y = plain.domain.separate(masks, x, x)
    assert torch.equal(floored.train().domain.separate(masks, x, x), y)
    less = floored.eval().domain.separate(masks, x, x)
    torch.testing.assert_close(less[:, :, 0], 0.75 * y[:, :, 0] + 0.25 * x)
    torch.testing.assert_close(less.sum(dim=2), x)
    with pytest.raises(ValueError, match="from 0 to below 1"):
        make(described, **TINY, floor=1.0)
    with pytest.raises(ValueError, match="for spectra"):
        make(spec(), **TINY, floor=0.1)
    with pytest.raises(ValueError, match="no norm 'batch'"):
        make(spec(), **TINY, norm="batch")


def test_streams_may_be_of_different_age() -> None:
    model = make(spec(), **TINY)
    x = torch.randn(2, 50, 1, 16)
    old, state = model(x[:1], model.initial_state(1))
    leaves = [flatten(s) for s in (state, model.initial_state(1))]
    both = {name: torch.cat([leaf[name] for leaf in leaves]) for name in leaves[0]}
    together, _ = model(x.flip(0), unflatten(both))
    continued, _ = model(x[1:], state)
    fresh, _ = model(x[:1], model.initial_state(1))
    assert torch.allclose(together[:1], continued, atol=1e-5)
    assert torch.allclose(together[1:], fresh, atol=1e-5) and torch.equal(fresh, old)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": "huge"}, "unknown size 'huge'; there are: full, half, small"),
        ({"colour": 1}, "colour"),
    ],
)
def test_impossible_options_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build("convtasnet", spec(), change)


def test_memory_reaches_further_than_the_convolutions() -> None:
    model = make(spec(), **TINY | {"repeats": 3, "units": 4, "stride": 5})
    checks.check_contract(model, (1, 16), lookahead=0)
    x = torch.randn(1, 60, 1, 16, requires_grad=True)
    state = model.initial_state(1)
    state["weight"] += 1e18  # as above
    state["statistics"][..., 1::2] += 1.0
    y, _ = model(x, state)
    (gradient,) = torch.autograd.grad(y[0, 50].square().sum(), x)
    assert gradient[0, : 50 - model.receptive_field].abs().amax(dim=(1, 2)).gt(0).all()


@pytest.mark.parametrize("described", [spec(), spectra()], ids=str)
def test_masks_of_a_frame_are_made_from_later_ones(described: Spec) -> None:
    model = make(replace(described, lookahead=3), **TINY)
    checks.check_contract(model, (1, *described.frame_shape), lookahead=3)
    x = torch.randn(1, 30, 1, *described.frame_shape)
    y, _ = model(x, model.initial_state(1))
    assert torch.allclose(y.sum(dim=2)[:, 3:], x[:, :-3], atol=1e-5)


def test_windows_of_the_filterbank_reconstruct() -> None:
    """The engine's overlap-add halves what the decoder gives for two overlapping windows."""
    front = Frontend(spec())
    assert torch.equal(front.analysis, torch.ones(16))
    assert torch.equal(front.synthesis, torch.full((16,), 0.5))


def trained(described: Spec) -> ConvTasNet:
    """Train a small network with the synthetic voices."""
    sizes = {"filters": 48, "bottleneck": 16, "hidden": 32, "skip": 16, "blocks": 6, "repeats": 1}
    model, front, steps = make(described, **sizes), Frontend(described), 70
    optimizer = torch.optim.Adam(model.parameters())
    mixture, sources = (torch.from_numpy(x) for x in mixtures(48, 2000, 8000, seed=1))
    for step in range(steps):
        rate = 5e-3 * min(1, (step + 1) / 10) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate
        batch = torch.arange(4 * step, 4 * step + 4) % len(mixture)
        loss = negative_snr(separate(model, front, mixture[batch]), sources[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return model.eval()


def test_it_learns_and_does_not_mind_where_its_windows_start() -> None:
    """The shift test of the paper: an input that begins some samples later is separated alike."""
    described = spec(chunk=8)
    model, front = trained(described), Frontend(described)
    mixture, sources = (x[0] for x in mixtures(1, 16000, 8000, seed=99))

    def scores(start: int) -> np.ndarray:
        with torch.no_grad():
            y = separate(model, front, torch.from_numpy(mixture[None, start:]))[0].numpy()
        return np.array([si_sdr_db(y[:, i, 0], sources[start:, i, 0]) for i in range(2)])

    before = np.array([si_sdr_db(mixture[:, 0], sources[:, i, 0]) for i in range(2)])
    unshifted = scores(0)
    assert np.mean(unshifted - before) > 2.0
    for shift in (1, 4, 7):
        shifted = scores(shift)
        assert np.all(np.abs(shifted - unshifted) < 0.5), shift
