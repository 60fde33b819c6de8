"""Layers that obey the streaming contract."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.streaming import State, Streaming, extend, recall

Film = tuple[Tensor, Tensor]
"""Factors and offsets of the features of a layer, both (streams, features): feature-wise linear
modulation, Perez et al., AAAI 2018."""


class CausalConv(Streaming):
    """Convolution over time that reads the newest frame and ``kernel - 1`` past ones.

    Shapes: (streams, frames, inputs) -> (streams, frames, outputs). The time axis
    may be omitted for a single frame, (streams, inputs) -> (streams, outputs): in ONNX that is one
    matrix product.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv1d(inputs, outputs, kernel)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the last ``kernel - 1`` input frames."""
        return {"past": torch.zeros(streams, (self.kernel - 1) * self.conv.in_channels)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Convolve; output frame ``t`` depends on input frames ``t - kernel + 1 ... t``."""
        if x.dim() == 2:
            frames = torch.cat([state["past"], x], dim=1)
            weight = self.conv.weight.transpose(1, 2).flatten(1)
            y = F.linear(frames, weight, self.conv.bias)
            return y, {"past": frames[:, x.shape[1] :]}
        window, past = extend(state["past"].unflatten(1, (-1, x.shape[2])), x)
        y = self.conv(window.transpose(1, 2)).transpose(1, 2)
        return y, {"past": past.flatten(1)}


class Delay(Streaming):
    """Delays its input by ``frames`` frames; the first outputs are zeros.

    A model with lookahead delays the mixture here; its features use the undelayed mixture.
    """

    def __init__(self, frames: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.frames = frames
        self.shape = shape

    def initial_state(self, streams: int) -> State:
        """Return zeros for the last ``frames`` inputs; an empty state for a delay of 0."""
        return {"past": torch.zeros(streams, self.frames, *self.shape)} if self.frames else {}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Delay (streams, frames, *shape) along time."""
        if not self.frames:
            return x, {}
        (late,), past = recall(state["past"], x, [self.frames])
        return late, {"past": past}


class ForgettingMean(Streaming):
    """Exponentially forgotten mean of a level, (streams, frames) -> (streams, frames).

    ``mean[t] = sum_k a^(t-k) x[k] / sum_k a^(t-k)``. It is unbiased from the first frame on, and
    both sums stay bounded however long the stream runs.
    """

    BLOCK = 64
    """Largest number of frames per matrix product."""

    def __init__(self, frames: float) -> None:
        """Set the time constant, in frames."""
        super().__init__()
        self.keep = float(torch.exp(torch.tensor(-1.0 / frames)))
        t = torch.arange(self.BLOCK)
        decay = (self.keep ** (t[:, None] - t[None, :]).float()).tril()
        self.register_buffer("decay", decay, persistent=False)
        self.register_buffer("carry", self.keep ** (t + 1).float(), persistent=False)
        self.decay: Tensor
        self.carry: Tensor

    def initial_state(self, streams: int) -> State:
        """Return zeros for the two sums, of the values and of their weights."""
        return {"sums": torch.zeros(streams, 2)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the mean of all frames so far, the newest included."""
        sums = state["sums"]
        means = []
        for start in range(0, x.shape[1], self.BLOCK):
            part = x[:, start : start + self.BLOCK]
            n = part.shape[1]
            pair = torch.stack([part, torch.ones_like(part)], dim=-1)
            running = self.decay[:n, :n] @ pair + self.carry[:n, None] * sums[:, None]
            sums = running[:, -1]
            means.append(running[..., 0] / running[..., 1])
        return torch.cat(means, dim=1), {"sums": sums}


def initial_states(layers: Iterable[nn.Module], streams: int) -> State:
    """Return the initial states of streaming layers by their places: "0", "1" and so on."""
    each = (cast(Streaming, layer) for layer in layers)
    return {str(i): layer.initial_state(streams) for i, layer in enumerate(each)}


def full_precision(device: str) -> AbstractContextManager[object]:
    """Suspend autocast if it is on; otherwise leave no trace in an exported graph."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
