"""TasNet of Luo and Mesgarani, with LSTM layers.

Y. Luo, N. Mesgarani, "TasNet: Time-Domain Audio Separation Network for Real-Time, Single-Channel
Speech Separation", ICASSP 2018, arXiv 1711.00541.

Segments of 5 ms, scaled to unit energy, pass a gated learned filterbank; LSTM layers with skip
connections yield, by a softmax over sources, what share of each filter belongs to whom; a linear
decoder leads back to samples.

Causality: this is the paper's causal network, whose LSTM layers run forwards only. It waits for the
end of a segment, which is a frame.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.layers import initial_states
from rtsep.nn.lstm import LSTM
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Luo, Mesgarani: TasNet: Time-Domain Audio Separation Network for Real-Time, Single-Channel "
    "Speech Separation, ICASSP 2018"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"filters": 500, "hidden": 500, "layers": 4},
    "small": {"filters": 128, "hidden": 128, "layers": 2},
}
"""The network of the paper, and one for a laptop."""

EPSILON = 1e-6


def build(spec: Spec, **options: Any) -> TasNet:
    """Build the network for the frames of ``spec``, with the options of `TasNet`."""
    if spec.frontend != "waveform":
        raise ValueError(f"tasnet works on samples: frontend 'waveform', not {spec.frontend!r}")
    if spec.lookahead:
        raise ValueError(f"tasnet looks at no later frames: lookahead {spec.lookahead}, not 0")
    return TasNet(spec.window_length, len(spec.sources), spec.channels, **options)


class TasNet(Streaming):
    """Maps segments of the mixture to segments of the sources.

    Shapes: (streams, frames, channels, length) -> (streams, frames, sources, channels, length). All
    channels are read jointly.

    Parameters
    ----------
    length, sources, channels
        Samples of a segment, and numbers of sources and channels.
    filters
        Number of learned filters.
    hidden, layers
        Units of each LSTM layer, and number of layers. From the second on, a layer's input is added
        to its output.
    """

    def __init__(
        self,
        length: int,
        sources: int,
        channels: int = 1,
        filters: int = 500,
        hidden: int = 500,
        layers: int = 4,
    ) -> None:
        super().__init__()
        self.sources, self.channels = sources, channels
        self.filters = nn.Linear(channels * length, filters, bias=False)
        self.gates = nn.Linear(channels * length, filters, bias=False)
        self.norm = nn.LayerNorm(filters)
        self.layers = nn.ModuleList(LSTM(hidden if i else filters, hidden) for i in range(layers))
        self.masks = nn.Linear(hidden, sources * filters)
        self.decoder = nn.Linear(filters, channels * length, bias=False)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the LSTM layers."""
        return initial_states(self.layers, streams)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; frame ``t`` of the output belongs to frame ``t`` of the mixture."""
        samples = x.flatten(2)
        energy = (samples.square().sum(dim=2, keepdim=True) + EPSILON).sqrt()
        unit = samples / energy
        features = F.relu(self.filters(unit)) * torch.sigmoid(self.gates(unit))
        h, after = self.norm(features), {}
        for i, layer in enumerate(self.layers):
            y, after[str(i)] = layer(h, state[str(i)])
            h = h + y if i else y
        masks = torch.softmax(self.masks(h).unflatten(2, (self.sources, -1)), dim=2)
        y = self.decoder(masks * features.unsqueeze(2)) * energy.unsqueeze(2)
        return y.unflatten(3, (self.channels, -1)), after
