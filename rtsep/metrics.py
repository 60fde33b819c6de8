"""How good a separation is: thin adapters over metric libraries, one formula of our own."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def si_sdr_db(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio, in dB.

    J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3: no mean removal.

    Parameters
    ----------
    estimate, reference
        (samples,), of one length.
    """
    x = np.asarray(estimate, np.float64)
    s = np.asarray(reference, np.float64)
    if x.shape != s.shape or x.ndim != 1:
        raise ValueError(f"estimate and reference must be (samples,), not {x.shape} and {s.shape}")
    target = s * (x @ s / max(float(s @ s), 1e-20))
    error = x - target
    return float(
        10 * np.log10(max(float(target @ target), 1e-20) / max(float(error @ error), 1e-20))
    )


def pesq_wb(estimate: ArrayLike, reference: ArrayLike, sample_rate: int = 16000) -> float:
    """Wide-band PESQ, MOS-LQO (ITU-T P.862.2), by the package ``pesq``.

    Parameters
    ----------
    estimate, reference
        (samples,) of speech at 16 kHz.
    """
    from pesq import pesq

    return float(pesq(sample_rate, np.asarray(reference), np.asarray(estimate), "wb"))


def estoi(estimate: ArrayLike, reference: ArrayLike, sample_rate: int) -> float:
    """Extended short-time objective intelligibility, 0 to 1, by the package ``pystoi``."""
    from pystoi import stoi

    return float(stoi(np.asarray(reference), np.asarray(estimate), sample_rate, extended=True))
