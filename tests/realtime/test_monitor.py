"""What a view sees is the newest sound, one channel per signal, by level and pitch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.realtime.monitor import Bands, Scope


@given(st.lists(st.integers(0, 700), max_size=8), st.integers(1, 3), st.integers(1, 2))
def test_the_newest_samples_are_seen(blocks: list[int], sources: int, channels: int) -> None:
    random = np.random.default_rng(1)
    scope, seen = Scope(sources, 1000), [np.zeros((100, 1 + sources))]
    for n in blocks:
        mixture = random.standard_normal((n, channels)).astype(np.float32)
        stems = random.standard_normal((n, sources, channels)).astype(np.float32)
        scope.put(mixture, stems)
        seen.append(np.column_stack([mixture.mean(axis=1), stems.mean(axis=2)]))
    assert scope.written == sum(blocks)
    np.testing.assert_allclose(scope.latest(100), np.concatenate(seen)[-100:], atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_a_sine_is_in_its_band_at_its_level(rate: int) -> None:
    bands = Bands(rate, 8)
    assert bands.edges_hz[0] == pytest.approx(60) and bands.edges_hz[-1] == pytest.approx(rate / 2)
    times = np.arange(bands.window_length) / rate
    middle = np.sqrt(bands.edges_hz[1:] * bands.edges_hz[:-1])
    tones = np.sin(2 * np.pi * middle * times[:, None]) * 0.1
    levels = bands.levels_db(tones.astype(np.float32))
    assert levels.shape == (8, 8)
    np.testing.assert_array_equal(levels.argmax(axis=1), np.arange(8))
    np.testing.assert_allclose(levels.max(axis=1), -20, atol=1.6)  # between two bins at worst
    assert np.all(bands.levels_db(np.zeros_like(tones, np.float32)) < -150)


def test_figures_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Scope(0, 16000)
