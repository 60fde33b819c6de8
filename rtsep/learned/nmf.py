"""Non-negative matrix factorisation of one source, plain or convolutive.

Multiplicative updates of D. Lee, H. S. Seung, "Algorithms for non-negative matrix factorization",
NIPS 2000, under the Kullback-Leibler divergence; with several taps those of P. Smaragdis,
"Convolutive speech bases and their application to supervised speech separation", IEEE TASLP 2007.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rtsep.learned.decoder import EPSILON, Decoder, fold, unfold
from rtsep.spec import Float32


def learn(
    x: Float32,
    rank: int,
    taps: int = 1,
    updates: int = 200,
    sparsity: float = 0.0,
    seed: int = 0,
    done: Callable[[], object] = lambda: None,
) -> tuple[Decoder, Float32]:
    """Learn a dictionary from one source alone.

    Parameters
    ----------
    x
        (frames, bins) magnitudes.
    rank
        Number of entries: spectra, or spectrograms of ``taps`` frames.
    taps
        Frames per entry.
    updates
        Number of updates of activations and dictionary.
    sparsity
        Penalty of the activations, relative to the level of the sound.
    seed
        Seed of the random initialisation.
    done
        Called after each update.

    Returns
    -------
    The decoder, whose entries sum to 1 each, and the activations (frames, rank).
    """
    rng = np.random.default_rng(seed)
    level = x.sum(axis=1, keepdims=True)
    spectrum = x.mean(axis=0) + np.float32(EPSILON)
    w = spectrum * rng.uniform(0.1, 1.9, (taps * rank, x.shape[1])).astype(np.float32)
    h = level / rank * rng.uniform(0.5, 1.5, (len(x), rank)).astype(np.float32)
    h = np.pad(h, ((taps - 1, 0), (0, 0)))
    w /= _sums(w, rank, taps)
    for _ in range(updates):
        ratio = x / (unfold(h, taps) @ w + np.float32(EPSILON))
        loss = fold(np.broadcast_to(w.sum(axis=1), (len(x), len(w))), taps)
        h *= fold(ratio @ w.T, taps) / (loss + np.float32(sparsity + EPSILON))
        h[: taps - 1] = 0.0  # silence before the first frame
        u = unfold(h, taps)
        ratio = x / (u @ w + np.float32(EPSILON))
        w *= (u.T @ ratio) / (u.sum(axis=0)[:, None] + np.float32(EPSILON))
        sums = _sums(w, rank, taps)
        w /= sums
        h *= sums[:rank].T
        done()
    activations = h[taps - 1 :]
    usual = activations.mean(axis=0) + np.float32(EPSILON)
    return Decoder((w,), taps, True, 1.0, usual / usual.sum()), activations


def _sums(w: Float32, rank: int, taps: int) -> Float32:
    """Return the sum of each entry over bins and taps, (taps * rank, 1)."""
    sums = w.reshape(taps, rank, -1).sum(axis=(0, 2))
    return np.tile(sums + np.float32(1e-12), taps)[:, None]
