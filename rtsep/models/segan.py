"""Causal SEGAN: the waveform auto-encoder of Pascual, Bonafonte and Serrà.

S. Pascual, A. Bonafonte, J. Serrà, "SEGAN: Speech Enhancement Generative Adversarial Network",
Interspeech 2017, arXiv 1703.09452.

Convolutions with 31 taps and stride 2 lead from samples down to a slow sequence, transposed ones
with skip connections lead back to all sources but the last, which is the rest of the mixture. The
loss ``"adversarial"`` is the paper's, see :mod:`rtsep.train.adversarial`. The paper's random vector
is left out, so the output depends on the mixture only. The input is relative to its running level,
so the output is not bounded by a tanh as in the paper.

Causality: the convolutions read past samples. The network emits a chunk of samples per product of
the strides, 2048 at the size of the paper, and waits for its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rtsep.nn.layers import initial_states
from rtsep.nn.samples import Blocks, Strided, StridedTransposed, in_blocks
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Pascual, Bonafonte, Serrà: SEGAN: Speech Enhancement Generative Adversarial Network, "
    "Interspeech 2017"
)
FULL = (16, 32, 32, 64, 64, 128, 128, 256, 256, 512, 1024)
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "full": {"filters": FULL},
    "small": {"filters": (8, 8, 16, 16, 32, 32)},
}
"""The filters of the paper, and fewer for a laptop."""

KERNEL, STRIDE = 31, 2


def build(spec: Spec, **options: Any) -> Blocks:
    """Build the network for the blocks of ``spec``, with the options of `Segan`."""
    stride = STRIDE ** len(options.get("filters", FULL))
    return in_blocks(Segan, "segan", spec, stride, True, **options)


class Segan(Streaming):
    """Maps samples (streams, channels, samples) to samples (streams, outputs, samples).

    Parameters
    ----------
    channels, outputs
        Channels of the mixture, and of all estimated sources together.
    filters
        Filters of each layer on the way down.
    """

    def __init__(self, channels: int, outputs: int, filters: Sequence[int] = FULL) -> None:
        super().__init__()
        down, up = [channels, *filters], [*reversed(filters), outputs]
        self.down = nn.ModuleList(Strided(*pair, KERNEL, STRIDE) for pair in pairwise(down))
        self.down_slopes = nn.ModuleList(nn.PReLU(size) for size in down[1:])
        self.up = nn.ModuleList(
            StridedTransposed(inputs * (2 if i else 1), wanted, KERNEL, STRIDE)
            for i, (inputs, wanted) in enumerate(pairwise(up))
        )
        self.up_slopes = nn.ModuleList(nn.PReLU(size) for size in up[1:-1])

    def initial_state(self, streams: int) -> State:
        """Return zeros for the past inputs of all layers."""
        return {
            "down": initial_states(self.down, streams),
            "up": initial_states(self.up, streams),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate."""
        after: State = {"down": {}, "up": {}}
        skips: list[Tensor] = []
        for i, (layer, slope) in enumerate(zip(self.down, self.down_slopes, strict=True)):
            x, after["down"][str(i)] = layer(x, state["down"][str(i)])
            x = slope(x)
            skips.append(x)
        for i, layer in enumerate(self.up):
            if i:
                x = torch.cat([self.up_slopes[i - 1](x), skips[-1 - i]], dim=1)
            x, after["up"][str(i)] = layer(x, state["up"][str(i)])
        return x, after
