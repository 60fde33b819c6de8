"""Causal vertical/horizontal convolutional network of Chandna et al.

P. Chandna, M. Miron, J. Janer, E. Gomez, "Monoaural Audio Source Separation Using Deep
Convolutional Neural Networks", LVA/ICA 2017.

The network reads a window of T frames: a *vertical* convolution over all bins, a *horizontal* one
along time, a dense bottleneck, and per source transposed convolutions to a magnitude; soft masks
divide the mixture. Here the window slides by one hop, and one of its frames is output: the newest,
or the one ``lookahead`` frames before. Features of past frames are state, so each frame's features
are computed once.

In the masks |y_n| / sum |y_n|, y is the exponential of the last layer, so the masks are a softmax
over sources, which is smooth and precise even if all estimates are near zero.

Live, the matrix products take less time than the operations between them, so ``forward`` uses few
operations, in the order of axes that is fastest in ONNX Runtime: frames are rows of matrices, and
in the layers of the sources, sources are the first axis.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import CausalConv, Delay, ForgettingMean
from rtsep.nn.masks import shares_of
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Chandna, Miron, Janer, Gomez: Monoaural Audio Source Separation Using Deep Convolutional "
    "Neural Networks, LVA/ICA 2017"
)
SIZES: dict[str, dict[str, float]] = {
    "music": {},
    "speech": {"compression": 0.3, "level_frames": 125.0},
}
"""The network of the paper, and a variant for speech at any level."""

EPSILON = 1e-7  # smaller values are lost in the ONNX export


def build(spec: Spec, **options: Any) -> Chandna:
    """Build the network for the frames of ``spec``, with the options of `Chandna`."""
    return Chandna(**of_spectra("chandna", spec), **options)


class Chandna(Streaming):
    """Maps mixture spectra to source spectra by soft masks.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, sources, channels, 2, bins).

    Parameters
    ----------
    bins, channels, sources
        Sizes of the spectra. All channels get the same masks, from their joint magnitude.
    lookahead
        Frame of the window that is output, 0 (newest) to ``window - 1``. It is computed from
        ``lookahead + 1`` positions of the horizontal transposed convolution, up to all of its taps.
    window
        T, number of frames of the window.
    vertical, horizontal, taps, bottleneck
        N1 = 50 and N2 = 30 filters, t2 = 12 frames, NN = 128 units of the paper.
    compression
        Exponent of the magnitudes at the input; 1 in the paper.
    level_frames
        Time constant, in frames, of the running level by which the input is divided, so that the
        level of the microphone has no influence; 0 for no division, as in the paper.
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
        positions = window - taps + 1  # of the horizontal convolution in the window
        frame = window - 1 - lookahead  # the frame that is output
        used = min(frame, positions - 1) - max(0, frame - taps + 1) + 1
        self.level = ForgettingMean(level_frames) if level_frames else None
        self.vertical = nn.Linear(bins, vertical)
        self.horizontal = CausalConv(vertical, horizontal, taps)
        self.bottleneck = CausalConv(horizontal, bottleneck, positions)
        # Transposed convolutions for the output frame only: one product per source and layer.
        self.back = nn.Linear(bottleneck, sources * used * horizontal)
        self.horizontal_back = _PerSource(sources, used * horizontal, vertical)
        self.vertical_back = _PerSource(sources, vertical, bins)
        self.merged = used * horizontal * bins < vertical * (used * horizontal + bins)
        self.delay = Delay(lookahead, (channels, 2, bins))

    def initial_state(self, streams: int) -> State:
        """Return zeros for the features of past frames, the delayed mixture and the level."""
        state = {
            "horizontal": self.horizontal.initial_state(streams),
            "bottleneck": self.bottleneck.initial_state(streams),
            "delay": self.delay.initial_state(streams),
        }
        if self.level is not None:
            state["level"] = self.level.initial_state(streams)
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``.

        Rows of matrices are the frames of all streams, one stream after the other.
        """
        following: State = {}
        streams, frames, _, _, bins = x.shape
        magnitude = self.magnitude(x)
        if self.level is not None:
            mean = magnitude.mean(dim=-1).view(streams, frames)
            level, following["level"] = self.level(mean, state["level"])
            magnitude = magnitude / (level.view(-1, 1) + EPSILON)
        h = self.vertical(magnitude)
        if frames > 1:
            h = h.unflatten(0, (streams, frames))
        h, following["horizontal"] = self.horizontal(h, state["horizontal"])
        h, following["bottleneck"] = self.bottleneck(h, state["bottleneck"])
        h = torch.relu(self.back(torch.relu(h.flatten(0, -2))))
        estimates = self.log_magnitudes(h.unflatten(-1, (self.sources, -1)).transpose(0, 1))
        shares, total = shares_of(estimates.flatten(1)[None])
        mixture, following["delay"] = self.delay(x, state.get("delay", {}))
        portion = mixture / total.view(streams, frames, 1, 1, bins)
        y = shares.view(self.sources, streams, frames, 1, 1, bins) * portion
        return y.movedim(0, 2), following

    def magnitude(self, x: Tensor) -> Tensor:
        """Return the joint magnitude of all channels, (rows, bins)."""
        parts = x.reshape(-1, 2 * x.shape[2], x.shape[4])
        power = (x.new_ones(1, parts.shape[1]) / x.shape[2] @ (parts * parts)).squeeze(1)
        if self.compression == 1.0:
            return torch.sqrt(power + EPSILON**2)
        return torch.pow(power + EPSILON, self.compression / 2)

    def log_magnitudes(self, h: Tensor) -> Tensor:
        """Map (sources, rows, positions) to log magnitudes, (sources, rows, bins)."""
        first, second = self.horizontal_back, self.vertical_back
        if self.merged:  # both are linear, and their product is smaller
            y: Tensor = h @ (first.weight @ second.weight) + second(first.bias)
        else:
            y = second(first(h))
        return y


class _PerSource(nn.Module):
    """A dense layer with weights per source, (sources, rows, n) to (sources, rows, m).

    It equals a transposed convolution for a single output frame.
    """

    def __init__(self, sources: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(sources, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(sources, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x @ self.weight + self.bias
        return y
