"""Layers over samples for networks that are strided along time, and their frames.

Here time is the last axis, (streams, channels, samples), in multiples of the stride; otherwise the
layers obey the streaming contract. No layer waits for samples beyond the stride that it maps to one
value, so a network waits for one product of its strides. That is a frame: windows are rectangular
and as long as the hop. The wait is counted in the latency as that for a whole frame.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.layers import ForgettingMean
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

EPSILON = 1e-4
"""Level, re full scale, below which the input of a network gets quieter."""
LEVEL_S = 2.0
"""Time constant of the running level."""


class Blocks(Streaming):
    """Runs a network over samples on frames, relative to a running level.

    Shapes: (streams, frames, channels, n) -> (streams, frames, sources, channels, n).

    Parameters
    ----------
    network
        Maps (streams, channels, samples) to (streams, outputs, samples). If it has the outputs of
        all sources but the last, the last one is the rest of the mixture.
    sources, channels
        Numbers of sources and channels.
    level_frames
        Time constant of the running level, in frames.
    """

    def __init__(
        self, network: Streaming, sources: int, channels: int, level_frames: float
    ) -> None:
        super().__init__()
        self.network, self.sources, self.channels = network, sources, channels
        self.level = ForgettingMean(level_frames)

    def initial_state(self, streams: int) -> State:
        """Return the network's initial state, and zeros for the level."""
        return {
            "network": self.network.initial_state(streams),
            "level": self.level.initial_state(streams),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; frame ``t`` of the output belongs to frame ``t`` of the mixture."""
        frames = x.shape[1]
        power, level = self.level(x.square().mean(dim=(2, 3)), state["level"])
        loud = power.sqrt()[:, :, None, None]
        samples = (x / (loud + EPSILON)).transpose(1, 2).flatten(2)
        y, network = self.network(samples, state["network"])
        y = y.unflatten(1, (-1, self.channels)).unflatten(3, (frames, -1)).permute(0, 3, 1, 2, 4)
        y = y * loud.unsqueeze(2)
        if y.shape[2] < self.sources:
            y = torch.cat([y, x.unsqueeze(2) - y.sum(dim=2, keepdim=True)], dim=2)
        return y, {"network": network, "level": level}


def in_blocks(
    network: type[Streaming],
    model: str,
    spec: Spec,
    stride: int,
    rest: bool = False,
    **options: Any,
) -> Blocks:
    """Build ``network(channels, outputs, **options)`` for the frames of ``spec``.

    Parameters
    ----------
    network, model
        Class and name of the network.
    spec
        Spec of the stream.
    stride
        Product of the network's strides.
    rest
        Whether the last source is the rest of the mixture.
    options
        Options of the network.

    Raises
    ------
    ValueError
        The frames are not blocks of samples of a multiple of the stride, or there is lookahead.
    """
    if (spec.frontend, spec.window, spec.hop_length) != (
        "waveform",
        "rectangular",
        spec.window_length,
    ) or spec.hop_length % stride:
        raise ValueError(
            f"{model} works on blocks of samples: frontend 'waveform', window 'rectangular', "
            f"window_length equal to hop_length and a multiple of {stride}, not "
            f"{spec.frontend!r}, {spec.window!r}, {spec.window_length} and {spec.hop_length}"
        )
    if spec.lookahead:
        raise ValueError(f"{model} looks at no later frames: lookahead {spec.lookahead}, not 0")
    sources = len(spec.sources)
    made = network(spec.channels, spec.channels * (sources - rest), **options)
    level_frames = LEVEL_S * spec.sample_rate / spec.hop_length
    return Blocks(made, sources, spec.channels, level_frames)


class Strided(Streaming):
    """Convolution whose output ``m`` reads input samples up to ``(m + 1) * stride - 1``.

    Shapes: (streams, inputs, samples) -> (streams, outputs, samples / stride).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.past_shape = inputs, kernel - stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the last ``kernel - stride`` input samples."""
        return {"past": torch.zeros(streams, *self.past_shape)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Convolve."""
        window = torch.cat([state["past"], x], dim=2)
        return self.conv(window), {"past": window[..., x.shape[2] :]}


class StridedTransposed(Streaming):
    """Transposed convolution whose output samples of input ``m`` depend on inputs up to ``m``.

    Shapes: (streams, inputs, samples) -> (streams, outputs, samples * stride).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.tail_shape = outputs, kernel - stride
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs, 1))

    def initial_state(self, streams: int) -> State:
        """Return zeros for what past inputs add to the next output samples."""
        return {"tail": torch.zeros(streams, *self.tail_shape)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Convolve."""
        ready = x.shape[2] * self.stride
        y = self.conv(x) + F.pad(state["tail"], (0, ready))
        return y[..., :ready] + self.bias, {"tail": y[..., ready:].float()}


class Doubled(Streaming):
    """Linear interpolation by two: the second of each pair is the input, the first lies between.

    Shapes: (streams, channels, samples) -> (streams, channels, 2 * samples).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def initial_state(self, streams: int) -> State:
        """Return zeros for the last input sample."""
        return {"past": torch.zeros(streams, self.channels, 1)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Interpolate."""
        window = torch.cat([state["past"], x], dim=2)
        between = (window[..., :-1] + x) / 2
        return torch.stack([between, x], dim=3).flatten(2), {"past": window[..., -1:]}
