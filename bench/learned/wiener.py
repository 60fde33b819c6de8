"""The decision-directed Wiener filter with a noise spectrum measured beforehand.

Y. Ephraim, D. Malah, "Speech enhancement using a minimum mean-square error short-time spectral
amplitude estimator", IEEE TASSP 1984 (the decision-directed estimate of the a priori SNR);
P. Scalart, J. Vieira Filho, "Speech enhancement based on a priori signal to noise estimation",
ICASSP 1996 (with the Wiener gain).
"""

from __future__ import annotations

import numpy as np

from bench.learned.material import HOP, RATE_HZ, WINDOW, cut, spectra
from rtsep.learned.frames import masked
from rtsep.learned.source import stream
from rtsep.spec import Float32

SMOOTHING = 0.98
"""Weight of the last frame's estimate."""
FLOOR_DB = -25.0
"""Smallest a priori SNR."""


def wiener(x: Float32, noise: Float32) -> Float32:
    """Remove noise from speech.

    Parameters
    ----------
    x
        (n,) samples of speech and noise.
    noise
        (m,) samples of the noise alone.

    Returns
    -------
    (n,) samples.
    """
    level = np.mean(spectra(noise).astype(np.float64) ** 2, axis=0) + 1e-12
    power = spectra(x).astype(np.float64) ** 2
    gains = np.empty((1, 1, *power.shape), np.float32)
    last = np.zeros_like(level)
    for frame, now in enumerate(power):
        posterior = now / level
        prior = SMOOTHING * last + (1 - SMOOTHING) * np.maximum(posterior - 1, 0)
        prior = np.maximum(prior, 10 ** (FLOOR_DB / 10))
        gain = prior / (1 + prior)
        last = gain**2 * posterior
        gains[0, 0, frame] = gain
    spec = stream("speech", RATE_HZ, WINDOW, HOP)
    parts = masked(cut(x), spec, 1, RATE_HZ, gains)
    return np.concatenate([part.copy() for part in parts])[:, 0, 0]
