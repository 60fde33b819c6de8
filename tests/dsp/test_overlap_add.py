from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.dsp import fft, overlap_add
from rtsep.dsp.overlap_add import Buffers
from rtsep.dsp.radices import factorise
from rtsep.spec import Spec
from tests.support import models

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
            factorise(2 * half)
    else:
        assert np.prod(factorise(2 * half)) == half


@pytest.mark.parametrize("length", [0, 1, 9])
def test_odd_lengths_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"must be even, not {length}"):
        factorise(length)


def buffers(stft: bool, frames: int, position: int, window: int = 32, hop: int = 6) -> Any:
    """Of two streams and three sources, filled with noise."""
    streams, names = 2, 3
    size = window + 2 if stft else window
    factors, twiddles, work = fft.plan(window) if stft else NOTHING
    return Buffers(
        mixture=noise(streams, frames, 1, size, seed=1),
        sources=noise(streams, frames, names, 1, size, seed=2),
        history=noise(streams, window - hop + frames * hop, seed=3),
        overlap=noise(names, streams, window, seed=4),
        ready=noise(4 + frames * hop, names, streams, seed=5),
        analysis=noise(window, seed=6),
        synthesis=noise(window, seed=7),
        factors=factors,
        twiddles=twiddles,
        work=work,
        broken=np.zeros(streams, np.int64),
        cursors=np.array([position, 0, 0, hop, 0, 0, 0], np.int64),
    )


def assert_equal(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("stft", [True, False])
@pytest.mark.parametrize(("position", "count"), [(0, 4), (4, 5), (3, 9), (0, 12), (12, 0)])
def test_analyse_equals_its_python(stft: bool, position: int, count: int) -> None:
    compiled, python = (buffers(stft, 2, position) for _ in range(2))
    block = noise(count + 4, 2, seed=8)
    block[2, 1], block[3, 0] = np.nan, -np.inf
    overlap_add.analyse(compiled, block, 1, count)
    overlap_add.analyse.py_func(python, block, 1, count)  # type: ignore[attr-defined]
    assert compiled.cursors[overlap_add.NONFINITE_IN] == (2 if count else 0)
    assert_equal(compiled, python)


@pytest.mark.parametrize("stft", [True, False])
@pytest.mark.parametrize(("position", "count"), [(0, 4), (3, 6), (9, 9), (0, 18), (18, 0)])
def test_overlap_add_equals_its_python(stft: bool, position: int, count: int) -> None:
    compiled, python = (buffers(stft, 3, position) for _ in range(2))
    for each in (compiled, python):
        each.sources[1, 1, 2, 0, 3] = np.nan
    ours, theirs = (noise(count + 3, 3, 2, seed=9) for _ in range(2))
    broken = overlap_add.overlap_add(compiled, ours, 1, count)
    known = overlap_add.overlap_add.py_func(python, theirs, 1, count)  # type: ignore[attr-defined]
    assert broken == known == int(position + count == 18)
    assert compiled.broken.tolist() == [0, broken]
    assert compiled.cursors[overlap_add.NONFINITE_OUT] == broken
    assert compiled.cursors[overlap_add.POSITION] == (position + count) % 18
    assert_equal((*compiled, ours), (*python, theirs))


@pytest.mark.parametrize("kernel", [overlap_add.analyse, overlap_add.overlap_add])
def test_other_dtypes_and_layouts_are_refused(kernel: Any) -> None:
    good = buffers(True, 2, 0)
    samples = noise(4, 2) if kernel is overlap_add.analyse else noise(4, 3, 2)
    for name, array in {**good._asdict(), "samples": samples}.items():
        for bad in (array.astype(np.int32), np.repeat(array, 3, axis=-1)[..., ::2]):
            given, block = (
                (good, bad) if name == "samples" else (good._replace(**{name: bad}), samples)
            )
            with pytest.raises(TypeError):
                kernel(given, block, 0, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2e30, -3e38])
@pytest.mark.parametrize("at", [0, 1, 500, 1024])
def test_no_bad_value_survives_vectorisation(bad: float, at: int) -> None:
    spec = Spec(16000, 1, "stft", "hann", 1024, 256, 1, 0, ("voice",))
    own = overlap_add.make_buffers(spec, models.PassThrough(spec), 1, 0)
    own.sources[:] = 0.0
    own.sources[..., at] = bad
    out = np.ones((256, 1, 1), np.float32)
    assert overlap_add.overlap_add(own, out, 0, 256) == 1
    assert np.all(out == 0)
