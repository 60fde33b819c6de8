from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.dsp import windows


@given(
    st.sampled_from(windows.NAMES), st.integers(8, 400), st.floats(0.02, 1), st.floats(0.001, 0.5)
)
def test_overlap_add_of_both_windows_is_one_for_any_hop(
    name: str, length: int, part: float, ratio: float
) -> None:
    short = max(4, int(part * length))
    hop = max(1, int(ratio * short))
    analysis, synthesis = windows.pair(name, length, hop, short)
    assert analysis.dtype == synthesis.dtype == np.float32
    assert analysis.shape == (length,) and synthesis.shape == (short,)
    assert np.all(analysis >= 0) and np.all(synthesis >= 0)
    frames = 2 * short // hop + 2
    total = np.zeros(frames * hop + short)
    for frame in range(frames):
        product = analysis[-short:].astype(float) * synthesis
        total[frame * hop : frame * hop + short] += product
    np.testing.assert_allclose(total[short - 1 : frames * hop], 1, atol=1e-6)


def test_a_short_synthesis_window_gives_an_asymmetric_pair() -> None:
    analysis, synthesis = windows.pair("hann", 512, 32, 128)
    half = np.sin(np.pi * np.arange(448) / 896)  # the long rise, then half of the short window
    np.testing.assert_allclose(analysis[:448], half, atol=1e-6)
    np.testing.assert_allclose(analysis[448:], np.cos(np.pi * np.arange(64) / 128), atol=1e-6)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 128)
    np.testing.assert_allclose(analysis[-128:] * synthesis, hann / 2, atol=1e-6)
    assert np.abs(np.diff(synthesis)).max() < 0.05  # it fades in and out, no step


@pytest.mark.parametrize("short", [15, 65])
def test_synthesis_length_out_of_range(short: int) -> None:
    with pytest.raises(ValueError, match=f"hop_length 16 to window_length 64 samples, not {short}"):
        windows.pair("hann", 64, 16, short)


def test_formulae() -> None:
    phase = 2 * np.pi * np.arange(64) / 64
    hann, _ = windows.pair("hann", 64, 16)
    np.testing.assert_allclose(hann**2, 0.5 - 0.5 * np.cos(phase), atol=1e-7)
    harris, _ = windows.pair("blackmanharris", 64, 16)
    terms = 0.35875 - 0.48829 * np.cos(phase) + 0.14128 * np.cos(2 * phase)
    np.testing.assert_allclose(harris, terms - 0.01168 * np.cos(3 * phase), atol=1e-7)
    ones, half = windows.pair("rectangular", 64, 32)
    assert np.all(ones == 1) and np.all(half == 0.5)


def test_hop_as_long_as_the_window() -> None:
    analysis, synthesis = windows.pair("rectangular", 7, 7)
    assert np.all(analysis == 1) and np.all(synthesis == 1)


@pytest.mark.parametrize(("name", "length", "hop"), [("hann", 64, 64), ("blackmanharris", 64, 60)])
def test_a_pair_that_does_not_reconstruct_is_refused(name: str, length: int, hop: int) -> None:
    with pytest.raises(ValueError, match=f"{name}.* of {length} samples with a hop of {hop} .*0"):
        windows.pair(name, length, hop)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'kaiser'.*hann, hamming, blackmanharris, rectangular"):
        windows.pair("kaiser", 64, 16)


@pytest.mark.parametrize("hop", [0, 65])
def test_hop_out_of_range(hop: int) -> None:
    with pytest.raises(ValueError, match=f"1 to window_length 64 samples, not {hop}"):
        windows.pair("hann", 64, hop)
