"""The streaming contract, and that its checks catch what breaks it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import ContractError
from rtsep.models import build
from rtsep.models.chandna import Chandna
from rtsep.nn import checks
from rtsep.nn.layers import CausalConv, Delay, ForgettingMean
from rtsep.nn.masks import shares_of
from rtsep.nn.streaming import State, Streaming, flatten, unflatten
from rtsep.spec import Spec
from tests.support.random_cases import cases

SPEECH = {"bins": 257, "sources": 2, "compression": 0.3, "level_frames": 125.0}
MUSIC = {"bins": 513, "sources": 4}


def music(lookahead: int = 0, channels: int = 1) -> Chandna:
    torch.manual_seed(0)
    return Chandna(**MUSIC, lookahead=lookahead, channels=channels).eval()


def speech(lookahead: int = 0) -> Chandna:
    torch.manual_seed(0)
    return Chandna(**SPEECH, lookahead=lookahead).eval()


@pytest.mark.parametrize("lookahead", [0, 4, 8, 29])
def test_speech_network_keeps_the_contract(lookahead: int) -> None:
    checks.check_contract(speech(lookahead), (1, 2, 257), lookahead)


@pytest.mark.parametrize("lookahead", [0, 4, 11, 29])
@pytest.mark.parametrize("channels", [1, 2])
def test_music_network_keeps_the_contract(lookahead: int, channels: int) -> None:
    checks.check_contract(music(lookahead, channels), (channels, 2, 513), lookahead)


LAYERS = {
    "conv": (CausalConv(3, 4, 5), (3,)),
    "conv of one tap": (CausalConv(3, 4, 1), (3,)),
    "delay": (Delay(7, (3, 2)), (3, 2)),
    "no delay": (Delay(0, (3, 2)), (3, 2)),
    "mean": (ForgettingMean(20.0), ()),
}


@pytest.mark.parametrize("name", LAYERS)
@given(chunks=st.lists(st.integers(1, 150), min_size=1, max_size=6), seed=st.integers(0, 99))
@cases(10)
def test_any_chunking_of_a_layer_gives_the_same(name: str, chunks: list[int], seed: int) -> None:
    layer, shape = LAYERS[name]
    x = torch.randn(2, 200, *shape, generator=torch.Generator().manual_seed(seed)) + 2.0
    checks.check_chunking(layer, x, chunks)
    checks.check_state(layer)


@given(
    chunks=st.lists(st.integers(1, 100), min_size=1, max_size=8),
    lookahead=st.sampled_from([0, 3, 12]),
)
@cases(10)
def test_any_chunking_of_the_network_gives_the_same(chunks: list[int], lookahead: int) -> None:
    x = torch.randn(1, 120, 1, 2, 257, generator=torch.Generator().manual_seed(lookahead))
    checks.check_chunking(speech(lookahead), x, chunks)


def test_convolution_takes_a_single_frame_without_its_time_axis() -> None:
    layer = CausalConv(3, 4, 5)
    x, past = torch.randn(2, 1, 3), torch.randn(2, 12)
    y, following = layer(x, {"past": past})
    flat, flat_following = layer(x[:, 0], {"past": past})
    assert flat.shape == (2, 4)
    assert torch.allclose(flat, y[:, 0], atol=1e-6)
    assert torch.equal(flat_following["past"], following["past"])


def test_mean_is_the_formula_and_right_after_an_hour() -> None:
    layer = ForgettingMean(50.0)
    x = torch.rand(1, 500) + 0.5
    means, _ = layer(x, layer.initial_state(1))
    keep = math.exp(-1 / 50)
    weights = keep ** torch.arange(300, -1, -1, dtype=torch.float64)
    expected = float((weights * x[0, :301]).sum() / weights.sum())
    assert float(means[0, 300]) == pytest.approx(expected, rel=1e-5)
    # An hour later the sums are at their limit: constant input still gives that constant.
    state = {"sums": torch.tensor([[0.7 / (1 - keep), 1 / (1 - keep)]])}
    means, state = layer(torch.full((1, 1000), 0.7), state)
    assert torch.allclose(means, torch.tensor(0.7), rtol=1e-5)


def test_network_has_the_papers_figures() -> None:
    network = music()
    assert network.vertical.weight.shape == (50, 513)
    assert network.horizontal.conv.weight.shape == (30, 50, 12)
    assert network.bottleneck.conv.weight.shape == (128, 30, 30 - 12 + 1)
    state = {
        name: tuple(leaf.shape[1:]) for name, leaf in flatten(network.initial_state(1)).items()
    }
    # 11 frames of vertical and 18 of horizontal features: each frame's are computed once.
    assert state == {"state.horizontal.past": (11 * 50,), "state.bottleneck.past": (18 * 30,)}


@pytest.mark.parametrize(("lookahead", "used"), [(0, 1), (3, 4), (11, 12), (18, 12), (29, 1)])
def test_emitted_frame_is_rebuilt_from_as_many_positions_as_reach_it(
    lookahead: int, used: int
) -> None:
    assert music(lookahead).back.out_features == 4 * used * 30


@pytest.mark.parametrize("lookahead", [-1, 30])
def test_lookahead_outside_the_window_is_refused(lookahead: int) -> None:
    with pytest.raises(ValueError, match=f"lookahead {lookahead} "):
        music(lookahead)


def test_masks_share_out_the_whole_mixture() -> None:
    network = music(lookahead=2)
    x = torch.randn(1, 50, 1, 2, 513)
    y, _ = network(x, network.initial_state(1))
    assert torch.allclose(y.sum(dim=2)[:, 2:], x[:, :-2], atol=1e-5)
    assert not torch.count_nonzero(y[:, :2])


@pytest.mark.parametrize(("lookahead", "merged"), [(0, True), (1, False), (11, False), (29, True)])
def test_masks_are_the_softmax_of_the_way_back(lookahead: int, merged: bool) -> None:
    network = music(lookahead)
    assert network.merged == merged
    bias = torch.randn(4, 1, 50)
    network.horizontal_back.bias.data = bias
    h = torch.randn(4, 7, network.horizontal_back.weight.shape[1])
    between = torch.einsum("srn,snm->srm", h, network.horizontal_back.weight) + bias
    expected = torch.einsum("srn,snm->srm", between, network.vertical_back.weight)
    estimates = network.log_magnitudes(h)
    assert torch.allclose(estimates, expected + network.vertical_back.bias, atol=1e-4)
    for scale in (1.0, 1e4):  # e^10000 is no number
        numerators, total = shares_of(scale * estimates.flatten(1)[None])
        expected = torch.softmax(scale * estimates.flatten(1), dim=0)
        assert torch.allclose((numerators / total)[0, 0], expected, atol=1e-6)


def test_quiet_input_is_separated_like_loud_input() -> None:
    network = speech()
    x = torch.randn(1, 300, 1, 2, 257)
    loud, _ = network(x, network.initial_state(1))
    quiet, _ = network(0.01 * x, network.initial_state(1))
    assert torch.allclose(100 * quiet, loud, atol=0.02 * float(loud.detach().abs().max()))


def test_streams_of_a_batch_do_not_touch() -> None:
    network = speech(4)
    x = torch.randn(3, 80, 1, 2, 257)
    together, _ = network(x, network.initial_state(3))
    alone, _ = network(x[1:2], network.initial_state(1))
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_flatten_and_unflatten_are_inverse() -> None:
    state = {"a": {"past": torch.ones(1, 2)}, "b": torch.zeros(1), "c": {"d": {"e": torch.ones(1)}}}
    leaves = flatten(state)
    assert set(leaves) == {"state.a.past", "state.b", "state.c.d.e"}
    assert flatten(unflatten(leaves)) == leaves


def test_unknown_model_and_option_are_named() -> None:
    spec = Spec(16000, 1, "stft", "hann", 512, 128, 1, 0, ("speech", "noise"))
    with pytest.raises(ValueError, match="unknown model 'nothing'; there are: banded, cdae"):
        build("nothing", spec, {})
    with pytest.raises(ValueError, match="colour"):
        build("chandna", spec, {"colour": 1})
    with pytest.raises(ValueError, match="unknown size 'huge'; there are: music, speech"):
        build("chandna", spec, {"size": "huge"})


@pytest.mark.parametrize(
    "name", ["cdae", "chandna", "clustering", "complexunet", "dilated", "unet"]
)
def test_samples_are_refused_where_spectra_are_masked(name: str) -> None:
    spec = Spec(8000, 1, "waveform", "rectangular", 256, 64, 1, 0, ("a", "b"))
    with pytest.raises(ValueError, match=f"{name} works on spectra: .*'stft', not 'waveform'"):
        build(name, spec, {})


class _Faulty(Streaming):
    """A one-tap model with one fault of choice."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.gain = torch.nn.Parameter(torch.ones(()))

    def initial_state(self, streams: int) -> State:
        value = 1.0 if self.fault == "not zero" else 0.0
        dtype = torch.float64 if self.fault == "double" else torch.float32
        return {"past": torch.full((streams, 1, 4), value, dtype=dtype)}

    def forward(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        past = x[:, -1:]
        y = self.gain * x
        if self.fault == "peeks":
            y = y + torch.roll(x, -1, dims=1)
        if self.fault == "in place":
            state["past"].add_(1.0)
        if self.fault == "forgets":
            y = y + torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
        if self.fault == "silence":
            y = y / y.abs().sum()
        if self.fault == "mute":
            y = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1] * self.gain
        if self.fault == "grows":
            past = torch.cat([state["past"], past], dim=1)
        return y, {"past": past}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("not zero", "initial value of .* is not zero"),
        ("double", "float64"),
        ("in place", "changed in place"),
        ("forgets", "change the output"),
        ("grows", "depends on|changes its shape"),
    ],
)
def test_checks_catch_a_broken_contract(fault: str, said: str) -> None:
    x = torch.randn(2, 40, 4)
    with pytest.raises(ContractError, match=said):
        checks.check_state(_Faulty(fault))
        checks.check_chunking(_Faulty(fault), x, [3, 5])


def test_checks_catch_a_look_into_the_future() -> None:
    x = torch.randn(2, 40, 4)
    with pytest.raises(ContractError, match="depends on 1 frames beyond"):
        checks.check_causality(_Faulty("peeks"), x, frame=20, lookahead=0)
    with pytest.raises(ContractError, match="does not depend on frame 20"):
        checks.check_causality(_Faulty("mute"), x, frame=20, lookahead=0)


def test_checks_catch_nan_on_silence() -> None:
    with pytest.raises(ContractError, match="the output becomes NaN or Inf for silence"):
        checks.check_health(_Faulty("silence"), (4,))


def test_a_sound_model_passes() -> None:
    checks.check_contract(_Faulty("none"), (4,), 0)
