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

Live, the products take less time than what stands between them in the graph, so ``forward`` keeps
to the few operations that ONNX Runtime does fast: frames as rows of matrices, and from the sources'
own layers on, the sources first.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import CausalConv, Delay, ForgettingMean
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
"""The network of the paper, and the same for speech of any level."""

EPSILON = 1e-7  # smaller ones are lost in the ONNX export


def build(spec: Spec, **options: Any) -> Chandna:
    """Make the network for the frames of ``spec``, with the options of `Chandna`."""
    return Chandna(**of_spectra("chandna", spec), **options)


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
        self.merged = used * horizontal * bins < vertical * (used * horizontal + bins)
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
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``.

        In between, rows are the frames of all streams, one after the other.
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
        shares, total = split(estimates.flatten(1))
        mixture, following["delay"] = self.delay(x, state.get("delay", {}))
        portion = mixture / total.view(streams, frames, 1, 1, bins)
        y = shares.view(self.sources, streams, frames, 1, 1, bins) * portion
        return y.movedim(0, 2), following

    def magnitude(self, x: Tensor) -> Tensor:
        """Joint magnitude of the channels, (streams, frames, channels, 2, bins) -> (rows, bins)."""
        parts = x.reshape(-1, 2 * x.shape[2], x.shape[4])
        power = (x.new_ones(1, parts.shape[1]) / x.shape[2] @ (parts * parts)).squeeze(1)
        if self.compression == 1.0:
            return torch.sqrt(power + EPSILON**2)
        return torch.pow(power + EPSILON, self.compression / 2)

    def log_magnitudes(self, h: Tensor) -> Tensor:
        """The way back per source, (sources, rows, positions) -> (sources, rows, bins)."""
        first, second = self.horizontal_back, self.vertical_back
        if self.merged:  # nothing stands between the two, so together they are one smaller product
            y: Tensor = h @ (first.weight @ second.weight) + second(first.bias)
        else:
            y = second(first(h))
        return y


def split(estimates: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over sources, (sources, n), as numerators (1, 1, sources, n) and their sum.

    In ONNX Runtime a softmax over another axis than the last takes five times as long, and pooling
    is the fastest maximum. The largest numerator is 1, so the sum is at least that; which number is
    taken off has no influence on the shares, hence no gradient.
    """
    estimates = estimates[None, None]
    sources = estimates.shape[2]
    numerators = torch.exp(estimates - F.max_pool2d(estimates.detach(), (sources, 1)))
    return numerators, numerators.new_ones(1, sources) @ numerators


class _PerSource(nn.Module):
    """A dense layer with its own weights for every source, (sources, rows, n) to (.., rows, m).

    Over one frame a transposed convolution is just that.
    """

    def __init__(self, sources: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(sources, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(sources, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x @ self.weight + self.bias
        return y
