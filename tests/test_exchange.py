"""The exchange of blocks, driven by hand and by the clock."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.io.clock import Clock
from rtsep.io.device import Device
from rtsep.io.exchange import Exchange

RATE, BLOCK = 48_000, 128


class Bench:
    """An exchange driven by hand: input sample i is i + 1, the worker moves what it is told."""

    def __init__(self, block: int = 8, headroom: int = 16, **options: Any) -> None:
        self.exchange = Exchange(1000, 1, 1, block, headroom, microphone=True, **options)
        self.block, self.played = block, np.zeros(0, np.float32)

    def tick(self, now: float = 0.0, flags: int = 0) -> None:
        start = len(self.played)
        block = np.arange(start + 1, start + 1 + self.block, dtype=np.float32)[:, None]
        out = np.full((self.block, 1), np.nan, np.float32)
        self.exchange.tick(block, out, now, flags)
        self.played = np.concatenate([self.played, out[:, 0]])

    def work(self, n: int = 1 << 20) -> None:
        block = np.zeros((min(n, self.exchange.input.readable), 1), np.float32)
        self.exchange.input.read(block)
        assert self.exchange.output.write(block) == len(block)

    def expected(self) -> np.ndarray:
        """What is heard without a fault: the input, ``headroom`` samples late."""
        delayed = np.arange(len(self.played)) + 1.0 - self.exchange.headroom
        return np.maximum(delayed, 0.0).astype(np.float32)


@given(st.integers(1, 16), st.integers(0, 40))
def test_the_rings_add_exactly_the_headroom(block: int, headroom: int) -> None:
    bench = Bench(block, headroom)
    for _ in range(20):
        bench.tick()
        bench.work()
    stats = bench.exchange.stats()
    if headroom >= block:
        np.testing.assert_array_equal(bench.played, bench.expected())
        assert (stats.starvations, stats.debt) == (0, 0)
    else:  # the worker cannot answer in time: what is late is never played
        assert set(bench.played - bench.expected()) <= {0.0, *-bench.expected()}
    assert stats.callbacks == 20


@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 9))
def test_latency_returns_after_any_starvation(moved: list[int], block: int) -> None:
    bench = Bench(block, headroom=2 * block)
    for n in moved:
        bench.tick()
        bench.work(n)
    stats = bench.exchange.stats()
    if not stats.overrun_samples:  # nothing is ever heard at another time than its own
        heard = bench.played != 0.0
        np.testing.assert_array_equal(bench.played[heard], bench.expected()[heard])
    for _ in range(20):
        bench.work()
        bench.tick()
    np.testing.assert_array_equal(bench.played[-block:], bench.expected()[-block:])
    assert bench.exchange.stats().debt == 0


def test_scripted_starvation_is_counted_and_resynchronised() -> None:
    bench = Bench(block=8, headroom=16)
    for tick in range(30):
        bench.tick()
        if not 10 <= tick < 14:  # four blocks late, two of them covered by the headroom
            bench.work()
    stats = bench.exchange.stats()
    assert (stats.starvations, stats.starved_samples) == (1, 24)
    assert (stats.resyncs, stats.debt, stats.input_overruns) == (1, 0, 0)
    expected = bench.expected()
    expected[12 * 8 : 15 * 8] = 0.0
    np.testing.assert_array_equal(bench.played, expected)


def test_latency_returns_after_input_was_dropped() -> None:
    bench = Bench(block=8, headroom=16)
    for tick in range(100):
        bench.tick()
        if not 10 <= tick < 60:
            bench.work()
    stats = bench.exchange.stats()
    capacity = bench.exchange.input.capacity
    assert stats.input_overruns == -(-stats.overrun_samples // 8)
    # The worker moves once more what the ring held: 51 blocks came between its two visits.
    assert stats.overrun_samples == 51 * 8 - capacity
    assert (stats.starvations, stats.resyncs, stats.debt) == (1, 1, 0)
    np.testing.assert_array_equal(bench.played[-200:], bench.expected()[-200:])


def _missed(times: list[float]) -> int:
    bench = Bench(block=10)  # a period of 10 ms
    for now in times:
        bench.tick(1.0 + 0.01 * now)
    return bench.exchange.stats().missed


@given(st.lists(st.floats(-0.24, 0.24), min_size=2, max_size=200))
def test_jitter_is_no_missed_callback(jitter: list[float]) -> None:
    assert _missed([i + late for i, late in enumerate(jitter)]) == 0


@pytest.mark.parametrize("rate", [1 - 3e-4, 1 + 3e-4])
def test_a_clock_off_its_nominal_rate_is_no_missed_callback(rate: float) -> None:
    assert _missed([i * rate for i in range(20_000)]) == 0


def test_missed_callbacks_are_counted_by_the_device_clock() -> None:
    assert _missed([0, 1, 2, 5, 6, 7, 9, 10]) == 3
    assert _missed([0, 1, 3.2, 3.3, 4, 5]) == 0, "made up for by the next"
    assert _missed([0, -2, -1, 0, 1, 3, 4]) == 1, "a late first callback"
    assert _missed([-100.0] * 9) == 0, "a host without a clock says zero"


def test_flags_and_peaks() -> None:
    bench = Bench(passthrough=True)
    for flags in (0, 1, 2, 2, 4, 8, 12, 16):
        bench.tick(flags=flags)
    stats = bench.exchange.stats()
    assert (stats.input_underflows, stats.input_overflows) == (1, 2)
    assert (stats.output_underflows, stats.output_overflows) == (2, 2)
    assert bench.exchange.peaks() == (64.0, 64.0)
    assert bench.exchange.peaks() == (0.0, 0.0)
    block, out = np.full((8, 1), -3, np.float32), np.zeros((8, 1), np.float32)
    bench.exchange.tick(block, out, 0.0)
    assert bench.exchange.peaks() == (3.0, 3.0)


def test_passthrough_repeats_the_last_channel() -> None:
    exchange = Exchange(1000, 2, 3, 4, 0, microphone=True, passthrough=True)
    block, out = np.arange(8, dtype=np.float32).reshape(4, 2), np.zeros((4, 3), np.float32)
    exchange.tick(block, out, 0.0)
    np.testing.assert_array_equal(out, block[:, [0, 1, 1]])
    assert exchange.input.readable == exchange.output.readable == 0


@given(st.integers(0, 50), st.integers(1, 9))
def test_a_source_is_played_once_and_then_silence(length: int, block: int) -> None:
    source = np.random.default_rng(length).standard_normal((length, 2)).astype(np.float32)
    exchange = Exchange(1000, 2, 1, block, 0, source)
    unused, out = np.zeros((0, 2), np.float32), np.zeros((block, 1), np.float32)
    received = np.zeros((60 * block, 2), np.float32)
    for i in range(60):
        assert exchange.finished == (i * block >= length)
        exchange.tick(unused, out, 0.0)
        assert exchange.input.read(received[i * block :]) == block
    np.testing.assert_array_equal(received[:length], source)
    assert not received[length:].any()


@pytest.mark.parametrize("figures", [(0, 1, 1, 8, 0), (1, 1, 1, 0, 0), (1, 1, 1, 8, -1)])
def test_impossible_figures_are_refused(figures: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        Exchange(*figures)


def test_a_source_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(n, 2\), not \(5, 1\)"):
        Exchange(1000, 2, 1, 8, 0, np.zeros((5, 1), np.float32))


def test_the_clock_hands_over_a_whole_source_at_its_pace() -> None:
    source = np.random.default_rng(0).standard_normal((RATE // 4, 1)).astype(np.float32)
    clock: Device = Clock(RATE, 1, 1, BLOCK, 4 * BLOCK, source)
    assert not clock.active
    received, count = np.zeros((RATE, 1), np.float32), 0
    start = time.perf_counter()
    with clock:
        assert clock.active
        while not clock.finished:
            time.sleep(0.002)
            count += clock.input.read(received[count:])
    elapsed = time.perf_counter() - start
    clock.stop()
    count += clock.input.read(received[count:])
    assert not clock.active
    assert elapsed > 0.9 * len(source) / RATE
    if not clock.stats().input_overruns:
        np.testing.assert_array_equal(received[: len(source)], source)
    assert clock.stats().callbacks * BLOCK >= len(source)


def test_a_clock_without_a_source_is_silent_and_never_finished() -> None:
    with Clock(RATE, 2, 2, BLOCK, BLOCK) as clock:
        time.sleep(0.05)
    assert not clock.finished
    assert clock.peaks() == (0.0, 0.0)
    assert clock.latency_terms() == {"headroom": BLOCK}
