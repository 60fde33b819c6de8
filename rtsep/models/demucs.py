"""Causal Demucs of Défossez et al.

A. Défossez, G. Synnaeve, Y. Adi, "Real Time Speech Enhancement in the Waveform Domain", Interspeech
2020, arXiv 2006.12847; A. Défossez, N. Usunier, L. Bottou, F. Bach, "Music Source Separation in the
Waveform Domain", 2019, arXiv 1911.13254.

Strided convolutions with gated linear units lead from samples down to a slow sequence, LSTM layers
read it, and transposed convolutions lead back, with the sums of skip connections. The input is
relative to its running level, as in the paper.

Causality: the convolutions read past samples and the LSTM runs forwards only, as in the causal
network of 2020, whose figures are the size ``full``. It emits a chunk of samples per product of the
strides, 1024 at the size of the paper, and waits for its end. The paper reads the input at four
times its rate, which makes chunks four times as short for four times the work; that is left out.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.layers import initial_states
from rtsep.nn.lstm import LSTM
from rtsep.nn.samples import Blocks, Strided, StridedTransposed, in_blocks
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Défossez, Synnaeve, Adi: Real Time Speech Enhancement in the Waveform Domain, Interspeech 2020"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"hidden": 64, "levels": 5},
    "small": {"hidden": 16, "levels": 4},
}
"""The larger network of the paper, and one for a laptop."""

KERNEL, STRIDE = 8, 4


def build(spec: Spec, **options: Any) -> Blocks:
    """Build the network for the blocks of ``spec``, with the options of `Demucs`."""
    stride = STRIDE ** options.get("levels", 5)
    return in_blocks(Demucs, "demucs", spec, stride, **options)


class Demucs(Streaming):
    """Maps samples (streams, channels, samples) to samples (streams, outputs, samples).

    Parameters
    ----------
    channels, outputs
        Channels of the mixture, and of all sources together.
    hidden
        Channels of the first level; each further level has twice as many.
    levels
        Levels, each with a stride of 4.
    """

    def __init__(self, channels: int, outputs: int, hidden: int = 64, levels: int = 5) -> None:
        super().__init__()
        sizes = [hidden * 2**i for i in range(levels)]
        self.down = nn.ModuleList(
            Strided(inputs, size, KERNEL, STRIDE)
            for inputs, size in zip([channels, *sizes], sizes, strict=False)
        )
        self.down_gates = nn.ModuleList(nn.Conv1d(size, 2 * size, 1) for size in sizes)
        self.lstm = LSTM(sizes[-1], sizes[-1], layers=2)
        self.up_gates = nn.ModuleList(nn.Conv1d(size, 2 * size, 1) for size in reversed(sizes))
        self.up = nn.ModuleList(
            StridedTransposed(size, wanted, KERNEL, STRIDE)
            for size, wanted in zip(reversed(sizes), [*reversed(sizes[:-1]), outputs], strict=True)
        )

    def initial_state(self, streams: int) -> State:
        """Return zeros for the past inputs of all levels, and for the LSTM layers."""
        return {
            "down": initial_states(self.down, streams),
            "up": initial_states(self.up, streams),
            "lstm": self.lstm.initial_state(streams),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate."""
        after: State = {"down": {}, "up": {}}
        skips = []
        for i, (layer, gate) in enumerate(zip(self.down, self.down_gates, strict=True)):
            x, after["down"][str(i)] = layer(x, state["down"][str(i)])
            x = F.glu(gate(F.relu(x)), dim=1)
            skips.append(x)
        h, after["lstm"] = self.lstm(x.transpose(1, 2), state["lstm"])
        x = h.transpose(1, 2)
        for i, (gate, layer) in enumerate(zip(self.up_gates, self.up, strict=True)):
            x = F.glu(gate(x + skips[-1 - i]), dim=1)
            x, after["up"][str(i)] = layer(x, state["up"][str(i)])
            if i < len(self.up) - 1:
                x = F.relu(x)
        return x, after
