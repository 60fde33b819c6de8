"""How good a separation is: adapters over metric libraries, and what is one formula.

Sound of several channels is one long vector to the formulas; the libraries take one channel.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

Band = Literal["wb", "nb"]

_TINY = 1e-20
PESQ_RATES_HZ: dict[Band, tuple[int, ...]] = {"wb": (16000,), "nb": (8000, 16000)}
"""Rates that ITU-T P.862 knows, by band."""
PESQ_LONGEST_S = 15.0
"""Room for less than 40 utterances of the shortest kind, 0.2 s, with the shortest pauses, 0.2 s."""
STOI_SHORTEST_S = 0.41
"""30 frames of 256 samples at 10 kHz, half overlapping."""


def _ratio_db(signal: Float64, error: Float64) -> float:
    return float(
        10 * np.log10(max(float(signal @ signal), _TINY) / max(float(error @ error), _TINY))
    )


def _vectors(estimate: ArrayLike, reference: ArrayLike) -> tuple[Float64, Float64]:
    x, s = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    if x.shape != s.shape or x.ndim not in (1, 2):
        raise ValueError(
            f"estimate and reference must be (samples,) or (samples, channels) of one shape, "
            f"not {x.shape} and {s.shape}"
        )
    return x.ravel(), s.ravel()


def _scaled(x: Float64, s: Float64) -> Float64:
    """Return the part of ``x`` along ``s``."""
    return s * (float(x @ s) / max(float(s @ s), _TINY))


def snr_db(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Signal-to-noise ratio 10 lg(|s|^2 / |s - x|^2), in dB, over the whole signal.

    The "SDR" of the Music Demixing Challenges (Y. Mitsufuji et al., "Music Demixing Challenge
    2021", Frontiers in Signal Processing 2022, equation 1).

    Parameters
    ----------
    estimate, reference
        (samples,) or (samples, channels), of one shape.
    """
    x, s = _vectors(estimate, reference)
    return _ratio_db(s, s - x)


def si_sdr_db(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio, in dB.

    J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3: no mean removal.

    Parameters
    ----------
    estimate, reference
        (samples,) or (samples, channels), of one shape.
    """
    x, s = _vectors(estimate, reference)
    target = _scaled(x, s)
    return _ratio_db(target, x - target)


def si_sir_sar_db(
    estimate: ArrayLike, reference: ArrayLike, others: ArrayLike
) -> tuple[float, float]:
    """Scale-invariant signal-to-interference and signal-to-artefacts ratios, in dB.

    Le Roux et al. 2019, section 3: interference is the part of the error in the span of all
    sources, artefacts the part outside, so that 10^(-SDR/10) = 10^(-SIR/10) + 10^(-SAR/10).

    Parameters
    ----------
    estimate, reference
        (samples,) or (samples, channels), of one shape.
    others
        (n, samples) or (n, samples, channels): the other sources.
    """
    x, s = _vectors(estimate, reference)
    target = _scaled(x, s)
    error = x - target
    rest = np.asarray(others, np.float64)
    span = np.concatenate([s[None], rest.reshape(len(rest), len(s))])
    weights = np.linalg.lstsq(span @ span.T, span @ error, rcond=None)[0]
    interference = weights @ span
    return _ratio_db(target, interference), _ratio_db(target, error - interference)


def pesq(estimate: ArrayLike, reference: ArrayLike, sample_rate: int, band: Band) -> float:
    """PESQ, MOS-LQO (ITU-T P.862.1, wide-band P.862.2), by the package ``pesq``.

    Longer sound is scored in equal pieces of up to `PESQ_LONGEST_S`, of which the mean counts: the
    recommendation is for 30 s at most (P.862.3), and the package crashes at 50 utterances.

    Parameters
    ----------
    estimate, reference
        (samples,) of speech.
    sample_rate
        In Hz, one of `PESQ_RATES_HZ` of the band.
    band
        ``"wb"`` or ``"nb"``.

    Returns
    -------
    float
        NaN where no speech is found or the signal is too short.
    """
    from pesq import PesqError
    from pesq import pesq as score

    if sample_rate not in PESQ_RATES_HZ[band]:
        raise ValueError(f"PESQ {band} is for {PESQ_RATES_HZ[band]} Hz, not {sample_rate}")
    x, s = np.asarray(estimate, np.float32), np.asarray(reference, np.float32)
    pieces = max(-(-len(s) // round(PESQ_LONGEST_S * sample_rate)), 1)
    found = []
    for piece, reference in zip(np.array_split(x, pieces), np.array_split(s, pieces), strict=True):
        if piece.any():  # else the package would divide by its level
            with suppress(PesqError):
                found.append(float(score(sample_rate, reference, piece, band)))
    return float(np.mean(found)) if found else float("nan")


def stoi(
    estimate: ArrayLike, reference: ArrayLike, sample_rate: int, extended: bool = False
) -> float:
    """Short-time objective intelligibility, 0 to 1, by the package ``pystoi``.

    C. Taal et al., IEEE TASLP 2011; extended (ESTOI) J. Jensen, C. Taal, IEEE/ACM TASLP 2016.

    Parameters
    ----------
    estimate, reference
        (samples,) of speech.
    sample_rate
        In Hz.
    extended
        ESTOI instead of STOI.

    Returns
    -------
    float
        NaN where less than 0.4 s of speech is left without the pauses.
    """
    from pystoi import stoi as score

    if len(np.asarray(reference)) < STOI_SHORTEST_S * sample_rate:
        return float("nan")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(
                score(np.asarray(reference), np.asarray(estimate), sample_rate, extended=extended)
            )
        except RuntimeWarning:
            return float("nan")
