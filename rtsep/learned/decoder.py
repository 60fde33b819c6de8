"""The decoder of a learned source, from activations to magnitudes, and the fit of activations.

P. Smaragdis, S. Venkataramani, "A neural network alternative to non-negative audio models", ICASSP
2017 (arXiv 1609.03296); S. Venkataramani, C. Subakan, P. Smaragdis, "Neural network alternatives
to convolutive audio models for source separation", MLSP 2017 (arXiv 1709.07908). The sum v of the
decoders approximates the mixture's magnitudes x; the activations are fitted under the
Kullback-Leibler divergence sum x log(x / v) - x + v.

All decoders use the same update. G is the gradient of the divergence, propagated back through the
decoder; S is the same through the absolute values of all weights. (S + G) / 2 and (S - G) / 2 are
the positive and the negative part of the gradient; activations are multiplied by their ratio::

    h <- h * ((S - G) / (S + G + 2 penalty)) ** pace

For a linear decoder of non-negative weights this is the update of D. Lee, H. S. Seung, "Algorithms
for non-negative matrix factorization", NIPS 2000, and with several taps that of P. Smaragdis,
"Convolutive speech bases and their application to supervised speech separation", IEEE TASLP 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rtsep.spec import Float32

EPSILON = 1e-6
"""Added to decoded magnitudes: -150 dB re a full-scale sine in a window of 512."""
UPDATES = 100
"""Number of updates of a fit to a whole recording."""
PACE = 0.5
"""Exponent of the update for nonlinear decoders, where an exponent of 1 overshoots."""
LIMIT = 2.0
"""Largest factor of one update of nonlinear decoders; it keeps activations finite."""


@dataclass(frozen=True)
class Decoder:
    """Maps activations (frames, rank) to magnitudes (frames, bins), both non-negative.

    Attributes
    ----------
    matrices
        The first is (taps * rank, width), for the activations of this frame, of the one before and
        so on; further layers are (width, next width); the last is (., bins).
    taps
        Number of frames whose activations contribute to a frame.
    linear
        True for a single non-negative matrix (NMF); otherwise each layer ends in a softplus,
        log(1 + exp(z)).
    scale
        Factor of the output. Inside, magnitudes are large numbers, so that the knee of the softplus
        lies below them.
    usual
        (rank,) mean activations over the training sound, in units of its mean magnitude summed over
        bins; they sum to 1.
    """

    matrices: tuple[Float32, ...]
    taps: int
    linear: bool
    scale: float
    usual: Float32

    @property
    def rank(self) -> int:
        """Return the number of activations per frame."""
        return len(self.usual)

    @property
    def bins(self) -> int:
        """Return the number of magnitudes per frame."""
        return int(self.matrices[-1].shape[1])

    def explain(self, h: Float32) -> tuple[Float32, list[Float32]]:
        """Decode some frames.

        Parameters
        ----------
        h
            (frames + taps - 1, rank) activations, including those before the first frame.

        Returns
        -------
        (frames, bins) magnitudes, and the slopes of each layer for `trace`.
        """
        x, slopes = unfold(h, self.taps), list[Float32]()
        for matrix in self.matrices:
            x = x @ matrix
            if not self.linear:
                small = np.exp(-np.abs(x))
                slopes.append(np.where(x > 0, np.float32(1.0), small) / (1 + small))
                x = np.maximum(x, 0.0) + np.log1p(small)
        return x if self.linear else np.asarray(x * np.float32(self.scale)), slopes

    def trace(self, ratio: Float32, slopes: Sequence[Float32]) -> tuple[Float32, Float32]:
        """Compute both parts of the divergence's gradient for the activations.

        Parameters
        ----------
        ratio
            (frames, bins): mixture over decoded magnitudes.
        slopes
            As returned by `explain`.

        Returns
        -------
        Negative and positive part, both non-negative, each (frames + taps - 1, rank).
        """
        if self.linear:
            parts = ratio @ self.matrices[0].T, np.ones_like(ratio) @ self.matrices[0].T
            return fold(parts[0], self.taps), fold(parts[1], self.taps)
        scale = np.float32(self.scale)
        total, gradient = scale * (1 + ratio), scale * (1 - ratio)
        for matrix, slope in zip(reversed(self.matrices), reversed(slopes), strict=True):
            total = (total * slope) @ np.abs(matrix).T
            gradient = (gradient * slope) @ matrix.T
        total, gradient = fold(total, self.taps), fold(gradient, self.taps)
        return np.maximum(total - gradient, 0) / 2, np.maximum(total + gradient, 0) / 2


def unfold(h: Float32, taps: int) -> Float32:
    """Join the activations of each frame and of the taps - 1 frames before it, newest first.

    (frames + taps - 1, rank) become (frames, taps * rank).
    """
    frames = len(h) - taps + 1
    return np.concatenate([h[taps - 1 - t : taps - 1 - t + frames] for t in range(taps)], axis=1)


def fold(u: Float32, taps: int) -> Float32:
    """Transpose of `unfold`: sum the gradients of each activation."""
    frames, rank = len(u), u.shape[1] // taps
    h = np.zeros((frames + taps - 1, rank), u.dtype)
    for t in range(taps):
        h[taps - 1 - t : taps - 1 - t + frames] += u[:, t * rank : (t + 1) * rank]
    return h


@dataclass(frozen=True)
class Penalty:
    """Penalties of the activations, relative to the level of the sound.

    Attributes
    ----------
    sparsity
        lambda in lambda * sum |h|.
    crossing
        mu in mu * sum over frames of |h_i| |h_j| / |x|, for each pair of sources.
    """

    sparsity: float = 0.0
    crossing: float = 0.0


def start(level: Float32, decoder: Decoder, sources: int) -> Float32:
    """Return initial activations (frames, rank); each source gets an equal share of ``level``."""
    return level[:, None] * (decoder.usual / np.float32(sources))


def improve(
    x: Float32, decoders: Sequence[Decoder], activations: Sequence[Float32], penalty: Penalty
) -> None:
    """Update all activations once, in place.

    Parameters
    ----------
    x
        (frames, bins) magnitudes of the mixture.
    decoders
        Decoders of the sources.
    activations
        (frames + taps - 1, rank) of each source. Rows before the first frame are not changed.
    penalty
        Penalties of the activations.
    """
    explained = [d.explain(h) for d, h in zip(decoders, activations, strict=True)]
    ratio = x / (sum(y for y, _ in explained) + np.float32(EPSILON))
    level = x.sum(axis=1) + np.float32(EPSILON)
    shares = [
        h[d.taps - 1 :].sum(axis=1) / level for d, h in zip(decoders, activations, strict=True)
    ]
    for i, (decoder, h, (_, slopes)) in enumerate(
        zip(decoders, activations, explained, strict=True)
    ):
        gain, loss = (part[decoder.taps - 1 :] for part in decoder.trace(ratio, slopes))
        others = sum((s for j, s in enumerate(shares) if j != i), np.zeros_like(level))
        kept_small = penalty.sparsity + penalty.crossing * others[:, None]
        factor = gain / (loss + kept_small + np.float32(EPSILON))
        h[decoder.taps - 1 :] *= factor if decoder.linear else np.minimum(factor**PACE, LIMIT)


def masks(explained: Sequence[Float32]) -> Float32:
    """Return each source's share of the sum, (sources, frames, bins); the shares sum to 1."""
    parts = np.stack(explained) + np.float32(EPSILON / len(explained))
    return np.asarray(parts / parts.sum(axis=0), np.float32)


def fit(
    x: Float32, decoders: Sequence[Decoder], updates: int, penalty: Penalty | None = None
) -> Float32:
    """Fit the activations to a whole recording and compute the masks of the sources.

    Parameters
    ----------
    x
        (frames, bins) magnitudes of the mixture.
    decoders
        Decoders of the sources.
    updates
        Number of updates of all activations.
    penalty
        Penalties of the activations; none by default.

    Returns
    -------
    (sources, frames, bins) masks.
    """
    level = x.sum(axis=1)
    activations = [
        np.pad(start(level, d, len(decoders)), ((d.taps - 1, 0), (0, 0))) for d in decoders
    ]
    for _ in range(updates):
        improve(x, decoders, activations, penalty or Penalty())
    return masks([d.explain(h)[0] for d, h in zip(decoders, activations, strict=True)])
