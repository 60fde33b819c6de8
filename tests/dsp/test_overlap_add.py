from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.dsp import fft, overlap_add

LENGTHS = [2, 4, 6, 8, 10, 14, 16, 18, 24, 30, 32, 34, 62, 64, 66, 96, 128, 240, 256, 320, 480, 512]
LENGTHS += [600, 640, 882, 960, 1000, 1024, 1536, 2048, 2058, 4096, 16384]
NOTHING = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((3, 2, 0), np.float32)


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
def test_transforms_equal_numpy(length: int) -> None:
    plan = fft.plan(length)
    samples, window = noise(length, seed=length), noise(length, seed=length + 1)
    spectrum = np.full(length + 2, np.nan, np.float32)
    fft.forward(samples, window, *plan, spectrum)
    product = samples.astype(float) * window
    expected = np.fft.rfft(product)
    error = np.abs([1, 1j] @ spectrum.reshape(2, -1) - expected).max()
    assert error <= 5e-7 * np.abs(expected).max()

    spectrum[[length // 2 + 1, -1]] = 9.0  # what numpy ignores too
    fft.inverse(spectrum, *plan)
    assert np.abs(plan[2][2].ravel() - product).max() <= 5e-7 * np.abs(product).max()


@given(st.integers(1, 3000))
def test_every_length_is_planned_or_refused(half: int) -> None:
    rest = half
    for prime in (p for p in range(2, 32) if all(p % q for q in range(2, p))):
        while rest % prime == 0:
            rest //= prime
    if rest > 1:
        with pytest.raises(ValueError, match=f"no transform of {2 * half} samples.*{rest} is left"):
            fft.factorise(2 * half)
    else:
        assert np.prod(fft.factorise(2 * half)) == half


@pytest.mark.parametrize("length", [0, 1, 9])
def test_odd_lengths_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"must be even, not {length}"):
        fft.factorise(length)


def push_arguments(stft: bool, position: int, count: int) -> list[Any]:
    window, hop, frames, channels = 32, 6, 2, 2
    plan = fft.plan(window) if stft else NOTHING
    history = noise(channels, window - hop + frames * hop, seed=1)
    mixture = noise(1, frames, channels, window + 2 if stft else window, seed=2)
    block = noise(count + 4, channels, seed=3)
    block[2, 1] = np.nan
    block[3, 0] = -np.inf
    return [block, 1, count, position, hop, history, noise(window, seed=4), *plan, mixture]


def pull_arguments(stft: bool, position: int, count: int) -> list[Any]:
    window, hop, frames, channels, names = 32, 6, 3, 2, 3
    plan = fft.plan(window) if stft else NOTHING
    sources = noise(channels, frames, names, 1, window + 2 if stft else window, seed=1)
    sources[1, 1, 2, 0, 3] = np.nan
    overlap = noise(names, channels, window, seed=2)
    ready = noise(4 + frames * hop, names, channels, seed=3)
    out = noise(count + 3, names, channels, seed=4)
    rings = overlap, ready, out, np.zeros(channels, np.int64)
    return [sources, 1, count, position, hop, noise(window, seed=5), *plan, *rings]


@pytest.mark.parametrize("stft", [True, False])
@pytest.mark.parametrize(("position", "count"), [(0, 4), (4, 5), (3, 9), (0, 12), (12, 0)])
def test_push_equals_its_python(stft: bool, position: int, count: int) -> None:
    compiled, python = (push_arguments(stft, position, count) for _ in range(2))
    replaced = overlap_add.analyse(*compiled)
    assert replaced == overlap_add.analyse.py_func(*python) == (2 if count else 0)
    for ours, theirs in zip(compiled, python, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("stft", [True, False])
@pytest.mark.parametrize(("position", "count"), [(0, 4), (3, 6), (9, 9), (0, 18), (18, 0)])
def test_pull_equals_its_python(stft: bool, position: int, count: int) -> None:
    compiled, python = (pull_arguments(stft, position, count) for _ in range(2))
    broken = overlap_add.overlap_add(*compiled)
    assert broken == overlap_add.overlap_add.py_func(*python) == int(position + count == 18)
    assert compiled[-1].tolist() == [0, broken]
    for ours, theirs in zip(compiled, python, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("make", [push_arguments, pull_arguments])
def test_other_dtypes_and_layouts_are_refused(make: Any) -> None:
    kernel = {push_arguments: overlap_add.analyse, pull_arguments: overlap_add.overlap_add}[make]
    good = make(True, 0, 4)
    for index, argument in enumerate(good):
        if not isinstance(argument, np.ndarray):
            continue
        for bad in (argument.astype(np.float64), np.repeat(argument, 3, axis=-1)[..., ::2]):
            with pytest.raises(TypeError):
                kernel(*good[:index], bad, *good[index + 1 :])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2e30, -3e38])
@pytest.mark.parametrize("at", [0, 1, 500, 1024])
def test_no_bad_value_survives_vectorisation(bad: float, at: int) -> None:
    sources = np.zeros((1, 1, 1, 1, 1026), np.float32)
    sources[..., at] = bad
    overlap, ready = np.zeros((1, 1, 1024), np.float32), np.zeros((256, 1, 1), np.float32)
    out, window = np.ones((256, 1, 1), np.float32), np.ones(1024, np.float32)
    plan = fft.plan(1024)
    rings = overlap, ready, out, np.zeros(1, np.int64)
    assert overlap_add.overlap_add(sources, 0, 256, 0, 256, window, *plan, *rings) == 1
    assert np.all(out == 0)
