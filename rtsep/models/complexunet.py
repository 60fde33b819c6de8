"""Complex U-Net of Choi et al., with a bounded complex mask.

H.-S. Choi, J.-H. Kim, J. Huh, A. Kim, J.-W. Ha, K. Lee, "Phase-Aware Speech Enhancement with Deep
Complex U-Net", ICLR 2019, arXiv 1903.03107.

A U-Net of complex convolutions reads the spectrum and yields, for every source but the last, a
complex mask whose magnitude is a tanh, so it turns the phase but amplifies nothing; the last source
is the rest of the mixture. The norms are those of real and imaginary parts, without the correlation
between both. The highest bin goes to the last source.

Causality: strides are along frequency only and the kernels read past frames, so no frame is waited
for. With the paper's strides along time, output would come 16 frames at once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rtsep.nn.frequency import Frequency, FrequencyTransposed
from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Delay, initial_states
from rtsep.nn.masks import EPSILON, compressed, multiply
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Choi, Kim, Huh, Kim, Ha, Lee: Phase-Aware Speech Enhancement with Deep Complex U-Net, "
    "ICLR 2019"
)
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "full": {
        "filters": (32, 64, 64, 64, 64),
        "taps": (5, 5, 3, 3, 3),
        "widths": (7, 7, 5, 5, 5),
    },
    "small": {"filters": (6, 12, 12, 12), "taps": (3, 3, 3, 3), "widths": (5, 5, 5, 5)},
}
"""The network of ten layers of the paper, and one for speech on a laptop."""

STRIDE = 2
"""Stride along frequency."""


def build(spec: Spec, **options: Any) -> ComplexUNet:
    """Build the network for the frames of ``spec``, with the options of `ComplexUNet`."""
    sizes: dict[str, Any] = of_spectra("complexunet", spec)
    return ComplexUNet(**sizes, **options)


class ComplexUNet(Streaming):
    """Maps spectra of the mixture to spectra of the sources.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, sources, channels, 2, bins).
    All channels are read jointly.

    Parameters
    ----------
    bins, sources, channels, lookahead
        Sizes of the frames.
    filters, taps, widths
        Complex filters of each layer on the way down, and frames and bins of its kernel.

    Raises
    ------
    ValueError
        The options are not of as many layers, or the bins cannot be halved in each.
    """

    def __init__(
        self,
        bins: int,
        sources: int,
        channels: int = 1,
        lookahead: int = 0,
        filters: tuple[int, ...] = (32, 64, 64, 64, 64),
        taps: tuple[int, ...] = (5, 5, 3, 3, 3),
        widths: tuple[int, ...] = (7, 7, 5, 5, 5),
    ) -> None:
        levels = len(filters)
        if not levels == len(taps) == len(widths):
            raise ValueError(f"filters, taps, widths must be of as many layers: {filters}, {taps}")
        if (bins - 1) % STRIDE**levels:
            raise ValueError(
                f"window_length must be a multiple of {2 * STRIDE**levels}, not {2 * (bins - 1)}"
            )
        super().__init__()
        self.sources, self.channels = sources, channels
        down = [channels, *filters]
        up = [*reversed(filters), (sources - 1) * channels]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (inputs, outputs) in enumerate(pairwise(down)):
            size = (bins - 1) // STRIDE**i
            self.down.append(_Complex(Frequency, inputs, outputs, size, taps[i], widths[i]))
        for i, (inputs, outputs) in enumerate(pairwise(up)):
            k, both = levels - 1 - i, inputs * (2 if i else 1)
            size = (bins - 1) // STRIDE ** (k + 1)
            last = k == 0
            self.up.append(
                _Complex(FrequencyTransposed, both, outputs, size, taps[k], widths[k], last)
            )
        self.delay = Delay(lookahead, (channels, 2, bins))

    def initial_state(self, streams: int) -> State:
        """Return zeros for the past frames of all layers, and for the delayed mixture."""
        return {
            "down": initial_states(self.down, streams),
            "up": initial_states(self.up, streams),
            "delay": self.delay.initial_state(streams),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``."""
        after: State = {"down": {}, "up": {}}
        h, skips = compressed(x)[0][..., :-1].transpose(2, 3), []
        for i, layer in enumerate(self.down):
            h, after["down"][str(i)] = layer(h, state["down"][str(i)])
            skips.append(h)
        for i, layer in enumerate(self.up):
            if i:
                h = torch.cat([h, skips[-1 - i]], dim=3)
            h, after["up"][str(i)] = layer(h, state["up"][str(i)])
        masks = h.unflatten(3, (self.sources - 1, self.channels)).permute(0, 1, 3, 4, 2, 5)
        size = (masks.square().sum(dim=4, keepdim=True) + EPSILON).sqrt()
        masks = F.pad(masks * (torch.tanh(size) / size), (0, 1))
        late, after["delay"] = self.delay(x, state.get("delay", {}))
        y = multiply(masks, late.unsqueeze(2))
        return torch.cat([y, late.unsqueeze(2) - y.sum(dim=2, keepdim=True)], dim=2), after


class _Complex(Streaming):
    """A complex convolution, then norm and leaky rectifier, or neither for the last one.

    Shapes: (streams, frames, 2, inputs, bins) -> (streams, frames, 2, outputs, bins), real parts
    first. It is a real convolution of twice the channels: with weights A + iB, the matrix of
    [[A, -B], [B, A]].
    """

    def __init__(
        self,
        kind: type[Frequency],
        inputs: int,
        outputs: int,
        bins: int,
        taps: int,
        width: int,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.layer = kind(2 * inputs, 2 * outputs, bins, taps, width, STRIDE)
        weights = _Weights(1 if kind is FrequencyTransposed else 0)
        parametrize.register_parametrization(self.layer.conv, "weight", weights)
        self.norm = None if last else nn.BatchNorm2d(2 * outputs)

    def initial_state(self, streams: int) -> State:
        return self.layer.initial_state(streams)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, after = self.layer(x.flatten(2, 3), state)
        if self.norm is not None:
            h = F.leaky_relu(self.norm(h.transpose(1, 2)).transpose(1, 2), 0.01)
        return h.unflatten(2, (2, -1)), after


class _Weights(nn.Module):
    """Completes real weights, whose outputs are real parts, by those of the imaginary parts."""

    def __init__(self, outputs: int) -> None:
        """Set the axis of the outputs, 0 or 1; the other one is that of the inputs."""
        super().__init__()
        self.outputs = outputs

    def forward(self, half: Tensor) -> Tensor:
        real, imaginary = half.chunk(2, dim=1 - self.outputs)
        other = torch.cat([-imaginary, real], dim=1 - self.outputs)
        return torch.cat([half, other], dim=self.outputs)

    def right_inverse(self, whole: Tensor) -> Tensor:
        return whole.chunk(2, dim=self.outputs)[0]
