"""Small learned sources to test with: made by hand, or of noises of different colours."""

from __future__ import annotations

import itertools

import numpy as np

from rtsep.learned.decoder import Decoder
from rtsep.learned.source import Source, stream
from rtsep.spec import Float32

RATE, WINDOW, HOP = 16000, 64, 16
BINS = WINDOW // 2 + 1


def decoder(kind: str, rank: int = 5, bins: int = BINS, seed: int = 0) -> Decoder:
    """A random decoder: "nmf", "cnmf", "nae", "nae-deep" or "ccae"."""
    rng = np.random.default_rng(seed)
    taps = 3 if kind in ("cnmf", "ccae") else 1
    usual = rng.uniform(0.5, 1.5, rank).astype(np.float32)
    usual /= usual.sum()
    if kind in ("nmf", "cnmf"):
        w = rng.uniform(0, 1, (taps * rank, bins)).astype(np.float32)
        w /= np.tile(w.reshape(taps, rank, bins).sum(axis=(0, 2)), taps)[:, None]
        return Decoder((w,), taps, True, 1.0, usual)
    widths = [taps * rank, *([7] if kind == "nae-deep" else []), bins]
    matrices = [
        rng.normal(0.5, 1.0, pair).astype(np.float32) for pair in itertools.pairwise(widths)
    ]
    return Decoder(tuple(matrices), taps, False, 0.05, usual)


def source(name: str, kind: str = "nmf", seed: int = 0, **options: int) -> Source:
    spec = stream(name, RATE, WINDOW, HOP)
    return Source(name, kind, decoder(kind, seed=seed, **options), spec, "by hand")


def noise(centre_hz: float, seconds: float, seed: int = 0, rate: int = 16000) -> Float32:
    """(n,) noise around a frequency, two octaves wide, that comes and goes."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hz = np.maximum(np.fft.rfftfreq(n, 1 / rate), 1.0)
    x = np.fft.irfft(spectrum * np.exp(-((np.log2(hz / centre_hz)) ** 2)), n)
    knots = rng.uniform(0.1, 1, n // 2000 + 2)
    x *= np.interp(np.arange(n), 2000 * np.arange(len(knots)), knots)
    return np.asarray(0.1 * x / x.std(), np.float32)
