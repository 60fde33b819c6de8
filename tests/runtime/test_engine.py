from __future__ import annotations

import gc
import tracemalloc
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import SpecError
from rtsep.latency import Latency
from rtsep.runtime.engine import Engine
from rtsep.spec import Spec
from tests.support.models import PassThrough
from tests.support.random_cases import cases

Float32 = np.ndarray[Any, np.dtype[np.float32]]


def spec(**changes: Any) -> Spec:
    figures: dict[str, Any] = {
        "sample_rate": 16000,
        "channels": 1,
        "frontend": "stft",
        "window": "hann",
        "window_length": 64,
        "hop_length": 16,
        "chunk": 1,
        "lookahead": 0,
        "sources": ("voice", "rest"),
    }
    return Spec(**figures | changes)


def noise(n: int, channels: int = 1, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, channels)).astype(np.float32)


def make(described: Spec, channels: int = 1, block: int = 1) -> Engine:
    return Engine(PassThrough(described, channels), described, channels, block)


def run(engine: Engine, samples: Float32, sizes: list[int]) -> Float32:
    """Feed all samples in blocks of the given sizes, over and over; return all outputs joined."""
    outputs, start, turn = [], 0, 0
    while start < len(samples):
        size = min(sizes[turn % len(sizes)], len(samples) - start)
        outputs.append(engine.process(samples[start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate(outputs) if outputs else engine.process(samples)


def expected(engine: Engine, samples: Float32) -> Float32:
    gains = np.arange(1, len(engine.spec.sources) + 1, dtype=np.float32)
    return samples[:, None, :] * gains[:, None]


@st.composite
def streams(draw: st.DrawFn) -> tuple[Spec, int, int]:
    """A spec, a number of channels and a block."""
    frontend = draw(st.sampled_from(["stft", "waveform"]))
    window = draw(st.sampled_from(["hann", "hamming", "blackmanharris", "rectangular"]))
    length = 2 * draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12, 15, 16, 24, 32, 49]))
    if frontend == "waveform":
        length += draw(st.integers(0, 1))
    joint = draw(st.integers(1, 2))
    window = window if length >= 8 else "rectangular"
    short = draw(st.integers(min(8, length), length))
    described = spec(
        frontend=frontend,
        window=window,
        window_length=length,
        synthesis_length=short,
        hop_length=draw(st.integers(1, short // 2 if window != "rectangular" else short)),
        chunk=draw(st.integers(1, 3)),
        lookahead=draw(st.integers(0, 3)),
        channels=joint,
        sources=("a", "b", "c")[: draw(st.integers(1, 3))],
    )
    return described, draw(st.integers(1, 3)) if joint == 1 else joint, draw(st.integers(1, 70))


@cases(60)
@given(streams(), st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 40))
def test_reconstruction_with_exact_latency(
    stream: tuple[Spec, int, int], multiples: list[int], blocks: int
) -> None:
    described, channels, block = stream
    engine = make(described, channels, block)
    samples = noise(blocks * block, channels)
    sizes = [block * multiple for multiple in multiples if multiple] or [block]
    joined = np.concatenate([run(engine, samples, sizes), engine.flush()])
    latency = Latency.of(described, block).total
    assert engine.latency.total == latency
    assert joined.shape == (len(samples) + latency, len(described.sources), channels)
    assert np.all(np.abs(joined[:latency]) <= 2e-5)
    np.testing.assert_allclose(joined[latency:], expected(engine, samples), atol=5e-5)


@cases(25)
@given(streams(), st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_block_size_never_changes_a_sample(stream: tuple[Spec, int, int], sizes: list[int]) -> None:
    described, channels, _ = stream
    samples = noise(300, channels)
    sizes = [*sizes, 1]
    whole = make(described, channels).process(samples)
    np.testing.assert_array_equal(run(make(described, channels), samples, sizes), whole)


@pytest.mark.parametrize("frontend", ["stft", "waveform"])
def test_frames_the_model_sees(frontend: str) -> None:
    described = spec(frontend=frontend, chunk=2)
    step = PassThrough(described)
    engine = Engine(step, described)
    samples = noise(64)
    engine.process(samples)  # frames 2 and 3 are the last; frame m ends at sample (m + 1) * hop
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64))
    for index, end in ((0, 48), (1, 64)):
        frame = np.concatenate([np.zeros(64 - end), samples[:end, 0]]) * window
        seen = step.mixture[0, index, 0]
        if frontend == "stft":
            np.testing.assert_allclose([1, 1j] @ seen, np.fft.rfft(frame), atol=1e-5)
        else:
            np.testing.assert_allclose(seen, frame, atol=1e-6)


