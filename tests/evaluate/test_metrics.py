"""Metrics against independent statements of the same thing."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtsep.evaluate.bss_eval import bss_eval
from rtsep.evaluate.metrics import Band, pesq, si_sdr_db, si_sir_sar_db, snr_db, stoi
from tests.support.paths import DEMO


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


def brute_force(
    x: np.ndarray, s: np.ndarray, source: int, taps: int
) -> tuple[float, float, float, float]:
    """The definition, with every delayed reference as a column of a matrix."""

    def projected(signals: np.ndarray, y: np.ndarray) -> np.ndarray:
        n = len(y) - taps + 1
        columns = np.zeros((len(y), 0))
        for signal in signals:
            for delay in range(taps):
                column = np.zeros((len(y), 1))
                column[delay : delay + n, 0] = signal
                columns = np.hstack([columns, column])
        return columns @ np.linalg.lstsq(columns, y, rcond=None)[0]

    tail = ((0, taps - 1), (0, 0))
    y, target = np.pad(x[source], tail), np.pad(s[source], tail)
    image = projected(s[source].T, y)
    every = projected(s.transpose(0, 2, 1).reshape(-1, s.shape[1]), y)

    def ratio(signal: np.ndarray, error: np.ndarray) -> float:
        return float(10 * np.log10((signal**2).sum() / (error**2).sum()))

    return (
        ratio(target, y - target),
        ratio(target, image - target),
        ratio(image, every - image),
        ratio(every, y - every),
    )


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("samples", "taps"), [(300, 1), (300, 5), (299, 16)])
def test_bss_eval_of_one_frame_is_its_definition(channels: int, samples: int, taps: int) -> None:
    s = noise(1, 2 * samples * channels).reshape(2, samples, channels)
    x = s + 0.3 * s[::-1] + 0.2 * np.roll(s, 3, axis=1)
    x += 0.1 * noise(2, s.size).reshape(s.shape)
    found = np.array(bss_eval(x, s, samples, taps))
    for source in range(2):
        np.testing.assert_allclose(found[:, source], brute_force(x, s, source, taps), atol=1e-6)


def uniform(seed: int, *shape: int) -> np.ndarray:
    """Noise of -1 to 1 from bits that no version of numpy may change."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (raw / 2.0**63 - 1).reshape(shape)


def test_bss_eval_over_frames_is_that_of_museval() -> None:
    """Figures of museval 0.4.1, the package of the campaigns: mode v4, images, filters_len=64."""
    s = uniform(0, 3, 4100, 2)
    s[1, 800:1600] = 0
    x = 0.9 * s + 0.3 * np.roll(s, 1, 0) + 0.2 * np.roll(s, 30, 1) + 0.1 * uniform(1, *s.shape)
    museval = [
        [8.395388315, 8.113396138, 8.17440998],
        [12.78513654, 12.583671465, 12.771947621],
        [9.936719641, 9.694044362, 9.765276558],
        [18.862923888, 18.913660037, 18.821228783],
    ]
    np.testing.assert_allclose(np.array(bss_eval(x, s, 800, 64)), museval, atol=1e-6)


def test_bss_eval_of_long_signals_does_not_depend_on_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s = uniform(3, 2, 2000, 1)
    x = s + 0.5 * np.roll(s, 7, 1) + 0.1 * uniform(4, *s.shape)
    whole = np.array(bss_eval(x, s, 500, 32))
    monkeypatch.setattr("rtsep.evaluate.bss_eval._BLOCK", 113)
    np.testing.assert_allclose(np.array(bss_eval(x, s, 500, 32)), whole, atol=1e-9)


def test_bss_eval_without_anything_to_measure() -> None:
    s = uniform(5, 2, 900, 1)
    assert np.isnan(bss_eval(np.zeros_like(s), s, 300, 8)).all()
    # A signal twice: the normal equations are singular, yet the projection is there.
    twice = np.stack([s[0], s[0]])
    assert np.isfinite(bss_eval(twice + 0.1 * s, twice, 900, 8)).all()
    with pytest.raises(ValueError, match=r"not \(2, 900, 1\) and \(2, 899, 1\)"):
        bss_eval(s, s[:, 1:], 300)


@given(interference=st.floats(0.01, 10), artefacts=st.floats(0.01, 10))
def test_si_sir_and_si_sar_of_orthogonal_signals(interference: float, artefacts: float) -> None:
    signals = np.linalg.qr(noise(9, 900).reshape(300, 3))[0].T
    target, other, alien = signals
    x = 3 * (target + interference * other + artefacts * alien)
    sir, sar = si_sir_sar_db(x, target, (target - 2 * other)[None])
    assert sir == pytest.approx(-20 * np.log10(interference), abs=1e-6)
    assert sar == pytest.approx(-20 * np.log10(artefacts), abs=1e-6)
    total = 10 ** (-sir / 10) + 10 ** (-sar / 10)
    assert si_sdr_db(x, target) == pytest.approx(-10 * np.log10(total), abs=1e-6)


def test_snr_is_the_ratio_of_powers_over_all_channels() -> None:
    s = noise(0).reshape(-1, 2)
    error = noise(1).reshape(-1, 2)
    expected = 10 * np.log10(np.var(s) / np.var(error) / 0.01)
    assert snr_db(s + 0.1 * error, s) == pytest.approx(expected, abs=0.02)
    assert snr_db(2 * s, s) == pytest.approx(0.0)


def test_pesq_and_stoi_rank_as_ears_do() -> None:
    speech, rate = soundfile.read(DEMO)
    hiss = noise(1, len(speech)) * np.std(speech)
    scores = [speech + 10 ** (-snr / 20) * hiss for snr in (40, 10, 0)]
    for extended in (False, True):
        stois = [stoi(x, speech, rate, extended) for x in scores]
        assert stois == sorted(stois, reverse=True)
        assert stois[0] > 0.9
    for n in (0, 1, 100, 2000, 6500):
        assert np.isnan(stoi(speech[:n], speech[:n], rate))
    try:
        import pesq as _  # noqa: F401
    except ModuleNotFoundError:
        assert os.environ.get("CI") != "true", "pesq is not installed"
        pytest.skip("pesq is not installed: it needs a C compiler")
    bands: tuple[Band, ...] = ("wb", "nb")
    for band in bands:
        pesqs = [pesq(x, speech, rate, band) for x in scores]
        assert pesqs == sorted(pesqs, reverse=True)
        assert pesq(speech, speech, rate, band) > 4.5
        assert np.isnan(pesq(np.zeros_like(speech), speech, rate, band))
        assert np.isnan(pesq(speech, np.zeros_like(speech), rate, band))
        assert np.isnan(pesq(speech[:1000], speech[:1000], rate, band))
        # Long sound goes in pieces; silent ones don't count.
        long = np.concatenate([np.tile(speech, 3), np.zeros(30 * rate)])
        assert pesq(long, long, rate, band) > 4.5
    pauses = np.concatenate([speech[rate : rate + 6400], np.zeros(5000)])
    words = np.tile(pauses, 100)  # more utterances than the package has room for
    assert pesq(words, words, rate, "wb") > 4.5
    with pytest.raises(ValueError, match="PESQ wb is for"):
        pesq(speech, speech, 8000, "wb")
