"""U-Net masks of Jansson et al., as in Spleeter.

A. Jansson, E. Humphrey, N. Montecchio, R. Bittner, A. Kumar, T. Weyde, "Singing Voice Separation
with Deep U-Net Convolutional Networks", ISMIR 2017; R. Hennequin, A. Khlif, F. Voituret,
M. Moussallam, "Spleeter", JOSS 2020.

Six convolutions of 5x5 with stride 2 lead down, six transposed ones with skip connections lead back
to a sigmoid mask. The papers train one such network per source; here one network yields the masks
of all. The highest bin is not read and gets the mask of its neighbour.

Causality: strides are along frequency only and the kernels read past frames, so no frame is waited
for. With the strides along time of the papers, output would come 64 frames at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.frequency import Frequency, FrequencyTransposed
from rtsep.nn.layers import Film, initial_states
from rtsep.nn.masks import Masked, masked
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Jansson, Humphrey, Montecchio, Bittner, Kumar, Weyde: Singing Voice Separation with Deep "
    "U-Net Convolutional Networks, ISMIR 2017"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"filters": 16, "levels": 6, "taps": 5},
    "small": {"filters": 6, "levels": 5, "taps": 3},
}
"""The network of the paper, and one for speech on a laptop."""

STRIDE, WIDTH = 2, 5
"""Stride along frequency and bins of each kernel."""
DROPPED = 3
"""Layers on the way back, from the deepest, with dropout of one half in training."""


def build(spec: Spec, **options: Any) -> Masked:
    """Build the network for the frames of ``spec``, with the options of `UNet`."""
    return masked(UNet, "unet", spec, **options)


class UNet(Streaming):
    """Maps magnitudes (streams, frames, bins) to masks (streams, frames, sources, bins).

    Parameters
    ----------
    bins, sources
        Sizes of the masks.
    filters
        Filters of the first layer; each further layer has twice as many.
    levels
        Layers on the way down.
    taps
        Frames that each kernel reads.

    Raises
    ------
    ValueError
        The bins cannot be halved in every layer.
    """

    def __init__(
        self, bins: int, sources: int, filters: int = 16, levels: int = 6, taps: int = 5
    ) -> None:
        if (bins - 1) % STRIDE**levels:
            raise ValueError(
                f"window_length must be a multiple of {2 * STRIDE**levels}, not {2 * (bins - 1)}"
            )
        super().__init__()
        down = [1, *(filters * 2**i for i in range(levels))]
        up = [*reversed(down[1:]), sources]
        sizes = [(bins - 1) // STRIDE**i for i in range(levels + 1)]
        self.down = nn.ModuleList(
            Frequency(*pair, size, taps, WIDTH, STRIDE)
            for pair, size in zip(pairwise(down), sizes, strict=False)
        )
        self.down_norms = nn.ModuleList(nn.BatchNorm2d(size) for size in down[1:])
        self.up = nn.ModuleList(
            FrequencyTransposed(
                inputs * (2 if i else 1), outputs, sizes[-1 - i], taps, WIDTH, STRIDE
            )
            for i, (inputs, outputs) in enumerate(pairwise(up))
        )
        self.up_norms = nn.ModuleList(nn.BatchNorm2d(size) for size in up[1:-1])

    def initial_state(self, streams: int) -> State:
        """Return zeros for the past frames of all layers."""
        return {
            "down": initial_states(self.down, streams),
            "up": initial_states(self.up, streams),
        }

    def forward(
        self, x: Tensor, state: State, films: Sequence[Film] | None = None
    ) -> tuple[Tensor, State]:
        """Compute the masks of each frame.

        ``films`` are factors and offsets of the features of each layer on the way down, each
        (streams, filters), for `rtsep.models.conditionedunet`.
        """
        after: State = {"down": {}, "up": {}}
        h, skips = x[..., :-1].unsqueeze(2), []
        for i, (layer, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            h, after["down"][str(i)] = layer(h, state["down"][str(i)])
            h = _normed(norm, h)
            if films is not None:
                factor, offset = (part[:, None, :, None] for part in films[i])
                h = factor * h + offset
            h = F.leaky_relu(h, 0.2)
            skips.append(h)
        for i, layer in enumerate(self.up):
            if i:
                h = torch.cat([h, skips[-1 - i]], dim=2)
            h, after["up"][str(i)] = layer(h, state["up"][str(i)])
            if i < len(self.up_norms):
                h = F.relu(_normed(self.up_norms[i], h))
                h = F.dropout(h, 0.5, self.training and i < DROPPED)
        masks = torch.sigmoid(h)
        return torch.cat([masks, masks[..., -1:]], dim=-1), after


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a batch norm over channels to (streams, frames, channels, bins)."""
    y: Tensor = norm(x.transpose(1, 2)).transpose(1, 2)
    return y
