"""Wave-U-Net of Stoller, Ewert and Dixon.

D. Stoller, S. Ewert, S. Dixon, "Wave-U-Net: A Multi-Scale Neural Network for End-to-End Audio
Source Separation", ISMIR 2018, arXiv 1806.03185.

Each level convolves and drops every second sample on the way down; on the way up, linear
interpolation doubles the samples, and a convolution joins them with those of the same level on the
way down. The last convolution yields all sources but the last, which is the rest of the mixture.
The input is relative to its running level, so the output is not bounded by a tanh as in the paper.

Causality: the convolutions read past samples. Of each pair, the second sample stays on the way
down, so interpolation puts its new sample between that and the one before and needs no later one.
The network emits a chunk of samples per product of the strides, 4096 at the size of the paper, and
waits for its end.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.layers import initial_states
from rtsep.nn.samples import Blocks, Doubled, Strided, in_blocks
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Stoller, Ewert, Dixon: Wave-U-Net: A Multi-Scale Neural Network for End-to-End Audio Source "
    "Separation, ISMIR 2018"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"filters": 24, "levels": 12},
    "small": {"filters": 8, "levels": 6},
}
"""The network of the paper, and one for a laptop."""

DOWN, UP = 15, 5
"""Taps of the kernels on the way down and up."""


def build(spec: Spec, **options: Any) -> Blocks:
    """Build the network for the blocks of ``spec``, with the options of `WaveUNet`."""
    return in_blocks(WaveUNet, "waveunet", spec, 2 ** options.get("levels", 12), True, **options)


class WaveUNet(Streaming):
    """Maps samples (streams, channels, samples) to samples (streams, outputs, samples).

    Parameters
    ----------
    channels, outputs
        Channels of the mixture, and of all estimated sources together.
    filters
        Filters of the first level, and further ones of each further level.
    levels
        Levels, each with a stride of 2.
    """

    def __init__(self, channels: int, outputs: int, filters: int = 24, levels: int = 12) -> None:
        super().__init__()
        sizes = [filters * (i + 1) for i in range(levels + 1)]
        self.down = nn.ModuleList(
            Strided(inputs, size, DOWN)
            for inputs, size in zip([channels, *sizes], sizes, strict=False)
        )
        self.doubled = nn.ModuleList(Doubled(size) for size in reversed(sizes[1:]))
        self.up = nn.ModuleList(
            Strided(sizes[i + 1] + sizes[i], sizes[i], UP) for i in reversed(range(levels))
        )
        self.out = nn.Conv1d(filters + channels, outputs, 1)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the past inputs of all levels."""
        parts = {"down": self.down, "doubled": self.doubled, "up": self.up}
        return {name: initial_states(part, streams) for name, part in parts.items()}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate."""
        after: State = {"down": {}, "doubled": {}, "up": {}}
        h, skips = x, []
        for i, layer in enumerate(self.down):
            if i:
                skips.append(h)
                h = h.unflatten(2, (-1, 2))[..., 1]
            h, after["down"][str(i)] = layer(h, state["down"][str(i)])
            h = F.leaky_relu(h, 0.2)
        for i, (doubled, layer) in enumerate(zip(self.doubled, self.up, strict=True)):
            h, after["doubled"][str(i)] = doubled(h, state["doubled"][str(i)])
            h = torch.cat([h, skips[-1 - i]], dim=1)
            h, after["up"][str(i)] = layer(h, state["up"][str(i)])
            h = F.leaky_relu(h, 0.2)
        return self.out(torch.cat([h, x], dim=1)), after
