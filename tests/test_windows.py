from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep import windows


@given(st.sampled_from(windows.NAMES), st.integers(8, 400), st.floats(0.001, 0.5))
def test_overlap_add_of_both_windows_is_one_for_any_hop(
    name: str, length: int, ratio: float
) -> None:
    hop = max(1, int(ratio * length))
    analysis, synthesis = windows.pair(name, length, hop)
    assert analysis.dtype == synthesis.dtype == np.float32
    assert analysis.shape == synthesis.shape == (length,)
    frames = 2 * length // hop + 2
    total = np.zeros(frames * hop + length)
    for frame in range(frames):
        total[frame * hop : frame * hop + length] += analysis.astype(float) * synthesis
    np.testing.assert_allclose(total[length - 1 : frames * hop], 1, atol=1e-6)


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
