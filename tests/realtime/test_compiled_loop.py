"""The compiled loop does what engine and mixer do, to the bit and to the count, without a lock."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.runtime import _nrt_python as nrt
from numba.core.runtime import rtsys

from rtsep.dsp.mixer import Mixer
from rtsep.files.readers import read_all
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.stem_reader import Tap
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.runtime.ort_step import OrtStep
from rtsep.spec import Float32, Step
from tests.support.audio import gaussian as noise
from tests.support.random_cases import cases
from tests.support.stream import BUNDLE, SPEC, Hand, stream


def driven(live: StreamWorker | InPython, turns: list[int], x: Float32) -> Float32:
    """What is heard where the worker comes after so many blocks each time."""
    block = live.device.block
    played = np.zeros((sum(turns) * block, live.device.output.width), np.float32)
    nothing = np.zeros((0, x.shape[1]), np.float32)
    start = 0
    for blocks in turns:
        for _ in range(blocks):
            live.device.tick(nothing, played[start : start + block], 0.0)  # type: ignore[attr-defined]
            start += block
        live.turn()
    return played


class Plain:
    """A model that no kernel knows, in Python; some of its calls give no sound."""

    def __init__(self, channels: int, fault: int = 0) -> None:
        self._step, self._fault, self._calls = OrtStep(BUNDLE, channels), fault, 0
        self.mixture, self.sources, self.reset = (
            *(self._step.mixture, self._step.sources),
            self._step.reset,
        )

    def __call__(self) -> None:
        self._step()
        self._calls += 1
        if self._fault and self._calls % self._fault == 0:
            self.sources[self._calls % len(self.sources), 0, 1, 0, 0, 3] = np.nan


class Spoiled(OrtStep):
    """A model in ONNX Runtime of which some calls give no sound."""

    calls = 0

    def __call__(self) -> None:
        super().__call__()
        self.calls += 1
        if self.calls % 7 == 0:
            self.sources[self.calls % len(self.sources), 0, 1, 0, 0, 3] = np.inf


STEPS: dict[str, Callable[[int], Step]] = {
    "tape": lambda channels: make_step(BUNDLE, channels),
    "runtime": lambda channels: OrtStep(BUNDLE, channels),
    "plain": Plain,
    "plain, spoiled": lambda channels: Plain(channels, 5),
    "runtime, spoiled": lambda channels: Spoiled(BUNDLE, channels),
}


class InPython:
    """What the worker does, with an engine and a mixer, where the whole backlog is one block."""

    def __init__(self, device: Hand, step: Step, gains: tuple[float, ...]) -> None:
        self.device, channels = device, device.input.width
        self.engine = Engine(step, SPEC, channels, device.block, device.sample_rate)
        late = self.engine.latency_samples
        self.mixer = Mixer(2, channels, device.output.width, device.sample_rate, late)
        self.mixer.gains[:] = gains
        self.engine.process(np.zeros((20 * device.block, channels), np.float32))  # as to warm up
        self.engine.reset()
        self.mixer.reset()
        self.calls, self.counted = self.engine.calls, self.engine.nonfinite_out
        device.replace_late(late)
        self.stems: list[Float32] = []
        self.in_time = self.processed = self.dropped = 0

    def turn(self) -> bool:
        incoming, block = self.device.input, self.device.block
        backlog = incoming.readable // block * block
        if not backlog:
            return False
        if self.device.output.readable >= 0:
            self.in_time = incoming.position
        most = (4 * self.device.headroom // block + 16) * block
        if backlog > most or incoming.written - self.in_time > self.device.sample_rate // 2:
            incoming.skip(backlog)
            self.device.leave_out(backlog, self.engine.latency_samples)
            self.in_time = incoming.position
            self.dropped += backlog
            return True
        mixture = np.zeros((backlog, incoming.width), np.float32)
        assert incoming.read(mixture)
        self.stems.append(self.engine.process(mixture))
        out = np.zeros((backlog, self.device.output.width), np.float32)
        self.device.output.append(self.mixer.process(mixture, self.stems[-1], out))
        self.processed += backlog
        return True


@cases(30)
@given(
    way=st.sampled_from(sorted(STEPS)),
    rate=st.sampled_from([8000, 16000, 44100, 48000]),
    block=st.integers(1, 300),
    channels=st.integers(1, 2),
    turns=st.lists(st.integers(0, 9), min_size=10, max_size=60),
    bad=st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([np.nan, np.inf, 9e29]))),
)
def test_live_is_engine_and_mixer_to_the_bit(
    way: str,
    rate: int,
    block: int,
    channels: int,
    turns: list[int],
    bad: list[tuple[int, float]],
) -> None:
    n = max(1, sum(turns)) * block
    x = noise(n, channels)
    for at, value in bad:
        x[at % n, at % channels] = value
    devices = [Hand(rate, channels, 2, block, 2 * block, x) for _ in range(2)]
    live = stream(devices[0], (1, 0.5), step=STEPS[way](channels))
    before = live.engine.calls, live.nonfinite[1]
    live.chain.tap = tap = Tap(len(SPEC.sources), channels, rate)
    tap.reading = True
    plain = InPython(devices[1], STEPS[way](channels), (1, 0.5))
    heard, wanted = driven(live, turns, x), driven(plain, turns, x)
    assert np.all(np.isfinite(heard))
    np.testing.assert_array_equal(heard, wanted)
    assert (live.processed, live.dropped) == (plain.processed, plain.dropped)
    assert devices[0].stats() == devices[1].stats()
    calls, spoiled = live.engine.calls - before[0], live.nonfinite[1] - before[1]
    assert calls == plain.engine.calls - plain.calls
    assert spoiled == plain.engine.nonfinite_out - plain.counted
    assert live.nonfinite[0] == plain.engine.nonfinite_in
    if plain.stems:
        known = np.concatenate(plain.stems)
        assert tap.readable + tap.lost == len(known)
        made = tap.read(len(known))
        np.testing.assert_array_equal(made, known[: len(made)])


@pytest.mark.parametrize("way", ["tape", "runtime"])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_what_is_recorded_is_what_is_separated(rate: int, way: str, tmp_path: Path) -> None:
    block, turns = 100, [2] * 105
    x = noise(sum(turns) * block)
    live = stream(Hand(rate, 1, 1, block, 2 * block, x), (1, 0), step=STEPS[way](1))
    live.recorder = Recorder(tmp_path, SPEC.sources, rate, 1, live.engine.latency_samples)
    driven(live, turns, x)
    live.stop()
    engine = Engine(STEPS[way](1), SPEC, 1, block, rate)
    known = np.concatenate([engine.process(x), engine.flush()])[engine.latency_samples :]
    np.testing.assert_array_equal(read_all(tmp_path / "mixture.wav")[0], x)
    for index, name in enumerate(SPEC.sources):
        np.testing.assert_array_equal(read_all(tmp_path / f"{name}.wav")[0], known[:, index])


def test_a_recording_that_is_behind_is_for_python(tmp_path: Path) -> None:
    block = 100
    x = noise(4 * block)
    live = stream(Hand(16000, 1, 1, block, 2 * block, x), (1, 0))
    live.recorder = recorder = Recorder(tmp_path, SPEC.sources, 16000, 1, 0)
    recorder.tracks.counters[:] = 7, 7  # so many are over, all of them lost
    driven(live, [4], x)
    assert recorder.tracks.counters[1] == 0, "noted"
    assert live.processed == len(x)
    live.stop()
    mixture, _ = read_all(tmp_path / "mixture.wav")
    np.testing.assert_array_equal(mixture, np.concatenate([np.zeros((7, 1), np.float32), x]))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no usleep")
def test_nobody_who_holds_the_interpreter_holds_it_up() -> None:
    block, blocks = 64, 6
    live = stream(Hand(16000, 1, 1, block, blocks * block, noise(blocks * block)), (1, 0))
    hold: Any = ctypes.PyDLL(None).usleep  # it keeps the lock
    live.start()
    time.sleep(0.5)  # the worker needs the lock until its loop runs
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10.0)  # nor does anybody take it from this thread
    try:
        hold(100_000)
        driven_so_far = live.processed
        played, nothing = np.zeros((block, 1), np.float32), np.zeros((0, 1), np.float32)
        for _ in range(blocks):
            live.device.tick(nothing, played, 0.0)  # type: ignore[attr-defined]
        hold(500_000)
        processed = live.processed
    finally:
        sys.setswitchinterval(interval)
        live.stop()
    assert (driven_so_far, processed) == (0, blocks * block)


def test_a_block_allocates_nothing() -> None:
    """Numba's own memory, too, which it takes for every array that it is given."""
    block, most = 48, 50
    device = Hand(48000, 1, 1, block, most * block, noise(1000 * block))
    live = stream(device, (1, 0))
    nrt.memsys_enable_stats()
    try:
        allocated = []
        for blocks in (1, 1, 2, most):
            before = rtsys.get_allocation_stats().alloc
            driven(live, [blocks], noise(1))
            allocated.append(rtsys.get_allocation_stats().alloc - before)
        before = rtsys.get_allocation_stats().alloc
        live.mixer.process(noise(block), np.zeros((block, 2, 1), np.float32), noise(block))
        assert rtsys.get_allocation_stats().alloc > before, "it is counted"
    finally:
        nrt.memsys_disable_stats()
    assert live.processed == (4 + most) * block
    assert allocated[1:] == [0, 0, 0]
