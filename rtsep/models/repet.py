"""What repeats, and what doesn't, without training: REPET-SIM with a bounded memory.

Z. Rafii, B. Pardo, "Online REPET-SIM for Real-Time Speech Enhancement", ICASSP 2013.

The accompaniment of a song repeats, at any interval; the voice above it does not. Each frame is
compared with those of the last seconds. The median over the most similar ones is what repeats: a
voice, which is in few of them, is left out. A mask keeps of each bin no more than this. Spectra are
compared by the roots of their magnitudes, so that a loud voice does not hide what is under it.

Causality: only past frames are compared, and only those of the memory. Nothing repeats in the first
seconds, when all goes to the last source.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rtsep.nn.frontend import of_spectra
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = "Rafii, Pardo: Online REPET-SIM for Real-Time Speech Enhancement, ICASSP 2013"
SIZES: dict[str, dict[str, Any]] = {"small": {}}
"""There are no weights, so there is one size."""

HIGHEST_BEAT_HZ = 10.0
"""Similar frames are further apart than half of its period: the same sound counts once."""
LOWEST_HZ = 100.0
"""Bins below this are no part of a voice: they are kept whole with what repeats."""
TINY = 1e-20


def build(spec: Spec, **options: Any) -> Repet:
    """Build it for the frames of ``spec``, with the options of `Repet` in seconds.

    Raises
    ------
    ValueError
        The stream hasn't one channel and two sources of spectra, or waits for later frames.
    """
    found = of_spectra("repet", spec)
    if (spec.channels, len(spec.sources), spec.lookahead) != (1, 2, 0):
        raise ValueError("repet separates 1 channel into 2 sources without lookahead")
    frames_per_second = spec.sample_rate / spec.hop_length
    lowest = round(LOWEST_HZ * spec.window_length / spec.sample_rate)
    return Repet(found["bins"], frames_per_second, lowest, **options)


class Repet(Streaming):
    """Maps spectra of a mixture to what does not repeat, and what does.

    Shapes: (streams, frames, 1 channel, 2, bins) -> (streams, frames, 2 sources, 1, 2, bins). The
    sources add up to the mixture.

    Parameters
    ----------
    bins
        Bins of a spectrum.
    frames_per_second
        Rate of the frames.
    lowest
        Number of bins, from the lowest, that are kept whole with what repeats.
    memory_s
        Seconds of the past that are compared.
    similar
        Number of frames in a median.
    """

    def __init__(
        self,
        bins: int,
        frames_per_second: float,
        lowest: int = 0,
        memory_s: float = 10.0,
        similar: int = 9,
    ) -> None:
        super().__init__()
        self.bins, self.lowest, self.similar = bins, lowest, similar
        self.frames = round(memory_s * frames_per_second)
        self.apart = round(frames_per_second / HIGHEST_BEAT_HZ / 2)
        if self.frames < similar:
            raise ValueError(f"a memory of {self.frames} frames has no {similar} similar ones")

    def initial_state(self, streams: int) -> State:
        """Return zeros for the roots of the magnitudes of the last frames, the latest last."""
        return {"past": torch.zeros(streams, self.frames, self.bins)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate, frame by frame."""
        past, frames = state["past"], []
        for frame in x.unbind(1):
            loudness = frame.square().sum(dim=2).clamp_min(TINY) ** 0.25
            repeated = self._repeated(past, loudness)
            past = torch.cat([past[:, 1:], loudness], dim=1)
            mask = (repeated / loudness).clamp_max(1.0).square()
            low = F.pad(torch.ones_like(mask[..., : self.lowest]), (0, self.bins - self.lowest))
            kept = frame * torch.maximum(mask, low).unsqueeze(2)
            frames.append(torch.stack([frame - kept, kept], dim=1))
        return torch.stack(frames, dim=1), {"past": past}

    def _repeated(self, past: Tensor, frame: Tensor) -> Tensor:
        """Return the median of the most similar past frames, (streams, 1, bins)."""
        length = past.square().sum(dim=2).clamp_min(TINY).sqrt()
        likeness = (past @ frame.transpose(1, 2)).squeeze(2) / length
        likeness = likeness / frame.square().sum(dim=2).clamp_min(TINY).sqrt()
        near = F.max_pool1d(likeness.unsqueeze(1), 2 * self.apart + 1, 1, self.apart).squeeze(1)
        likeness = torch.where(likeness >= near, likeness, torch.zeros_like(likeness))
        best, places = likeness.topk(self.similar, dim=1)
        chosen = past.gather(1, places.unsqueeze(2).expand(-1, -1, self.bins))
        chosen = torch.where((best > 0).unsqueeze(2), chosen, frame)
        half = self.similar // 2 + 1
        return chosen.topk(half, dim=1).values[:, -1:]
