"""Beats and what is sustained, without training: independent subspace analysis, online.

M. A. Casey, A. Westner, "Separation of Mixed Audio Sources by Independent Subspace Analysis",
ICMC 2000.

The frames of a mono spectrogram, less their mean, are sums of a few spectra whose weights over time
are independent of each other. A source is a subspace: the components that belong together. Here a
component belongs to the beats as far as its weight is mostly near zero and rarely large (kurtosis);
a voice, a chord or a fan does not do that. Masks are the shares of the components' powers.

Causality: the paper decomposes blocks of a recording as a whole. Here filters learn from every
frame by the relative gradient (Cardoso and Laheld, "Equivariant Adaptive Source Separation", IEEE
TSP 1996), so the first seconds of a stream are hardly separated.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rtsep.nn.frontend import of_spectra
from rtsep.nn.masks import compressed
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Casey, Westner: Separation of Mixed Audio Sources by Independent Subspace Analysis, ICMC 2000"
)
SIZES: dict[str, dict[str, Any]] = {"small": {}}
"""There are no weights, so there is one size."""

RATE = 0.003
"""Step of the filters per frame."""
USUAL_KURTOSIS, SHARPNESS = 3.0, 3.0
"""Kurtosis of a component of both sources alike, that of noise, and how fast it becomes one's."""
TINY = 1e-12


def build(spec: Spec, **options: Any) -> ISA:
    """Build it for the frames of ``spec``, with the options of `ISA`.

    Raises
    ------
    ValueError
        The stream hasn't one channel and two sources of spectra, or waits for later frames.
    """
    found = of_spectra("isa", spec)
    if (spec.channels, len(spec.sources), spec.lookahead) != (1, 2, 0):
        raise ValueError("isa separates 1 channel into 2 sources without lookahead")
    return ISA(found["bins"], spec.sample_rate / spec.hop_length, **options)


class ISA(Streaming):
    """Maps spectra of a mixture to its beats, and to the rest.

    Shapes: (streams, frames, 1 channel, 2, bins) -> (streams, frames, 2 sources, 1, 2, bins). The
    sources add up to the mixture.

    Parameters
    ----------
    bins
        Bins of a spectrum.
    frames_per_second
        Rate of the frames.
    components
        Number of components.
    memory_s
        Seconds over which means and moments are taken.
    """

    def __init__(
        self,
        bins: int,
        frames_per_second: float,
        components: int = 12,
        memory_s: float = 3.0,
    ) -> None:
        super().__init__()
        self.bins, self.components = bins, components
        self.new = 1 - math.exp(-1 / (memory_s * frames_per_second))
        # Filters begin as waves over a scale of frequency on which octaves are equal.
        octaves = torch.log2(1 + torch.arange(bins) / 8)
        places = octaves / octaves[-1]
        waves = torch.cos(math.pi * torch.arange(components)[:, None] * places)
        self.register_buffer("waves", waves / waves.norm(dim=1, keepdim=True), persistent=False)
        self.register_buffer("identity", torch.eye(components), persistent=False)
        self.waves: Tensor
        self.identity: Tensor

    def initial_state(self, streams: int) -> State:
        """Return zeros: mean, filters less the waves, components, moments, share of memory."""
        shape = (streams, self.components, self.bins)
        return {
            "mean": torch.zeros(streams, self.bins),
            "power": torch.zeros(streams, 1),
            "filters": torch.zeros(*shape),
            "spectra": torch.zeros(*shape),
            "moments": torch.zeros(streams, 2, self.components),
            "memory": torch.zeros(streams, 1),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate, frame by frame, because each frame changes the filters of the next."""
        frames = []
        for frame in x.unbind(1):
            y, state = self._step(frame, state)
            frames.append(y)
        return torch.stack(frames, dim=1), state

    def _step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        small, _ = compressed(x)
        heard = small.square().sum(dim=2).clamp_min(TINY).sqrt().squeeze(1)
        memory = state["memory"]
        memory = memory + self.new * (1 - memory)
        new = self.new / memory  # a plain mean at first, a forgetting one later
        mean = state["mean"] + new * (heard - state["mean"])
        beyond = heard - mean
        power = state["power"]
        power = power + new * (beyond.square().mean(dim=1, keepdim=True) - power)
        v = beyond / power.clamp_min(TINY).sqrt()

        filters = state["filters"] + self.waves
        y = (filters @ v.unsqueeze(2)).squeeze(2) / self.components**0.5
        filters = filters + self._learned(y) @ filters
        spectra = state["spectra"]
        spectra = spectra + new.unsqueeze(2) * (y.unsqueeze(2) * beyond.unsqueeze(1) - spectra)
        squares = y.square()
        moments = state["moments"]
        moments = moments + new.unsqueeze(2) * (torch.stack([squares, squares**2], 1) - moments)
        spread = moments[:, 0].clamp_min(TINY)
        kurtosis = moments[:, 1] / spread.square().clamp_min(TINY)
        beats = torch.sigmoid(SHARPNESS * (kurtosis - USUAL_KURTOSIS)) * memory

        each = (spectra * (y / spread).unsqueeze(2)).square()
        total = (each.sum(dim=1) + mean.square()).clamp_min(TINY)
        mask = (beats.unsqueeze(2) * each).sum(dim=1) / total
        kept = x * mask[:, None, None]
        return torch.stack([kept, x - kept], dim=1), {
            "mean": mean,
            "power": power,
            "filters": filters - self.waves,
            "spectra": spectra,
            "moments": moments,
            "memory": memory,
        }

    def _learned(self, y: Tensor) -> Tensor:
        """Return the change of the filters, relative to them, (streams, components, components)."""
        bent = torch.tanh(y)
        outer = y.unsqueeze(2) * y.unsqueeze(1)
        turn = bent.unsqueeze(2) * y.unsqueeze(1)
        turn = turn - turn.transpose(1, 2)
        white = 1 + RATE * y.square().sum(dim=1)
        apart = 1 + RATE * (bent * y).sum(dim=1).abs()
        change = (self.identity - outer) / white[:, None, None] + turn / apart[:, None, None]
        return RATE * change
