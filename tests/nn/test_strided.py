"""Strided layers: any chunking gives the same, they are the convolutions of torch, and on time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtsep.models import build
from rtsep.nn import checks
from rtsep.nn.frequency import Frequency, FrequencyTransposed
from rtsep.nn.samples import Doubled, Strided, StridedTransposed
from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec


def of_frequency(kind: type[Frequency]) -> Frequency:
    torch.manual_seed(0)
    return kind(3, 4, 16, taps=3, width=5, stride=2)


@pytest.mark.parametrize("kind", [Frequency, FrequencyTransposed])
def test_any_chunking_of_a_layer_over_frequency_gives_the_same(kind: type[Frequency]) -> None:
    layer, x = of_frequency(kind), torch.randn(2, 40, 3, 16)
    checks.check_state(layer)
    checks.check_chunking(layer, x, [1, 7, 2])
    checks.check_causality(layer, x, 20, 0)


def test_layers_over_frequency_halve_and_double_the_bins() -> None:
    layer, x = of_frequency(Frequency), torch.randn(1, 9, 3, 16)
    y, _ = layer(x, layer.initial_state(1))
    padded = F.pad(x.transpose(1, 2), (2, 2, 2, 0))  # bins on both sides, frames before
    expected = F.conv2d(padded, layer.conv.weight, layer.conv.bias, (1, 2)).transpose(1, 2)
    torch.testing.assert_close(y, expected)
    back = of_frequency(FrequencyTransposed)
    assert y.shape == (1, 9, 4, 8)
    assert back(x, back.initial_state(1))[0].shape == (1, 9, 4, 32)


STRIDED = {
    "conv": (Strided(3, 4, 7, 2), 0.5),
    "conv of stride 1": (Strided(3, 4, 5), 1.0),
    "conv of disjoint inputs": (Strided(3, 4, 2, 2), 0.5),
    "transposed": (StridedTransposed(3, 4, 8, 4), 4.0),
    "transposed, odd": (StridedTransposed(3, 4, 7, 2), 2.0),
    "doubled": (Doubled(3), 2.0),
}


def run(layer: Streaming, x: Tensor, sizes: list[int]) -> Tensor:
    parts, state = [], layer.initial_state(x.shape[0])
    for part in x.split(sizes, dim=2):
        y, state = layer(part, state)
        parts.append(y)
    return torch.cat(parts, dim=2)


@torch.no_grad()
@pytest.mark.parametrize("name", STRIDED)
def test_any_chunking_of_a_layer_over_samples_gives_the_same(name: str) -> None:
    layer, ratio = STRIDED[name]
    x = torch.randn(2, 3, 40)
    whole = run(layer, x, [40])
    assert whole.shape[2] == 40 * ratio
    checks.check_state(layer)
    torch.testing.assert_close(run(layer, x, [2, 8, 30]), whole)
    # Nothing is read from later than the end of a chunk.
    torch.testing.assert_close(run(layer, x[:, :, :10], [10]), whole[:, :, : int(10 * ratio)])


@torch.no_grad()
def test_a_transposed_convolution_starts_at_its_input() -> None:
    layer = StridedTransposed(1, 1, 7, 2)
    x = torch.zeros(1, 1, 8)
    x[..., 2] = 1.0
    expected = torch.zeros(16)
    expected[4:11] = layer.conv.weight.flatten()
    torch.testing.assert_close(run(layer, x, [8]).flatten(), expected)


def test_interpolation_lies_between_neighbours() -> None:
    x = torch.tensor([[[2.0, 4.0, 0.0]]])
    assert run(Doubled(1), x, [3]).flatten().tolist() == [1.0, 2.0, 3.0, 4.0, 2.0, 0.0]


@pytest.mark.parametrize(("name", "stride"), [("demucs", 1024), ("waveunet", 4096)])
def test_frames_other_than_blocks_of_the_stride_are_refused(name: str, stride: int) -> None:
    for window, hop in ((stride, stride // 2), (stride // 2, stride // 2)):
        spec = Spec(16000, 1, "waveform", "rectangular", window, hop, 1, 0, ("a", "b"))
        with pytest.raises(ValueError, match=f"{name} works on blocks of .* multiple of {stride}"):
            build(name, spec, {})
    with pytest.raises(ValueError, match=f"{name} works on blocks of samples: .* not 'stft'"):
        build(name, Spec(16000, 1, "stft", "hann", 512, 128, 1, 0, ("a", "b")), {})
    late = Spec(16000, 1, "waveform", "rectangular", stride, stride, 1, 2, ("a", "b"))
    with pytest.raises(ValueError, match=f"{name} looks at no later frames: lookahead 2, not 0"):
        build(name, late, {})


@pytest.mark.parametrize("name", ["unet", "complexunet"])
def test_windows_that_cannot_be_halved_are_refused(name: str) -> None:
    spec = Spec(16000, 1, "stft", "hann", 500, 125, 1, 0, ("a", "b"))
    with pytest.raises(ValueError, match="window_length must be a multiple of"):
        build(name, spec, {})


def test_the_complex_mask_amplifies_nothing() -> None:
    spec = Spec(8000, 1, "stft", "hann", 128, 64, 1, 0, ("a", "b"))
    torch.manual_seed(0)
    model = build("complexunet", spec, {"size": "small"})
    x = torch.randn(1, 20, 1, 2, 65)
    y, _ = model(x, model.initial_state(1))
    torch.testing.assert_close(y.sum(dim=2), x)
    assert (y[:, :, 0].square().sum(dim=3) <= 1.0001 * x.square().sum(dim=3)).all()
