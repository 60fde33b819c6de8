"""LSTM masks with band reduction and skip connections, after open-unmix.

F.-R. Stöter, S. Uhlich, A. Liutkus, Y. Mitsufuji, "Open-Unmix - A Reference Implementation for
Music Source Separation", Journal of Open Source Software 2019.

Magnitudes below 16 kHz are shifted and scaled bin by bin, reduced to a few features, and read by
three LSTM layers. Their input skips them; two dense layers lead back to all bins, and a last shift,
scale and rectifier yield masks. The paper trains one such network per source; here one network
yields the masks of all.

Causality: the LSTM layers run forwards only, with as many units as both directions of the paper
together. No frame waits for another.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.lstm import LSTM
from rtsep.nn.masks import Masked, masked
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Stöter, Uhlich, Liutkus, Mitsufuji: Open-Unmix - A Reference Implementation for Music Source "
    "Separation, JOSS 2019"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"hidden": 512, "layers": 3},
    "small": {"hidden": 128, "layers": 2},
}
"""The network of the paper, and one for speech on a laptop."""

BANDWIDTH_HZ = 16000.0
"""Bins above this are not read; they are masked all the same."""


def build(spec: Spec, **options: Any) -> Masked:
    """Build the network for the frames of ``spec``, with the options of `OpenUnmix`."""
    read = int(BANDWIDTH_HZ * spec.window_length / spec.sample_rate) + 1
    return masked(OpenUnmix, "openunmix", spec, **{"read": read, **options})


class OpenUnmix(Streaming):
    """Maps magnitudes (streams, frames, bins) to masks (streams, frames, sources, bins).

    Parameters
    ----------
    bins, sources
        Sizes of the masks.
    read
        Largest number of bins that are read, from the lowest.
    hidden, layers
        Units of all layers, and number of LSTM layers.
    """

    def __init__(
        self, bins: int, sources: int, read: int = 1 << 20, hidden: int = 512, layers: int = 3
    ) -> None:
        super().__init__()
        self.read = min(read, bins)
        self.shift = nn.Parameter(torch.zeros(self.read))
        self.scale = nn.Parameter(torch.ones(self.read))
        self.reduce = _Dense(self.read, hidden)
        self.lstm = LSTM(hidden, hidden, layers)
        self.merge = _Dense(2 * hidden, hidden)
        self.expand = _Dense(hidden, sources * bins)
        self.out_scale = nn.Parameter(torch.full((sources, bins), 0.5))
        self.out_shift = nn.Parameter(torch.full((sources, bins), 0.5))

    def initial_state(self, streams: int) -> State:
        """Return zeros for the LSTM layers."""
        return self.lstm.initial_state(streams)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute the masks of each frame."""
        reduced = torch.tanh(self.reduce((x[..., : self.read] + self.shift) * self.scale))
        h, after = self.lstm(reduced, state)
        h = F.relu(self.merge(torch.cat([reduced, h], dim=-1)))
        masks = self.expand(h).unflatten(2, self.out_scale.shape)
        return F.relu(masks * self.out_scale + self.out_shift), after


class _Dense(nn.Module):
    """A dense layer with batch norm, (streams, frames, inputs) -> (streams, frames, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x.flatten(0, 1))).unflatten(0, (-1, x.shape[1]))
        return y
