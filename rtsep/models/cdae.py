"""Convolutional denoising auto-encoder of Grais and Plumbley.

E. M. Grais, M. D. Plumbley, "Single Channel Audio Source Separation Using Convolutional Denoising
Autoencoders", GlobalSIP 2017, arXiv 1703.08019.

A fully convolutional network with pooling maps the magnitudes of the mixture to those of a source,
which it treats as clean and the others as noise; the mixture's phase completes them. The paper
trains one such network per source; here the last layer yields the magnitudes of all. Magnitudes are
relative to a running level, so the level of the input has no influence.

Causality: the kernels read the newest frame and the two before, and the pooling over three frames
takes the largest of the newest three at every frame, where the paper keeps one frame of three. The
paper reads 15 frames at once, half of them from the future; here as many past ones are seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.frequency import Frequency
from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Delay, ForgettingMean, initial_states
from rtsep.nn.masks import magnitude
from rtsep.nn.streaming import State, Streaming, extend
from rtsep.spec import Spec

PAPER = (
    "Grais, Plumbley: Single Channel Audio Source Separation Using Convolutional Denoising "
    "Autoencoders, GlobalSIP 2017"
)
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "full": {"filters": (12, 20, 30, 40, 30, 20, 12)},
    "small": {"filters": (8, 12, 16, 16, 16, 12, 8)},
}
"""The filters of the paper, and fewer for speech on a laptop."""

POOL = 5
"""Bins per position after each of the two poolings."""
TAPS = 3
"""Frames and positions that each kernel reads, and frames of the first pooling."""
LEVEL_S = 1.0
"""Time constant of the running level."""


def build(spec: Spec, **options: Any) -> CDAE:
    """Build the network for the frames of ``spec``, with the options of `CDAE`."""
    sizes: dict[str, Any] = of_spectra("cdae", spec)
    options.setdefault("level_frames", LEVEL_S * spec.sample_rate / spec.hop_length)
    return CDAE(**sizes, **options)


class CDAE(Streaming):
    """Maps spectra of the mixture to spectra of the sources.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, sources, channels, 2, bins).
    All channels share the estimates, which are of their joint magnitude.

    Parameters
    ----------
    bins, sources, channels, lookahead
        Sizes of the frames.
    filters
        Filters of all layers but the last: one before the first pooling, one before the second,
        some after it, and one between the two steps back.
    level_frames
        Time constant of the running level, in frames.

    Raises
    ------
    ValueError
        There are fewer than four layers.
    """

    def __init__(
        self,
        bins: int,
        sources: int,
        channels: int = 1,
        lookahead: int = 0,
        filters: Sequence[int] = (12, 20, 30, 40, 30, 20, 12),
        level_frames: float = 125.0,
    ) -> None:
        if len(filters) < 4:
            raise ValueError(f"filters must be of four layers or more, not {filters}")
        super().__init__()
        self.level = ForgettingMean(level_frames)
        self.padding = -bins % POOL**2
        wide = bins + self.padding
        middle = [wide // POOL**2] * (len(filters) - 3)
        sizes = zip(
            pairwise((1, *filters, sources)),
            (wide, wide // POOL, *middle, wide // POOL, wide),
            strict=True,
        )
        self.layers = nn.ModuleList(Frequency(*pair, size, TAPS, TAPS) for pair, size in sizes)
        self.pooled = TAPS - 1, filters[0], wide
        self.delay = Delay(lookahead, (channels, 2, bins))

    def initial_state(self, streams: int) -> State:
        """Return zeros for level, past frames of layers and pooling, and the delayed mixture."""
        return {
            "level": self.level.initial_state(streams),
            "layers": initial_states(self.layers, streams),
            "pool": torch.zeros(streams, *self.pooled),
            "delay": self.delay.initial_state(streams),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``."""
        after: State = {"layers": {}}
        loud = magnitude(x, 1.0)
        level, after["level"] = self.level(loud.mean(dim=-1), state["level"])
        h = F.pad(loud / level.unsqueeze(-1), (0, self.padding)).unsqueeze(2)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            if i >= last - 1:
                h = h.unsqueeze(-1).expand(-1, -1, -1, -1, POOL).flatten(3)
            h, after["layers"][str(i)] = layer(h, state["layers"][str(i)])
            if i < last:
                h = F.relu(h)
            if i == 0:
                h, after["pool"] = extend(state["pool"], h)
            if i < 2:
                h = F.max_pool2d(h.transpose(1, 2), (1 if i else TAPS, POOL), (1, POOL))
                h = h.transpose(1, 2)
        estimates = level[:, :, None, None] * F.softplus(h[..., : x.shape[-1]])
        phase, after["delay"] = self.delay(x / loud[:, :, None, None], state.get("delay", {}))
        return estimates[:, :, :, None, None] * phase.unsqueeze(2), after
