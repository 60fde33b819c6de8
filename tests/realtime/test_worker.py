"""What is heard and recorded is what was separated, on time, whatever fails around it."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.devices.paced import Clock
from rtsep.files.readers import read_all
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.engine import Engine
from rtsep.runtime.ort_step import OrtStep
from rtsep.runtime.timing import Durations
from tests.support import models
from tests.support.audio import delayed
from tests.support.audio import gaussian as noise
from tests.support.patience import until
from tests.support.random_cases import cases
from tests.support.stream import BUNDLE, SPEC, Hand, stream


@cases(20)
@given(
    block=st.integers(1, 70),
    spare=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    visits=st.lists(st.booleans(), min_size=20, max_size=60),
    gains=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
def test_heard_is_the_mix_of_the_stems_by_the_declared_latency(
    block: int,
    spare: int,
    channels: tuple[int, int],
    visits: list[bool],
    gains: tuple[float, float],
) -> None:
    """However late the worker comes, as long as the headroom covers it."""
    heard_channels, played_channels = channels
    x = noise(len(visits) * block, heard_channels)
    device = Hand(16000, heard_channels, played_channels, block, spare * block, x)
    live = stream(device, gains)
    played = np.full((len(x), played_channels), np.nan, np.float32)
    absent = 0
    for turn, visit in enumerate(visits):
        device.tick(x[:0], played[turn * block : (turn + 1) * block], 0.0)
        absent = 0 if visit or absent == spare - 1 else absent + 1
        if not absent:
            assert live.turn() and not live.turn()
    late = live.engine.latency_samples + device.headroom
    assert live.engine.latency_samples == 48 + 16 + 16 - np.gcd(block, 16)
    wide = x[:, np.minimum(np.arange(played_channels), heard_channels - 1)]
    total = float(np.dot(gains, models.GAINS))
    np.testing.assert_allclose(played, total * delayed(wide, late), atol=2e-5)
    stats = device.stats()
    assert (stats.starvations, stats.late, live.drops) == (0, 0, 0)
    assert live.processed == len(x) - absent * block


def test_peaks_are_those_since_the_last_look() -> None:
    device = Hand(16000, 1, 1, 64, 64, noise(64) / 9)
    live = stream(device, (1, 1))
    device.tick(noise(0), np.zeros((64, 1), np.float32), 0.0)
    live.turn()
    assert live.peaks()[0] == np.abs(noise(64) / 9).max()
    assert not live.peaks().any()


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("way", ["tape", "runtime"])
def test_the_audio_path_does_not_allocate(way: str, rate: int) -> None:
    hops, warm, rounds = 1000, 8, 8  # ONNX Runtime fills its free lists first
    block = 16 * rate // 16000
    at_once = 20 if way == "tape" else 1  # it is entered once, then goes on
    device = Hand(rate, 1, 2, block, 2 * at_once * block, microphone=True)
    live = stream(device, (1, 0.5), step=OrtStep(BUNDLE) if way == "runtime" else None)
    heard, played = noise(block), np.zeros((block, 2), np.float32)

    def turns() -> None:
        for _ in range(hops // at_once):
            for _ in range(at_once):
                device.tick(heard, played, 0.0)
            live.turn()

    tracemalloc.start()
    try:
        for _ in range(warm):
            turns()
        grown = []
        for _ in range(rounds):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            turns()
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0] - before)
            if grown[-1] <= 2048:
                break
        # Other threads of the test run allocate now and then, but the audio path would every time.
        assert min(grown) <= 2048, "one small object per hop would be 24 times that"
    finally:
        tracemalloc.stop()
    assert live.hops.count == (warm + len(grown)) * hops


class Failing(OrtStep):
    """A step with a fault, which only Python can have."""

    calls = 0

    def __call__(self) -> None:
        super().__call__()
        self.calls += 1
        if self.calls > 50:
            raise ZeroDivisionError("a fault")


def test_a_fault_in_the_worker_ends_the_stream_and_keeps_the_recording(tmp_path: Path) -> None:
    step = Failing(BUNDLE)
    engine = Engine(step, SPEC, 1, 16)
    x = noise(16000)
    clock = Clock(16000, 1, 1, 16, 64, x)
    recorder = Recorder(tmp_path, SPEC.sources, 16000, 1, engine.latency_samples)
    live = StreamWorker(clock, engine, np.ones(2, np.float32))
    live.recorder = recorder
    live.start()
    until(lambda: not live.running)
    assert clock.active
    live.stop()
    assert isinstance(live.error, ZeroDivisionError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mixture.wav", "noise.wav", "speech.wav"]
    mixture, stem = (read_all(tmp_path / f"{name}.wav")[0] for name in ("mixture", "speech"))
    assert len(mixture) == len(stem) == live.processed > 0
    known = len(stem) - engine.latency_samples
    np.testing.assert_allclose(stem[:known], 0.75 * mixture[:known], atol=1e-5)


def test_a_stream_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    device = Hand(16000, 1, 1, 16, 16)
    live = stream(device, (1, 1), Recorder(tmp_path, SPEC.sources, 16000, 1, 64))
    live.stop()
    assert not list(tmp_path.glob(".*")), "nothing half-written"


@given(
    st.lists(st.floats(1e-7, 9.9), min_size=1, max_size=300),
    st.sampled_from([50, 90, 99, 99.9, 100]),
)
def test_percentiles_of_durations(durations: list[float], percent: float) -> None:
    times = Durations()
    for duration in durations:
        times.add(duration)
    exact = np.percentile(durations, percent, method="inverted_cdf")
    assert exact * (1 - 1e-9) <= times.percentile_s(percent) <= exact * 10 ** (1 / 200) * (1 + 1e-9)
    assert (times.count, times.max_s) == (len(durations), max(durations))
    assert times.total_s == pytest.approx(sum(durations))
    assert times.summary_us()["max"] == round(max(durations) * 1e6, 1)


def test_durations_out_of_range_still_count() -> None:
    times = Durations()
    assert times.percentile_s(50) == 0.0
    for duration in (0.0, -1e-9, 1e-12, 1e5):
        times.add(duration)
    assert times.count == 4 and times.percentile_s(50) <= 1.02e-7
    assert 9.0 < times.percentile_s(100) <= 1e5
