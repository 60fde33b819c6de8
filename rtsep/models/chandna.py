"""Causal vertical/horizontal convolutional network of Chandna et al.

P. Chandna, M. Miron, J. Janer, E. Gomez, "Monoaural Audio Source Separation Using Deep
Convolutional Neural Networks", LVA/ICA 2017.

The network sees a window of T frames: a *vertical* convolution as tall as the spectrum, a
*horizontal* one along time, a dense bottleneck, and per source the way back through transposed
convolutions to a magnitude; soft masks split the mixture. Here the window slides one hop at a time
and only one of its frames comes out: the newest, or the one ``lookahead`` frames back. What earlier
windows have computed of a frame is state, so each frame's features are computed once.

The masks |y_n| / sum |y_n| take y = exp of the last layer, a log magnitude: a softmax over sources,
which is smooth and keeps its precision where all estimates are near zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsep.nn.layers import CausalConv, Delay, ForgettingMean
from rtsep.nn.streaming import State, Streaming

EPSILON = 1e-7  # smaller ones are lost in the ONNX export


class Chandna(Streaming):
    """Mixture spectra to source spectra by soft masks.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, sources, channels, 2, bins).

    Parameters
    ----------
    bins, channels, sources
        Of the spectra. All channels are masked alike, from their joint magnitude.
    lookahead
        Which frame of the window comes out, 0 (newest) to ``window - 1``. It is rebuilt from
        ``lookahead + 1`` positions of the horizontal transposed convolution, up to all of its taps.
    window
        T, frames the network sees at once.
    vertical, horizontal, taps, bottleneck
        N1 = 50 and N2 = 30 filters, t2 = 12 frames, NN = 128 units of the paper.
    compression
        Exponent of the magnitudes at the input; 1 in the paper, less is nearer to loudness.
    level_frames
        Time constant, in frames, of the running level the input is divided by, so that a quiet
        microphone is heard like a loud one; 0 takes magnitudes as they come, as in the paper.
    """

    def __init__(
        self,
        bins: int,
        sources: int,
        channels: int = 1,
        lookahead: int = 0,
        window: int = 30,
        vertical: int = 50,
        horizontal: int = 30,
        taps: int = 12,
        bottleneck: int = 128,
        compression: float = 1.0,
        level_frames: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= lookahead < window or window < taps:
            raise ValueError(
                f"lookahead {lookahead} must lie in a window of {window} frames "
                f"that holds the {taps} horizontal taps"
            )
        self.sources = sources
        self.compression = compression
        positions = window - taps + 1  # of the horizontal convolution inside the window
        frame = window - 1 - lookahead  # the one that comes out
        used = min(frame, positions - 1) - max(0, frame - taps + 1) + 1
        self.level = ForgettingMean(level_frames) if level_frames else None
        self.vertical = nn.Linear(bins, vertical)
        self.horizontal = CausalConv(vertical, horizontal, taps)
        self.bottleneck = CausalConv(horizontal, bottleneck, positions)
        # The way back, only what reaches the emitted frame: one product per source and layer.
        self.back = nn.Linear(bottleneck, sources * used * horizontal)
        self.horizontal_back = _PerSource(sources, used * horizontal, vertical)
        self.vertical_back = _PerSource(sources, vertical, bins)
        self.delay = Delay(lookahead, (channels, 2, bins))

    def initial_state(self, streams: int) -> State:
        """Features of past frames, the waiting mixture, the running level."""
        state = {
            "horizontal": self.horizontal.initial_state(streams),
            "bottleneck": self.bottleneck.initial_state(streams),
            "delay": self.delay.initial_state(streams),
        }
        if self.level is not None:
            state["level"] = self.level.initial_state(streams)
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``."""
        following: State = {}
        power = x.square().sum(dim=(2, 3)) / x.shape[2]
        magnitude = (power + EPSILON**2 if self.compression == 1.0 else power + EPSILON).pow(
            self.compression / 2
        )
        if self.level is not None:
            level, following["level"] = self.level(magnitude.mean(dim=-1), state["level"])
            magnitude = magnitude / (level.unsqueeze(-1) + EPSILON)
        h = self.vertical(magnitude)
        h, following["horizontal"] = self.horizontal(h, state["horizontal"])
        h, following["bottleneck"] = self.bottleneck(h, state["bottleneck"])
        h = torch.relu(self.back(torch.relu(h))).unflatten(-1, (self.sources, -1))
        masks = torch.softmax(self.vertical_back(self.horizontal_back(h)), dim=2)
        mixture, following["delay"] = self.delay(x, state.get("delay", {}))
        return masks[:, :, :, None, None, :] * mixture.unsqueeze(2), following


class _PerSource(nn.Module):
    """A dense layer with its own weights for every source, (..., sources, n) -> (..., sources, m).

    Over one frame a transposed convolution is just that.
    """

    def __init__(self, sources: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(sources, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(sources, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(0, -3).transpose(0, 1) @ self.weight + self.bias
        back: Tensor = y.transpose(0, 1).unflatten(0, x.shape[:-2])
        return back
