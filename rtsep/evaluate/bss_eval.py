"""BSS Eval version 4 for images, as in the separation campaigns, in numpy.

E. Vincent, R. Gribonval, C. Fevotte, "Performance measurement in blind audio source separation",
IEEE TASLP 2006; for images E. Vincent et al., "The signal separation evaluation campaign
(2007-2010)", Signal Processing 2012; version 4 F.-R. Stoter, A. Liutkus, N. Ito, "The 2018 signal
separation evaluation campaign", LVA/ICA 2018: the distortion filters are estimated once for
the whole track, the ratios frame by frame. The package ``museval`` needs ffmpeg to be imported.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtsep.spec import Float64

Complex = NDArray[np.complex128]

FILTER_LENGTH = 512
"""Taps of the distortion filters."""
_BLOCK = 1 << 15  # samples correlated at once
TINY = 1e-20
"""Smallest power that counts: ratios of silence stay finite."""


class BssEval(NamedTuple):
    """Medians over the frames in dB, each (sources,); NaN if every frame has a silent signal."""

    sdr: Float64
    isr: Float64
    sir: Float64
    sar: Float64


def bss_eval(
    estimates: ArrayLike,
    references: ArrayLike,
    frame_length: int,
    filter_length: int = FILTER_LENGTH,
) -> BssEval:
    """Compute SDR, ISR (image to spatial distortion), SIR and SAR.

    Parameters
    ----------
    estimates, references
        (sources, samples, channels). No reference may be silent.
    frame_length
        Samples per frame, one second in the campaigns. Frames don't overlap. An incomplete last
        frame is ignored unless it is the only one; frames with a silent signal are ignored.
    filter_length
        Taps of the distortion filters.
    """
    x, s = np.asarray(estimates, np.float64), np.asarray(references, np.float64)
    if x.shape != s.shape or s.ndim != 3:
        raise ValueError(
            f"estimates and references must be (sources, samples, channels), "
            f"not {x.shape} and {s.shape}"
        )
    sources, samples = s.shape[:2]
    tail = filter_length - 1
    fft_length = 1 << (min(frame_length, samples) + tail - 1).bit_length()
    every, own = (np.fft.rfft(taps, fft_length) for taps in _filters(x, s, filter_length))
    frames = [
        slice(start, start + frame_length)
        for start in range(0, max(samples - frame_length, 0) + 1, frame_length)
    ]
    ratios = [_frame(x[:, frame], s[:, frame], every, own, tail) for frame in frames]
    found = [ratio for ratio in ratios if ratio is not None]
    if not found:
        return BssEval(*np.full((4, sources), np.nan))
    return BssEval(*np.median(found, axis=0))


def _frame(x: Float64, s: Float64, every: Complex, own: Complex, tail: int) -> Float64 | None:
    """Return the (4, sources) ratios of one frame in dB, or None if a signal is silent."""
    if not (x.any(axis=(1, 2)).all() and s.any(axis=(1, 2)).all()):
        return None
    estimate, target = (np.pad(signals, ((0, 0), (0, tail), (0, 0))) for signals in (x, s))
    fft_length = 2 * (own.shape[-1] - 1)
    spectra = np.fft.rfft(s, fft_length, axis=1)
    # References: sources j, channels c; estimates: sources k, channels d; bins f.
    products = np.stack(
        [
            np.einsum("jfc,jcdf->jfd", spectra, own),
            np.einsum("jfc,jckdf->kfd", spectra, every),
        ]
    )
    image, projection = np.fft.irfft(products, fft_length, axis=2)[:, :, : target.shape[1]]

    def ratio_db(signal: Float64, error: Float64) -> Float64:
        powers = [np.maximum((part**2).sum(axis=(1, 2)), TINY) for part in (signal, error)]
        decibels: Float64 = 10 * np.log10(powers[0] / powers[1])
        return decibels

    return np.stack(
        [
            ratio_db(target, target - estimate),
            ratio_db(target, image - target),
            ratio_db(image, projection - image),
            ratio_db(projection, estimate - projection),
        ]
    )


def _filters(x: Float64, s: Float64, taps: int) -> tuple[Float64, Float64]:
    """Estimate the filters that map the references to each estimate, by least squares.

    Returns
    -------
    every
        (sources, channels, estimates, channels, taps): from all references together.
    own
        (sources, channels, channels, taps): from the estimate's own reference alone.
    """
    sources, samples, channels = s.shape
    signals = s.transpose(0, 2, 1).reshape(-1, samples)
    targets = x.transpose(0, 2, 1).reshape(-1, samples)
    lag = np.arange(taps)
    # gram[p, i, q, j] = sum over n of signal p at n - i times signal q at n - j
    gram = _correlations(signals, signals, taps)[:, :, lag[:, None] - lag + taps - 1]
    gram = gram.transpose(0, 2, 1, 3).reshape(len(signals) * taps, -1)
    cross = _correlations(signals, targets, taps)[:, :, taps - 1 :]
    cross = cross.transpose(0, 2, 1).reshape(len(signals) * taps, -1)
    every = _solve(gram, cross).reshape(sources, channels, taps, sources, channels)
    width = channels * taps
    own = np.empty((sources, channels, taps, channels))
    for source in range(sources):
        rows = slice(source * width, (source + 1) * width)
        columns = slice(source * channels, (source + 1) * channels)
        solution = _solve(gram[rows, rows], cross[rows, columns])
        own[source] = solution.reshape(channels, taps, channels)
    return every.transpose(0, 1, 3, 4, 2), own.transpose(0, 1, 3, 2)


def _correlations(x: Float64, y: Float64, taps: int) -> Float64:
    """Return sum over n of x[n] y[n + lag], lags from 1 - taps: (len(x), len(y), 2 taps - 1)."""
    fft_length = 1 << (_BLOCK + 2 * taps - 1).bit_length()
    padded = np.pad(y, ((0, 0), (taps - 1, taps - 1)))
    total = np.zeros((len(x), len(y), fft_length // 2 + 1), np.complex128)
    for start in range(0, x.shape[1], _BLOCK):
        part = np.fft.rfft(x[:, start : start + _BLOCK], fft_length)
        other = np.fft.rfft(padded[:, start : start + _BLOCK + 2 * taps - 2], fft_length)
        total += part.conj()[:, None] * other
    return np.fft.irfft(total, fft_length)[:, :, : 2 * taps - 1]


def _solve(gram: Float64, cross: Float64) -> Float64:
    """Solve the normal equations; the minimum-norm solution if they are singular."""
    try:
        taps = np.linalg.solve(gram, cross)
    except np.linalg.LinAlgError:
        taps = np.linalg.lstsq(gram, cross, rcond=None)[0]
    return np.asarray(taps, np.float64)
