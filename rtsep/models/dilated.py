"""Dilated fixed-lag convolutional network with attractors.

S. Mobin, B. Cheung, B. Olshausen, "Convolutional vs. Recurrent Neural Networks for Audio Source
Separation", 2018, arXiv 1803.08629.

Thirteen layers of 3x3 convolutions over time and frequency, dilated by 1, 2, ... 32 frames and bins
twice and by 1 at the end, compute an embedding of every time-frequency bin; attractors (see
:mod:`rtsep.models.attractors`) map embeddings to masks. The lookahead of the paper is 127 frames;
here it is an option.

In a stream, a layer always reads its newest input and the inputs ``dilation`` and ``2 * dilation``
frames before. A lookahead of ``r`` frames means that the output belongs to the frame ``r`` frames
before, so the first layers use up the lookahead, and it only determines the delays of residual
paths, loudness and mixture.

The highest bin, at half the sample rate, has no embedding and gets the mask of its neighbour. So
the other 2^n bins form pairs for every dilation, which saves a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.models.attractors import Attractors
from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Delay, ForgettingMean
from rtsep.nn.streaming import State, Streaming, extend, recall
from rtsep.spec import Spec

PAPER = (
    "Mobin, Cheung, Olshausen: Convolutional vs. Recurrent Neural Networks for Audio Source "
    "Separation, arXiv 1803.08629, 2018"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"features": 128},
    "half": {"features": 64},
    "medium": {"features": 32},
    "small": {"features": 16},
}
"""The network of the paper, and smaller ones."""

DILATIONS = (1, 2, 4, 8, 16, 32, 1, 2, 4, 8, 16, 32, 1)
LOOKAHEAD = sum(DILATIONS)
"""Largest useful lookahead in frames, the fixed lag of the paper."""
EPSILON = 1e-7  # smaller values are lost in the ONNX export
AUDIBLE = 0.01
"""Power, relative to the running mean over bins and time, at which the loudness of a bin is 0.5."""


def build(spec: Spec, **options: Any) -> Dilated:
    """Build the network for the frames of ``spec``, with the options of `Dilated`."""
    return Dilated(**of_spectra("dilated", spec), **options)


class Dilated(Streaming):
    """Maps mixture spectra to source spectra by soft masks.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, sources, channels, 2, bins).

    Parameters
    ----------
    bins, channels, sources
        Sizes of the spectra. All channels get the same masks, from their joint power.
    lookahead
        0 to `LOOKAHEAD` frames; the weights have the same shapes for all.
    features
        Features of the hidden layers; 128 in the paper.
    embedding
        Dimensions of a bin's embedding; 20 in the paper.
    compression
        Exponent of the magnitudes at the input.
    level_frames
        Time constant, in frames, of the running level by which the input is divided.

    Raises
    ------
    ValueError
        The lookahead is out of range, or the bins do not form pairs for every dilation.
    """

    def __init__(
        self,
        bins: int,
        sources: int,
        channels: int = 1,
        lookahead: int = 0,
        features: int = 128,
        embedding: int = 20,
        compression: float = 0.3,
        level_frames: float = 250.0,
    ) -> None:
        super().__init__()
        if not 0 <= lookahead <= LOOKAHEAD:
            raise ValueError(f"lookahead must be 0 to {LOOKAHEAD} frames, not {lookahead}")
        pair = 2 * max(DILATIONS)
        if (bins - 1) % pair:
            raise ValueError(
                f"window_length must be a multiple of {2 * pair}, not {2 * (bins - 1)}"
            )
        self.lookahead = lookahead
        self.compression = compression
        self.level = ForgettingMean(level_frames)
        sizes = [1, *[features] * (len(DILATIONS) - 1), embedding]
        self.layers = nn.ModuleList(
            _Layer(sizes[i], sizes[i + 1], dilation, bins - 1, norm=i + 1 < len(DILATIONS))
            for i, dilation in enumerate(DILATIONS)
        )
        contexts = []
        left = lookahead
        for dilation in DILATIONS:
            contexts.append(min(dilation, left))
            left -= contexts[-1]
        self.residuals = nn.ModuleDict(  # around layers 2 and 3, 4 and 5, ... 10 and 11 of 0 to 12
            {
                f"{i}": Delay(contexts[i] + contexts[i + 1], (bins - 1, features))
                for i in range(2, len(DILATIONS) - 1, 2)
            }
        )
        self.attractors = Attractors(sources, embedding)
        self.loudness = Delay(lookahead, (bins - 1,))
        self.delay = Delay(lookahead, (channels, 2, bins))

    def initial_state(self, streams: int) -> State:
        """Return the initial states of all layers, delays, level and attractors."""
        parts: dict[str, Any] = {
            "level": self.level,
            **{f"layer{i}": layer for i, layer in enumerate(self.layers)},
            **{f"residual{i}": delay for i, delay in self.residuals.items()},
            "attractors": self.attractors,
            "loudness": self.loudness,
            "delay": self.delay,
        }
        return {name: part.initial_state(streams) for name, part in parts.items()}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``."""
        embeddings, loudness, following = self.embed(x, state)
        masks, following["attractors"] = self.attractors(embeddings, loudness, state["attractors"])
        masks = torch.cat([masks, masks[..., -1:]], dim=-1)
        mixture, following["delay"] = self.delay(x, state.get("delay", {}))
        return masks[:, :, :, None, None] * mixture.unsqueeze(2), following

    def embed(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return embeddings (streams, frames, bins - 1, size) and loudness without the last axis.

        Those of index ``t`` belong to mixture frame ``t - lookahead``.
        """
        following: State = {}
        power = x[..., :-1].square().sum(dim=(2, 3)) / x.shape[2]
        level, following["level"] = self.level(power.mean(dim=-1), state["level"])
        level = level.unsqueeze(-1) + EPSILON
        h = ((power + EPSILON) / level).pow(self.compression / 2).unsqueeze(-1)
        skipped = h
        for i, layer in enumerate(self.layers):
            if f"{i}" in self.residuals:
                name = f"residual{i}"
                skipped, following[name] = self.residuals[f"{i}"](h, state.get(name, {}))
            h, following[f"layer{i}"] = layer(h, state[f"layer{i}"])
            if f"{i - 1}" in self.residuals:
                h = h + skipped
            if i < len(self.layers) - 1:
                h = torch.relu(h)
        loudness = power / (power + AUDIBLE * level)
        loudness, following["loudness"] = self.loudness(loudness, state.get("loudness", {}))
        return h, loudness, following

    def loss(
        self, mixture: Tensor, targets: Tensor, orders: Sequence[Sequence[int]] = ()
    ) -> Tensor:
        """Return the training loss, see :meth:`rtsep.models.attractors.Attractors.loss`.

        Parameters
        ----------
        mixture
            (streams, frames, channels, 2, bins).
        targets
            (streams, frames, sources, channels, 2, bins), aligned with ``mixture``.
        orders
            Orders that the sources can be in; all of them if none are given.
        """
        x = F.pad(mixture, (0, 0, 0, 0, 0, 0, 0, self.lookahead))
        embeddings, loudness, _ = self.embed(x, self.initial_state(x.shape[0]))
        embeddings, loudness = embeddings[:, self.lookahead :], loudness[:, self.lookahead :]
        spectra = mixture[..., :-1], targets[..., :-1]
        return self.attractors.loss(embeddings, loudness, *spectra, orders)


class _Layer(Streaming):
    """A 3x3 convolution, dilated equally in time and frequency, with batch norm.

    Shapes: (streams, frames, bins, inputs) -> (streams, frames, bins, outputs); bins beyond the
    lowest and highest are zero. In training the norm uses the batch's statistics; otherwise it is
    folded into the convolution.
    """

    FEW = 4
    """Largest number of frames that are computed like live ones."""

    def __init__(self, inputs: int, outputs: int, dilation: int, bins: int, norm: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.past_shape = (2 * dilation, bins, inputs)
        power = 2.0 if norm else 1 / outputs  # so that embeddings are about as long as anchors
        weight = torch.randn(outputs, inputs, 3, 3) * (power / (9 * inputs)) ** 0.5
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = nn.Parameter(torch.ones(outputs)) if norm else None
        self.register_buffer("mean", torch.zeros(outputs) if norm else None)
        self.register_buffer("variance", torch.ones(outputs) if norm else None)
        self.mean: Tensor
        self.variance: Tensor

    def initial_state(self, streams: int) -> State:
        """Return zeros for the past input frames."""
        return {"past": torch.zeros(streams, *self.past_shape)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Convolve; frame ``t`` of the output reads input frames up to ``t``."""
        if self.training:
            y, past = self._convolve(x, state["past"], self.weight)
            if self.gain is None:
                y = y + self.bias
            else:
                statistics = (self.mean, self.variance)
                y = y.movedim(-1, 1)
                y = F.batch_norm(y, *statistics, self.gain, self.bias, training=True).movedim(1, -1)
        elif x.shape[1] > self.FEW:
            y, past = self._convolve(x, state["past"], *self._folded())
        else:
            (older, old), past = recall(state["past"], x, [2 * self.dilation, self.dilation])
            y = self._pairs(torch.cat([older, old, x], dim=-1), *self._folded())
        return y, {"past": past}

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias with the norm folded in."""
        if self.gain is None:
            return self.weight, self.bias
        scale = self.gain * torch.rsqrt(self.variance + 1e-5)
        return self.weight * scale[:, None, None, None], self.bias - self.mean * scale

    def _convolve(
        self, x: Tensor, past: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Convolve many frames at once; return the result and the next past."""
        window, past = extend(past, x)
        d = self.dilation
        y = F.conv2d(window.movedim(-1, 1), weight, bias, padding=(0, d), dilation=d)
        return y.movedim(1, -1), past

    def _pairs(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve along frequency, (streams, frames, bins, 3 * inputs), two bins at once.

        Winograd's F(2, 3) for bins ``dilation`` apart: four products in place of six.
        S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast
        Algorithms for Convolutional Neural Networks", CVPR 2016.
        """
        low, middle, high = (weight[..., k].permute(2, 1, 0).flatten(0, 1) for k in range(3))
        ends = (low + high) / 2
        first, second = x.unflatten(2, (-1, 2, self.dilation)).split(1, dim=3)
        before = F.pad(second[:, :, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        after = F.pad(first[:, :, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
        plus = (first + second) @ (ends + middle / 2) + bias
        minus = (second - first) @ (ends - middle / 2)
        one = (before - second) @ low + (plus + minus)
        other = (after - first) @ high + (plus - minus)
        return torch.cat([one, other], dim=3).flatten(2, 4)
