"""The dilated network: the paper's figures, its lookahead, and attractors that stay where they are.

The last tests train a small one from scratch.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rtsep.evaluate.metrics import si_sdr_db
from rtsep.models import build, dilated
from rtsep.models.attractors import Attractors
from rtsep.models.dilated import DILATIONS, LOOKAHEAD, Dilated
from rtsep.nn import checks
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.onnx import export
from rtsep.spec import Spec
from rtsep.train.losses import EMBEDDINGS, named
from tests.support.random_cases import cases
from tests.support.voices import mixtures

TEXTS = {"name": "t", "model": "m", "training": "none", "licence": "MIT", "quality": "none"}
RATE = 8000


def spec(lookahead: int = 0, channels: int = 1, sources: int = 2, chunk: int = 1) -> Spec:
    names = ("low", "high", "rest")[:sources]
    return Spec(RATE, channels, "stft", "hann", 256, 64, chunk, lookahead, names)


def network(stream: Spec, size: str = "small", **options: int) -> Dilated:
    """With random weights, and statistics that differ from those at birth."""
    torch.manual_seed(0)
    model = build("dilated", stream, {"size": size, **options})
    assert isinstance(model, Dilated)
    model(spectra(2, 20, stream.channels), model.initial_state(2))
    return model.eval()


def spectra(streams: int, frames: int, channels: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(streams, frames, channels, 2, 129, generator=generator)


def weights(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("lookahead", [0, 127])
def test_full_network_has_the_papers_weights(lookahead: int) -> None:
    full = build("dilated", spec(lookahead), {})
    assert weights(full) == pytest.approx(1.65e6, abs=0.02e6)
    assert weights(full) == weights(build("dilated", spec(5), {}))
    assert (len(DILATIONS), LOOKAHEAD) == (13, 127)


def test_smaller_networks_are_as_declared() -> None:
    assert weights(build("dilated", spec(), {"size": "half"})) < 0.26 * 1.65e6
    assert weights(build("dilated", spec(), {"size": "half", "features": 16})) < 40e3


@pytest.mark.parametrize(
    "lookahead", [0, 5, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 64, 127))]
)
def test_contract_and_lookahead(lookahead: int) -> None:
    stream = spec(lookahead)
    checks.check_contract(network(stream, features=4), (1, 2, 129), lookahead)


@pytest.mark.parametrize(("channels", "sources"), [(1, 3), (2, 2)])
def test_contract_of_more_channels_and_sources(channels: int, sources: int) -> None:
    stream = spec(3, channels, sources)
    checks.check_contract(network(stream, features=4), (channels, 2, 129), 3)


@given(
    chunks=st.lists(st.integers(1, 80), min_size=1, max_size=8),
    lookahead=st.sampled_from([0, 1, 40]),
    sources=st.sampled_from([2, 3]),
)
@cases(8)
def test_any_chunking_gives_the_same(chunks: list[int], lookahead: int, sources: int) -> None:
    model = network(spec(lookahead, sources=sources), features=4)
    checks.check_chunking(model, spectra(1, 120), chunks)


@pytest.mark.parametrize(("lookahead", "spent"), [(0, 0), (7, 3), (31, 5), (126, 12), (127, 13)])
def test_lookahead_is_spent_on_the_first_layers_and_residuals_wait(
    lookahead: int, spent: int
) -> None:
    """Layers that read one frame only, the one they belong to, give embeddings of one frame."""
    model = network(spec(lookahead))
    for i, layer in enumerate(model.layers):
        layer.bias.data.fill_(1.0)  # no unit is dead
        tap = 1 if i < spent else 2
        kept = layer.weight.data[:, :, tap].clone()
        layer.weight.data.zero_()
        layer.weight.data[:, :, tap] = kept
    assert frames_read(model, 280) == [280 - lookahead]


@pytest.mark.parametrize("lookahead", [0, 127])
def test_layers_reach_two_dilations_back(lookahead: int) -> None:
    read = frames_read(network(spec(lookahead)), 280)
    assert read == list(range(280 - 2 * LOOKAHEAD, 281))


def frames_read(model: Dilated, frame: int) -> list[int]:
    """Which mixture frames an embedding depends on, but for the running level."""
    model.level.forward = lambda x, state: (torch.ones_like(x), state)  # type: ignore[method-assign]
    x = spectra(1, frame + 20).requires_grad_()
    embeddings, _, _ = model.embed(x, model.initial_state(1))
    (gradient,) = torch.autograd.grad(embeddings[:, frame].square().sum(), x)
    read: list[int] = torch.nonzero(gradient.abs().amax(dim=(0, 2, 3, 4)))[:, 0].tolist()
    return read


def test_live_products_equal_the_convolution() -> None:
    model = network(spec())
    for layer in model.layers:
        inputs = layer.weight.shape[1]
        x = torch.randn(2, 4, 128, inputs)
        past = {"past": torch.randn(2, 2 * layer.dilation, 128, inputs)}
        live, after = layer(x, past)
        layer.FEW = 0
        direct, after_direct = layer(x, past)
        assert torch.allclose(live, direct, atol=1e-5)
        assert torch.equal(after["past"], after_direct["past"])


@pytest.mark.parametrize(
    ("lookahead", "bins", "said"),
    [
        (-1, 129, "lookahead must be 0 to 127 frames, not -1"),
        (128, 129, "lookahead must be 0 to 127 frames, not 128"),
        (0, 161, "window_length must be a multiple of 128, not 320"),
    ],
)
def test_impossible_figures_are_refused(lookahead: int, bins: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Dilated(bins, 2, lookahead=lookahead, features=4)


def test_masks_share_out_the_whole_mixture_and_quiet_is_as_loud() -> None:
    model = network(spec(2, sources=3))
    x = 10 * spectra(1, 60)
    with torch.no_grad():
        y, _ = model(x, model.initial_state(1))
        quiet, _ = model(0.01 * x, model.initial_state(1))
    assert torch.allclose(y.sum(dim=2)[:, 2:], x[:, :-2], atol=1e-4)
    assert torch.allclose(100 * quiet, y, atol=0.02 * float(y.abs().max()))


@pytest.mark.parametrize(
    ("lookahead", "channels", "sources", "chunk"),
    [
        pytest.param(0, 1, 2, 1, marks=pytest.mark.soak),
        (5, 2, 3, 1),
        pytest.param(127, 1, 2, 3, marks=pytest.mark.soak),
    ],
)
def test_bundle_equals_the_module(
    lookahead: int, channels: int, sources: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``export`` proves it; here is what the graph is made of. Five layers where they suffice."""
    layers = DILATIONS if lookahead > 10 else (1, 2, 4, 2, 1)
    monkeypatch.setattr(dilated, "DILATIONS", layers)
    stream = spec(lookahead, channels, sources, chunk)
    bundle = export(network(stream, features=8), stream, TEXTS)
    assert bundle.spec == stream
    for i, dilation in enumerate(layers):
        calls = bundle.states[f"state.layer{i}.past"].inputs
        assert max(calls) == -(-2 * dilation // chunk)  # a ring outside the graph, nothing copied


# Attractors alone


def clusters(streams: int, frames: int, seed: int = 0) -> Tensor:
    """Embeddings (streams, frames, 128, 4) around two points, bin by bin in turn."""
    generator = torch.Generator().manual_seed(seed)
    around = 0.3 * torch.randn(streams, frames, 128, 4, generator=generator)
    around[:, :, ::2, 0] += 3.0
    around[:, :, 1::2, 0] -= 3.0
    return around


def attractors(anchor: float = 200.0, memory: float = 2000.0) -> Attractors:
    made = Attractors(2, 4, anchor, memory)
    made.anchors.data = torch.tensor([[1.0, 0.5, 0.0, 0.0], [-1.0, 0.5, 0.0, 0.0]])
    return made


@torch.no_grad()
def test_attractors_find_their_clusters_and_anchors_keep_a_share() -> None:
    made = attractors()
    assert torch.allclose(made.attractors(made.initial_state(1)["sums"])[0], made.anchors)
    _, state = made(clusters(1, 200), torch.ones(1, 200, 128), made.initial_state(1))
    centres = torch.tensor([[3.0, 0, 0, 0], [-3.0, 0, 0, 0]])
    share = 200.0 / 2200.0
    expected = share * made.anchors + (1 - share) * centres
    assert torch.allclose(made.attractors(state["sums"])[0], expected, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("frames", [3, 300])
def test_silence_keeps_attractors(frames: int) -> None:
    """Below the memory's limit and at it, whatever the embeddings of silence are."""
    made = attractors()
    _, state = made(clusters(1, frames), torch.ones(1, frames, 128), made.initial_state(1))
    _, after = made(clusters(1, 1000, seed=1), torch.zeros(1, 1000, 128), state)
    assert torch.allclose(after["sums"], state["sums"], rtol=1e-6, atol=0)


@torch.no_grad()
def test_a_silent_source_keeps_its_attractor_while_the_other_sounds() -> None:
    made = attractors()
    x, loudness = clusters(1, 100), torch.ones(1, 100, 128)
    _, state = made(x, loudness, made.initial_state(1))
    loudness[:, :, 1::2] = 0.0
    for _ in range(20):
        _, after = made(x, loudness, state)
    before, now = made.attractors(state["sums"]), made.attractors(after["sums"])
    assert torch.allclose(now[:, 1], before[:, 1], atol=0.01)


@torch.no_grad()
def test_attractors_are_precise_after_an_hour() -> None:
    """At its limit the memory neither grows nor rounds away what is new: as in double precision."""
    made = attractors()
    exact = attractors().double()
    x, loudness = clusters(1, 500, seed=2), torch.rand(1, 500, 128)
    sums = torch.tensor([[[-6e3, 0, 0, 0, 2e3], [6e3, 0, 0, 0, 2e3]]])  # far from where x is
    state = {"sums": sums}
    reference = {"sums": sums.double()}
    for _ in range(4):
        masks, state = made(x, loudness, state)
        expected, reference = exact(x.double(), loudness.double(), reference)
    assert torch.allclose(masks.double(), expected, atol=1e-4)
    assert torch.allclose(state["sums"].double(), reference["sums"], rtol=1e-4, atol=1e-2)
    assert torch.allclose(state["sums"][..., -1], torch.tensor(2000.0), rtol=1e-5)


@torch.no_grad()
def test_loss_is_zero_for_disjoint_clusters_in_any_order_and_large_for_one_cluster() -> None:
    made = attractors()
    mixture = spectra(1, 30)[..., :-1]
    owner = (torch.arange(128) % 2 == torch.arange(2)[:, None]).float()
    targets = owner[None, None, :, None, None] * mixture.unsqueeze(2)
    loudness = torch.ones(1, 30, 128)
    x = 3 * clusters(1, 30)
    assert float(made.loss(x, loudness, mixture, targets)) < 0.02
    assert float(made.loss(x, loudness, mixture, targets.flip(2))) < 0.02
    assert float(made.loss(0 * x, loudness, mixture, targets)) > 1.0


@torch.no_grad()
def test_a_source_of_another_kind_changes_no_place() -> None:
    made = Attractors(3, 4)
    made.anchors.data = torch.eye(3, 4)
    mixture = spectra(1, 30)[..., :-1]
    owner = (torch.arange(128) % 3 == torch.arange(3)[:, None]).float()
    targets = owner[None, None, :, None, None] * mixture.unsqueeze(2)
    x, loudness = 9 * torch.eye(3, 4)[torch.arange(128) % 3].expand(1, 30, -1, -1), owner.sum(0)

    def loss(order: list[int]) -> float:
        orders = [[0, 1, 2], [1, 0, 2]]
        found = targets[:, :, order]
        return float(made.loss(x, loudness.expand(1, 30, -1), mixture, found, orders))

    assert loss([1, 0, 2]) == pytest.approx(loss([0, 1, 2]), abs=1e-3)
    assert loss([0, 1, 2]) < 0.1 < 1.0 < loss([2, 1, 0])


@pytest.mark.parametrize("name", ["attractors", "tracked"])
def test_loss_is_for_this_model_only(name: str) -> None:
    stream = spec()
    other, x = build("chandna", stream, {}), torch.zeros(1, 640, 1)
    with pytest.raises(ValueError, match=f"loss '{name}' is for model 'dilated'"):
        named(name)(other, Frontend(stream), x, torch.zeros(1, 640, 2, 1))


@pytest.mark.parametrize("lookahead", [0, 3])
def test_tracked_is_the_loss_of_what_comes_out_and_of_the_embeddings(lookahead: int) -> None:
    stream = spec(lookahead)
    model, frontend = network(stream, features=4), Frontend(stream)
    mixture, target = map(torch.from_numpy, mixtures(2, RATE, RATE, seed=0))
    for sound in (mixture, target):
        sound[:, -800:] = 0.0  # the two losses need not pad the end alike
    parts = {name: named(name)(model, frontend, mixture, target) for name in ("pit", "attractors")}
    found = named("tracked")(model, frontend, mixture, target)
    expected = parts["pit"] + EMBEDDINGS * parts["attractors"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    found.backward()
    gradient = model.attractors.anchors.grad
    assert gradient is not None and gradient.abs().min() > 0


# A network trained here, in `make soak`; each fault that it would show has a test above.


@pytest.fixture(scope="module")
def trained() -> Dilated:
    """A small network after four minutes of synthetic voices."""
    torch.manual_seed(0)
    steps, learning_rate = 120, 5e-3
    stream = spec()
    model = build("dilated", stream, {"size": "small"})
    frontend, loss = Frontend(stream), named("attractors")
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in range(steps):
        mixture, target = map(torch.from_numpy, mixtures(2, RATE, RATE, seed=step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min((step + 1) / 10, (1 - step / steps) ** 0.5)
        value = loss(model, frontend, mixture, target)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    assert isinstance(model, Dilated)
    return model.eval()


def heard(estimates: Tensor, sources: Tensor) -> tuple[list[int], list[float]]:
    """Which source each output is, and its SI-SDR improvement in dB; (samples, sources, 1) both."""
    mixture = sources.sum(dim=1)[:, 0].numpy()
    correlation = torch.nn.functional.normalize(estimates[:, :, 0], dim=0).T @ (
        torch.nn.functional.normalize(sources[:, :, 0], dim=0)
    )
    order = correlation.argmax(dim=1).tolist()
    return order, [
        si_sdr_db(estimates[:, i, 0].numpy(), sources[:, j, 0].numpy())
        - si_sdr_db(mixture, sources[:, j, 0].numpy())
        for i, j in enumerate(order)
    ]


@torch.no_grad()
@pytest.mark.soak
@pytest.mark.parametrize("seed", [1000, 1001, 1002])
def test_voices_do_not_swap_after_a_tone_and_silence(trained: Dilated, seed: int) -> None:
    _, pairs = mixtures(1, 8 * RATE, RATE, seed)
    voices = torch.from_numpy(pairs)[0]
    tone = torch.zeros(2 * RATE, 2, 1)
    tone[:, 0, 0] = 0.1 * torch.sin(2 * np.pi * 1000 / RATE * torch.arange(2 * RATE))
    silence = torch.zeros(2 * RATE, 2, 1)
    sources = torch.cat([voices[: 4 * RATE], tone, silence, voices[4 * RATE :]])
    y = separate(trained, Frontend(spec()), sources.sum(dim=1)[None])[0]
    before, improved = heard(y[: 4 * RATE], sources[: 4 * RATE])
    after, improved_after = heard(y[8 * RATE :], sources[8 * RATE :])
    assert sorted(before) == [0, 1]
    assert after == before
    assert min(improved + improved_after) > 4.0


@torch.no_grad()
@pytest.mark.soak
def test_a_voice_comes_back_to_its_output_after_half_a_minute(trained: Dilated) -> None:
    _, pairs = mixtures(1, 40 * RATE, RATE, seed=1010)
    sources = torch.from_numpy(pairs)[0]
    sources[4 * RATE : 36 * RATE, 1] = 0.0
    y = separate(trained, Frontend(spec()), sources.sum(dim=1)[None])[0]
    before, _ = heard(y[: 4 * RATE], sources[: 4 * RATE])
    after, improved = heard(y[36 * RATE :], sources[36 * RATE :])
    assert sorted(before) == [0, 1]
    assert after == before
    assert min(improved) > 2.0
