"""Metrics against independent statements of the same thing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtsep.metrics import estoi, pesq_wb, si_sdr_db

DEMO = Path(__file__).parents[1] / "rtsep" / "demo.flac"


def noise(seed: int, n: int = 8000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


@given(snr_db=st.floats(-30, 60), gain=st.floats(0.01, 100).map(float), seed=st.integers(0, 1000))
def test_si_sdr_of_orthogonal_noise_is_its_snr(snr_db: float, gain: float, seed: int) -> None:
    target, error = noise(seed), noise(seed + 5000)
    error -= target * (error @ target) / (target @ target)
    error *= np.sqrt((target @ target) / (error @ error)) * 10 ** (-snr_db / 20)
    assert si_sdr_db(gain * (target + error), target) == pytest.approx(snr_db, abs=1e-6)


def test_si_sdr_of_the_extremes_is_finite() -> None:
    assert si_sdr_db(noise(0), noise(0)) > 100
    assert np.isfinite(si_sdr_db(np.zeros(100), noise(0, 100)))
    assert np.isfinite(si_sdr_db(noise(0, 100), np.zeros(100)))
    with pytest.raises(ValueError, match=r"not \(100,\) and \(99,\)"):
        si_sdr_db(noise(0, 100), noise(0, 99))


def test_pesq_and_estoi_rank_as_ears_do() -> None:
    speech, rate = soundfile.read(DEMO)
    hiss = noise(1, len(speech)) * np.std(speech)
    scores = [speech + 10 ** (-snr_db / 20) * hiss for snr_db in (40, 10, 0)]
    estois = [estoi(x, speech, rate) for x in scores]
    assert estois == sorted(estois, reverse=True)
    assert estois[0] > 0.9
    try:
        import pesq  # noqa: F401
    except ModuleNotFoundError:
        assert os.environ.get("CI") != "true", "pesq is not installed"
        pytest.skip("pesq is not installed: it needs a C compiler")
    pesqs = [pesq_wb(x, speech, rate) for x in scores]
    assert pesqs == sorted(pesqs, reverse=True)
    assert pesq_wb(speech, speech, rate) > 4.5
