"""Deep clustering of Hershey et al., with LSTM layers.

J. R. Hershey, Z. Chen, J. Le Roux, S. Watanabe, "Deep Clustering: Discriminative Embeddings for
Segmentation and Separation", ICASSP 2016, arXiv 1508.04306.

LSTM layers yield a unit vector for every time-frequency bin; in training, vectors of bins of the
same source come to agree, and others to be orthogonal. The paper clusters the bins of a whole
recording by k-means. Live, the clusters are those of :mod:`rtsep.models.attractors`, one soft step
per frame; where they start is learned beside the embeddings, without influence on them.

Causality: the LSTM layers run forwards only, and a frame is clustered by the frames before it. No
frame waits for another; with lookahead, the embeddings of a frame know the frames after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.models.attractors import Attractors
from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Delay, ForgettingMean
from rtsep.nn.lstm import LSTM
from rtsep.nn.masks import EPSILON, magnitude
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Hershey, Chen, Le Roux, Watanabe: Deep Clustering: Discriminative Embeddings for Segmentation "
    "and Separation, ICASSP 2016"
)
SIZES: dict[str, dict[str, int]] = {
    "full": {"hidden": 600, "layers": 2, "embedding": 40},
    "small": {"hidden": 128, "layers": 2, "embedding": 12},
}
"""The network of the paper, and one for a laptop."""

SHARPNESS = 3.0
"""Length of the embeddings that are clustered: with 1, masks would be almost equal."""
AUDIBLE = 0.01
"""Power, relative to the running mean over bins and time, at which the loudness of a bin is 0.5."""
LEVEL_S = 2.0
"""Time constant of that mean."""


def build(spec: Spec, **options: Any) -> Clustering:
    """Build the network for the frames of ``spec``, with the options of `Clustering`."""
    options.setdefault("level_frames", LEVEL_S * spec.sample_rate / spec.hop_length)
    return Clustering(**of_spectra("clustering", spec), **options)


class Clustering(Streaming):
    """Maps mixture spectra to source spectra by soft masks.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, sources, channels, 2, bins).
    All channels get the same masks, from their joint magnitude.

    Parameters
    ----------
    bins, sources, channels, lookahead
        Sizes of the frames.
    hidden, layers
        Units of each LSTM layer, and number of layers.
    embedding
        Dimensions of a bin's embedding.
    level_frames
        Time constant, in frames, of the level that the loudness of bins is relative to.
    """

    def __init__(
        self,
        bins: int,
        sources: int,
        channels: int = 1,
        lookahead: int = 0,
        hidden: int = 600,
        layers: int = 2,
        embedding: int = 40,
        level_frames: float = 250.0,
    ) -> None:
        super().__init__()
        self.lookahead, self.embedding = lookahead, embedding
        self.lstm = LSTM(bins, hidden, layers)
        self.out = nn.Linear(hidden, bins * embedding)
        self.level = ForgettingMean(level_frames)
        self.attractors = Attractors(sources, embedding)
        self.loudness = Delay(lookahead, (bins,))
        self.delay = Delay(lookahead, (channels, 2, bins))

    def initial_state(self, streams: int) -> State:
        """Return zeros for the LSTM layers, level, clusters and delays."""
        parts: dict[str, Any] = {
            "lstm": self.lstm,
            "level": self.level,
            "loudness": self.loudness,
            "attractors": self.attractors,
            "delay": self.delay,
        }
        return {name: part.initial_state(streams) for name, part in parts.items()}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``."""
        units, loudness, after = self.embed(x, state)
        clustered = self.attractors(SHARPNESS * units, loudness, state["attractors"])
        masks, after["attractors"] = clustered
        late, after["delay"] = self.delay(x, state.get("delay", {}))
        return masks[:, :, :, None, None] * late.unsqueeze(2), after

    def embed(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return unit vectors (streams, frames, bins, size) and loudness without the last axis.

        Those of index ``t`` belong to mixture frame ``t - lookahead``.
        """
        after: State = {}
        h, after["lstm"] = self.lstm(magnitude(x), state["lstm"])
        vectors = self.out(h).unflatten(2, (-1, self.embedding))
        units = vectors / (vectors.square().sum(dim=-1, keepdim=True) + EPSILON).sqrt()
        power = x.square().sum(dim=(2, 3)) / x.shape[2]
        level, after["level"] = self.level(power.mean(dim=-1), state["level"])
        loudness = power / (power + AUDIBLE * level.unsqueeze(-1) + EPSILON)
        loudness, after["loudness"] = self.loudness(loudness, state.get("loudness", {}))
        return units, loudness, after

    def loss(
        self, mixture: Tensor, targets: Tensor, orders: Sequence[Sequence[int]] = ()
    ) -> Tensor:
        """Return the loss of the embeddings, plus that of where the clusters start.

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
        with x.device:
            state = self.initial_state(x.shape[0])
        units, loudness, _ = self.embed(x, state)
        units, loudness = units[:, self.lookahead :].float(), loudness[:, self.lookahead :]
        powers = targets.square().sum(dim=(3, 4))
        owners = (powers == powers.amax(dim=2, keepdim=True)).float().transpose(2, 3)
        own = affinity_error(*(part.flatten(1, 2) for part in (units, owners, loudness)))
        vectors = SHARPNESS * units.detach()
        start = self.attractors.loss(vectors, loudness, mixture, targets, orders)
        return own + start


def affinity_error(units: Tensor, owners: Tensor, weight: Tensor) -> Tensor:
    """Return |VV' - YY'|^2 over pairs of bins, weighted, relative to the weight of all pairs.

    The matrices of pairs are never formed: it equals |V'V|^2 - 2 |V'Y|^2 + |Y'Y|^2.

    Parameters
    ----------
    units
        V, unit vectors (streams, n, size).
    owners
        Y, 1 for the source that owns a bin and 0 for others, (streams, n, sources).
    weight
        Weight of each bin, (streams, n); that of a pair is the product.

    Returns
    -------
    Tensor
        Mean over streams.
    """
    root = weight.sqrt().unsqueeze(-1)
    v, y = root * units, root * owners
    error = v.new_zeros(v.shape[0])
    for left, right, factor in ((v, v, 1.0), (v, y, -2.0), (y, y, 1.0)):
        error = error + factor * (left.mT @ right).square().sum(dim=(1, 2))
    return (error / (weight.sum(dim=1).square() + EPSILON)).mean()
