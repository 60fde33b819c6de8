"""Deep recurrent masks of Huang et al., with LSTM units.

P.-S. Huang, M. Kim, M. Hasegawa-Johnson, P. Smaragdis, "Deep Learning for Monaural Speech
Separation", ICASSP 2014, arXiv 1502.04149; "Joint Optimization of Masks and Deep Recurrent Neural
Networks for Monaural Source Separation", IEEE/ACM TASLP 2015.

A window of three frames passes three hidden layers, of which the second is recurrent. The last
layer yields a magnitude per source; the masks |y_n| / sum |y_n| are part of the network, so it is
trained by what they leave of the mixture. The paper's discriminative term, which moves an estimate
away from the other sources, is the loss ``"chandna"``.

Causality: the window holds the newest frame and the two before, not the frame after. The recurrent
layer is an LSTM, whose output is bounded however long a stream runs; the paper's is rectified.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.layers import CausalConv
from rtsep.nn.lstm import LSTM
from rtsep.nn.masks import Masked, masked
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Huang, Kim, Hasegawa-Johnson, Smaragdis: Deep Learning for Monaural Speech Separation, "
    "ICASSP 2014"
)
SIZES: dict[str, dict[str, int]] = {"full": {"hidden": 1000}, "small": {"hidden": 128}}
"""The network of the paper for music, and one for speech on a laptop."""


def build(spec: Spec, **options: Any) -> Masked:
    """Build the network for the frames of ``spec``, with the options of `DeepRecurrent`."""
    return masked(DeepRecurrent, "recurrent", spec, **options)


class DeepRecurrent(Streaming):
    """Maps magnitudes (streams, frames, bins) to masks (streams, frames, sources, bins).

    Parameters
    ----------
    bins, sources
        Sizes of the masks.
    hidden
        Units of each hidden layer.
    context
        Frames of the window.
    """

    def __init__(self, bins: int, sources: int, hidden: int = 1000, context: int = 3) -> None:
        super().__init__()
        self.sources = sources
        self.enter = CausalConv(bins, hidden, context)
        self.lstm = LSTM(hidden, hidden)
        self.dense = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, sources * bins)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the window and the LSTM layer."""
        return {
            "enter": self.enter.initial_state(streams),
            "lstm": self.lstm.initial_state(streams),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute the masks of each frame; they add up to 1."""
        h, enter = self.enter(x, state["enter"])
        h, lstm = self.lstm(F.relu(h), state["lstm"])
        estimates = self.out(F.relu(self.dense(h))).unflatten(2, (self.sources, -1))
        masks = torch.softmax(estimates, dim=2)  # of log magnitudes
        return masks, {"enter": enter, "lstm": lstm}
