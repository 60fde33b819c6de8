"""The compiled loop does what Python does, to the sample and to the count, and needs no lock."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.runtime import _nrt_python as nrt
from numba.core.runtime import rtsys

from rtsep.files.readers import read_all
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.stem_reader import Tap
from rtsep.realtime.worker import StreamWorker
from rtsep.spec import Float32
from tests.support.audio import gaussian as noise
from tests.support.stream import SPEC, Hand, stream


def driven(live: StreamWorker, turns: list[int], x: Float32) -> Float32:
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


def in_python(live: StreamWorker) -> StreamWorker:
    """Let Python do all turns."""
    live._compiled = lambda: None  # type: ignore[method-assign]
    return live


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 44100, 48000]),
    block=st.integers(1, 300),
    channels=st.integers(1, 2),
    turns=st.lists(st.integers(0, 9), min_size=10, max_size=60),
    bad=st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([np.nan, np.inf, 9e29]))),
)
def test_both_give_the_same(
    rate: int, block: int, channels: int, turns: list[int], bad: list[tuple[int, float]]
) -> None:
    n = max(1, sum(turns)) * block
    x = noise(n, channels)
    for at, value in bad:
        x[at % n, at % channels] = value
    lives = []
    for _ in range(2):
        device = Hand(rate, channels, 2, block, 2 * block, x)
        lives.append(stream(device, (1, 0.5)))
        lives[-1].chain.tap = tap = Tap(len(SPEC.sources), channels, rate)
        tap.reading = True
    ours, other = lives[0], in_python(lives[1])
    assert ours._compiled() is not None
    heard, wanted = driven(ours, turns, x), driven(other, turns, x)
    assert np.all(np.isfinite(heard))
    np.testing.assert_allclose(heard, wanted, rtol=1e-5, atol=1e-6)
    counted, expected = ours.figures(), other.figures()
    for name in ("hop_time_us", "real_time_factor"):
        del counted[name], expected[name]
    assert counted == expected
    assert ours.chain.step.times.count == other.chain.step.times.count
    for live in lives:
        assert live.busy_s > 0 or not live.processed
    taps = [live.chain.tap for live in lives]
    assert taps[0] is not None and taps[1] is not None
    assert (taps[0].readable, taps[0].lost) == (taps[1].readable, taps[1].lost)
    made, known = (tap.read(n) for tap in taps if tap is not None)
    np.testing.assert_allclose(made, known, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_both_record_the_same(rate: int, tmp_path: Path) -> None:
    block, turns = 100, [2] * 105
    x = noise(sum(turns) * block)
    takes = []
    for folder in ("ours", "other"):
        live = stream(Hand(rate, 1, 1, block, 2 * block, x), (1, 0))
        live.recorder = Recorder(
            tmp_path / folder, SPEC.sources, rate, 1, live.engine.latency_samples
        )
        driven(live if folder == "ours" else in_python(live), turns, x)
        live.stop()
        takes.append([read_all(path)[0] for path in sorted((tmp_path / folder).iterdir())])
    assert len(takes[0]) == 3
    for ours, other in zip(*takes, strict=True):
        assert len(ours) == len(x)
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-6)


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
    """Numba's own memory, too; to enter costs something, once."""
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
    finally:
        nrt.memsys_disable_stats()
    assert live.processed == (4 + most) * block
    assert allocated[1] == allocated[2] == allocated[3] > 0