def test_output_goes_into_the_given_array() -> None:
    engine, out = make(spec()), np.empty((48, 2, 1), np.float32)
    assert engine.process(noise(48), out) is out
    tail = np.empty((engine.latency.total, 2, 1), np.float32)
    assert engine.flush(tail) is tail
    joined = np.concatenate([out, tail])[engine.latency.total :]
    np.testing.assert_allclose(joined, expected(engine, noise(48)), atol=1e-5)


def test_read_only_input_and_no_input() -> None:
    engine, samples = make(spec()), noise(40)
    samples.flags.writeable = False
    assert engine.process(samples).shape == (40, 2, 1)
    assert engine.process(noise(0)).shape == (0, 2, 1)


@pytest.mark.parametrize("frontend", ["stft", "waveform"])
def test_reset_equals_a_new_engine(frontend: str) -> None:
    described = spec(frontend=frontend, lookahead=2, chunk=3)
    used, new = make(described, 2), make(described, 2)
    used.process(noise(117, 2, seed=1))
    used.reset()
    np.testing.assert_array_equal(used.process(noise(200, 2)), new.process(noise(200, 2)))
    used.flush()
    np.testing.assert_array_equal(
        used.process(noise(200, 2)), make(described, 2).process(noise(200, 2))
    )


def test_engines_share_nothing() -> None:
    alone, one, other = (make(spec()) for _ in range(3))
    mixed = []
    for start in range(0, 300, 30):
        mixed.append(one.process(noise(300)[start : start + 30]))
        other.process(noise(30, seed=7))
    np.testing.assert_array_equal(np.concatenate(mixed), alone.process(noise(300)))


@given(
    st.lists(st.integers(0, 299), min_size=1, unique=True), st.sampled_from(["stft", "waveform"])
)
def test_non_finite_input_is_silence(places: list[int], frontend: str) -> None:
    bad, good = noise(300), noise(300)
    bad[places, 0] = [(np.nan, np.inf, -np.inf)[i % 3] for i in range(len(places))]
    good[places, 0] = 0.0
    engine = make(spec(frontend=frontend))
    np.testing.assert_array_equal(engine.process(bad), make(spec(frontend=frontend)).process(good))
    assert (engine.nonfinite_in, engine.nonfinite_out) == (len(places), 0)


class Spoiled(PassThrough):
    """A pass-through with one bad value in one call."""

    bad, when = np.nan, 5

    def __call__(self) -> None:
        super().__call__()
        if self.calls == self.when:
            self.sources[0, 0, 1].reshape(-1)[-1] = self.bad


