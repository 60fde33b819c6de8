"""Metrics of separation quality, their formulas, and the table `METRICS`.

The formulas treat several channels as one vector. The libraries take one channel; their scores are
averaged over the channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np
import soxr
from numpy.typing import ArrayLike

from rtsep.evaluate.bss_eval import TINY, BssEval, bss_eval
from rtsep.spec import Float32, Float64

Band = Literal["wb", "nb"]

PESQ_RATES_HZ: dict[Band, tuple[int, ...]] = {"wb": (16000,), "nb": (8000, 16000)}
"""Rates of ITU-T P.862, by band."""
PESQ_RATE_HZ = 16000
"""Rate to which other rates are resampled for `METRICS`."""
PESQ_LONGEST_S = 15.0
"""Longest piece in seconds: fewer than 40 of the shortest utterances and pauses, 0.2 s each."""
FRAME_S = 1.0
"""Frame length of BSS Eval in seconds, as in the campaigns."""
STOI_SHORTEST_S = 0.41
"""Shortest signal in seconds: 30 frames of 256 samples at 10 kHz, hop 128."""


def _ratio_db(signal: Float64, error: Float64) -> float:
    return float(10 * np.log10(max(float(signal @ signal), TINY) / max(float(error @ error), TINY)))


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
    return s * (float(x @ s) / max(float(s @ s), TINY))


def snr_db(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Compute the signal-to-noise ratio 10 lg(|s|^2 / |s - x|^2) of the whole signal, in dB.

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
    """Compute the scale-invariant signal-to-distortion ratio, in dB.

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
    """Compute the scale-invariant interference and artefacts ratios SIR and SAR, in dB.

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
    """Compute PESQ, MOS-LQO (ITU-T P.862.1, wide-band P.862.2), with the package ``pesq``.

    Longer sound is scored in equal pieces of up to `PESQ_LONGEST_S`, and the mean is returned: the
    recommendation covers up to 30 s (P.862.3), and the package crashes at 50 utterances.

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
        NaN if no speech is found or the signal is too short.
    """
    from pesq import PesqError
    from pesq import pesq as score

    if sample_rate not in PESQ_RATES_HZ[band]:
        raise ValueError(f"PESQ {band} is for {PESQ_RATES_HZ[band]} Hz, not {sample_rate}")
    x, s = np.asarray(estimate, np.float32), np.asarray(reference, np.float32)
    pieces = max(-(-len(s) // round(PESQ_LONGEST_S * sample_rate)), 1)
    found = []
    for piece, reference in zip(np.array_split(x, pieces), np.array_split(s, pieces), strict=True):
        if piece.any():  # the package divides by its level
            with suppress(PesqError):
                found.append(float(score(sample_rate, reference, piece, band)))
    return float(np.mean(found)) if found else float("nan")


def stoi(
    estimate: ArrayLike, reference: ArrayLike, sample_rate: int, extended: bool = False
) -> float:
    """Compute short-time objective intelligibility, 0 to 1, with the package ``pystoi``.

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
        NaN if less than 0.4 s of speech remains without pauses.
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


@dataclass(frozen=True)
class Separated:
    """All estimates of one mixture, one of which is scored.

    Attributes
    ----------
    estimates, references
        (sources, n, channels); no reference is silent.
    index
        Index of the scored source.
    rate_hz
        Sample rate in Hz.
    bss
        BSS Eval of all sources, computed once.
    """

    estimates: Float32
    references: Float32
    index: int
    rate_hz: int
    bss: Callable[[], BssEval]

    @property
    def pair(self) -> tuple[Float32, Float32]:
        """Return estimate and reference, (n, channels) each."""
        return self.estimates[self.index], self.references[self.index]

    @cached_property
    def si_sir_sar_db(self) -> tuple[float, float]:
        """Return the scores of the function of this name."""
        estimate, reference = (sound.ravel() for sound in self.pair)
        others = np.delete(self.references, self.index, axis=0)
        return si_sir_sar_db(estimate, reference, others.reshape(len(others), reference.size))

    def mean(self, score: Callable[[Float32, Float32, int], float]) -> float:
        """Return the mean of a score over the channels."""
        channels = zip(*(sound.T for sound in self.pair), strict=True)
        return float(np.mean([score(x, s, self.rate_hz) for x, s in channels]))


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`.

    Attributes
    ----------
    label
        Label in tables and pictures, with the unit.
    score
        Function that computes the score of one source; NaN if undefined.
    package
        Package that it needs beside rtsep's dependencies, if any.
    of_speech
        Whether it is for speech only.
    of_artefacts
        Whether it measures artefacts of the separation; undefined for a mixture.
    digits
        Digits after the decimal point.
    """

    label: str
    score: Callable[[Separated], float]
    package: str = ""
    of_speech: bool = False
    of_artefacts: bool = False
    digits: int = 2


def _pesq(x: Float32, s: Float32, rate_hz: int, band: Band) -> float:
    """Compute PESQ at any rate, by resampling; NaN for the wide band at 8 kHz."""
    if rate_hz == 8000 and band == "wb":
        return float("nan")
    if rate_hz not in PESQ_RATES_HZ[band]:
        x, s = (soxr.resample(sound, rate_hz, PESQ_RATE_HZ) for sound in (x, s))
        rate_hz = PESQ_RATE_HZ
    return pesq(x, s, rate_hz, band)


def _pesq_of(band: Band) -> Callable[[Separated], float]:
    return lambda of: of.mean(lambda x, s, rate_hz: _pesq(x, s, rate_hz, band))


def _bss(field: str) -> Callable[[Separated], float]:
    return lambda of: float(getattr(of.bss(), field)[of.index])


METRICS = {
    "si_sdr_db": Metric("SI-SDR dB", lambda of: si_sdr_db(*of.pair)),
    "si_sir_db": Metric("SI-SIR dB", lambda of: of.si_sir_sar_db[0]),
    "si_sar_db": Metric("SI-SAR dB", lambda of: of.si_sir_sar_db[1], of_artefacts=True),
    "snr_db": Metric("SNR dB", lambda of: snr_db(*of.pair)),
    "bss_sdr_db": Metric("BSS SDR dB", _bss("sdr")),
    "bss_isr_db": Metric("BSS ISR dB", _bss("isr")),
    "bss_sir_db": Metric("BSS SIR dB", _bss("sir")),
    "bss_sar_db": Metric("BSS SAR dB", _bss("sar"), of_artefacts=True),
    "pesq_wb": Metric("PESQ-WB", _pesq_of("wb"), "pesq", of_speech=True),
    "pesq_nb": Metric("PESQ-NB", _pesq_of("nb"), "pesq", of_speech=True),
    "stoi": Metric("STOI", lambda of: of.mean(stoi), "pystoi", of_speech=True, digits=3),
    "estoi": Metric(
        "ESTOI",
        lambda of: of.mean(lambda x, s, rate_hz: stoi(x, s, rate_hz, extended=True)),
        "pystoi",
        of_speech=True,
        digits=3,
    ),
}
"""The metrics by key, in the order of the tables."""


def separated(estimates: Float32, references: Float32, rate_hz: int) -> list[Separated]:
    """Return a `Separated` for every source."""
    bss = cache(lambda: bss_eval(estimates, references, round(FRAME_S * rate_hz)))
    indices = range(len(references))
    return [Separated(estimates, references, index, rate_hz, bss) for index in indices]
