"""Deep feed-forward masks from a patch of spectrogram ("deep karaoke").

A. J. R. Simpson, G. Roma, M. D. Plumbley, "Deep Karaoke: Extracting Vocals from Musical Mixtures
Using a Convolutional Deep Neural Network", LVA/ICA 2015, arXiv 1504.04658.

A dense network with sigmoid units reads a patch of 20 frames and yields, for every bin, the
probability that a source dominates it; the loss ``"binary"`` trains that against ideal binary
masks. The probabilities serve as masks.

Causality: the patch ends with the newest frame, and only the masks of one frame are computed, where
the paper averages the masks of all patches that hold it. So the hidden layer has 2050 units; with
20,500 as in the paper, the weights would be 2 GB.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rtsep.nn.layers import CausalConv
from rtsep.nn.masks import Masked, masked
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Simpson, Roma, Plumbley: Deep Karaoke: Extracting Vocals from Musical Mixtures Using a "
    "Convolutional Deep Neural Network, LVA/ICA 2015"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"patch": 20, "hidden": 2050},
    "small": {"patch": 10, "hidden": 200},
}
"""The patch of the paper for music, and a network for speech on a laptop."""


def build(spec: Spec, **options: Any) -> Masked:
    """Build the network for the frames of ``spec``, with the options of `FeedForward`."""
    return masked(FeedForward, "feedforward", spec, **options)


class FeedForward(Streaming):
    """Maps magnitudes (streams, frames, bins) to masks (streams, frames, sources, bins).

    Parameters
    ----------
    bins, sources
        Sizes of the masks.
    patch, hidden
        Frames of the patch, and units of the hidden layer.
    """

    def __init__(self, bins: int, sources: int, patch: int = 20, hidden: int = 2050) -> None:
        super().__init__()
        self.sources = sources
        self.enter = CausalConv(bins, hidden, patch)
        self.out = nn.Linear(hidden, sources * bins)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the past frames of the patch."""
        return self.enter.initial_state(streams)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute the masks of each frame."""
        h, after = self.enter(x, state)
        masks = torch.sigmoid(self.out(torch.sigmoid(h)))
        return masks.unflatten(2, (self.sources, -1)), after