@pytest.mark.parametrize("frontend", ["stft", "waveform"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_bad_frame_of_the_model_is_silence(frontend: str, bad: float) -> None:
    described = spec(frontend=frontend)
    step = Spoiled(described)
    step.bad = bad
    engine = Engine(step, described)
    samples = noise(320)
    joined = np.concatenate([engine.process(samples), engine.flush()])[engine.latency.total :]
    assert np.isfinite(joined).all()
    assert (engine.nonfinite_in, engine.nonfinite_out) == (0, 1)
    assert step.resets == 2  # after the bad frame, and at the flush
    # The 5th frame covers samples 16 to 80: outside it, nothing is lost.
    untouched = np.r_[0:16, 80:320]
    whole = expected(engine, samples)
    np.testing.assert_allclose(joined[untouched], whole[untouched], atol=1e-5)
    assert np.abs(joined[40:56] - whole[40:56]).max() > 0.1


def test_nothing_is_allocated_per_hop() -> None:
    described = spec(window_length=1024, hop_length=256)
    engine = make(described, block=160)
    block, out = noise(160), np.empty((160, 2, 1), np.float32)
    grown = []
    tracemalloc.start()
    for _ in range(8):  # Python keeps names that numba looks up, as many as its cache has places
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1600):  # 1000 hops
            engine.process(block, out)
        grown.append(tracemalloc.get_traced_memory()[0] - before)
        if grown[-1] <= 2048:
            break
    tracemalloc.stop()
    assert min(grown) <= 2048


@pytest.mark.parametrize(
    "block",
    [
        noise(17),
        noise(32).astype(np.float64),
        noise(32, 2),
        noise(32)[:, 0],
        noise(64)[::2],
    ],
    ids=["size", "dtype", "channels", "ndim", "strides"],
)
def test_blocks_that_do_not_fit_change_nothing(block: Any) -> None:
    engine = make(spec(), block=16)
    with pytest.raises(ValueError, match=r"17 .*16|C-contiguous float32 of shape"):
        engine.process(block)
    np.testing.assert_array_equal(
        engine.process(noise(64)), make(spec(), block=16).process(noise(64))
    )


@pytest.mark.parametrize(
    "out",
    [
        np.empty((31, 2, 1), np.float32),
        np.empty((32, 2, 1)),
        np.empty((32, 1, 2), np.float32).transpose(0, 2, 1)[:, :, ::-1][:, ::-1],
        np.broadcast_to(np.zeros(1, np.float32), (32, 2, 1)),
    ],
    ids=["length", "dtype", "strides", "broadcast"],
)
def test_outputs_that_do_not_fit_are_refused(out: Any) -> None:
    with pytest.raises(ValueError, match=r"out must be C-contiguous float32 of shape \(32, 2, 1\)"):
        make(spec()).process(noise(32), out)


def test_read_only_output_is_refused() -> None:
    out = np.zeros((32, 2, 1), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        make(spec()).process(noise(32), out)


@pytest.mark.parametrize("name", ["mixture", "sources"])
@pytest.mark.parametrize("fault", ["shape", "dtype", "strides"])
def test_buffers_of_the_step_are_checked(name: str, fault: str) -> None:
    step = PassThrough(spec(chunk=2))
    array = getattr(step, name)
    bad = {"shape": array[:, :1], "dtype": array.astype(float), "strides": array[..., ::-1]}[fault]
    setattr(step, name, bad)
    with pytest.raises(SpecError, match=rf"step.{name} must be C-contiguous float32 of shape"):
        Engine(step, spec(chunk=2))


def test_figures_that_cannot_run_are_refused() -> None:
    step = PassThrough(spec())
    for channels, block in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"not {channels} and {block}"):
            Engine(step, spec(), channels, block)
    with pytest.raises(SpecError, match="2 channels jointly, not 3"):
        Engine(step, spec(channels=2), 3)
    with pytest.raises(ValueError, match="does not reconstruct"):
        make(spec(hop_length=64))
    with pytest.raises(ValueError, match="no transform of 74 samples"):
        make(spec(window_length=74))


def test_shapes_of_streams_and_channels() -> None:
    assert prod(PassThrough(spec(), 3).mixture.shape) == 3 * 33 * 2
    for joint in (1, 2):
        engine = make(spec(channels=joint), 2)
        out = engine.process(noise(500, 2))
        late = engine.latency.total
        np.testing.assert_allclose(out[late:], expected(engine, noise(500, 2)[:-late]), atol=1e-5)
