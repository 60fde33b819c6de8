"""The stream of blocks, driven by hand and by the clock."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtsep.devices.callback_stream import CallbackStream
from rtsep.devices.device import Device
from rtsep.devices.paced import Clock
from rtsep.errors import DeviceError
from tests.support.random_cases import cases

RATE, BLOCK = 48_000, 128


class Bench:
    """An stream driven by hand: input sample i is i + 1, the worker moves what it is told."""

    def __init__(self, block: int = 8, headroom: int = 16, **options: Any) -> None:
        self.stream = CallbackStream(1000, 1, 1, block, headroom, microphone=True, **options)
        self.block, self.played = block, np.zeros(0, np.float32)

    def tick(self, now: float = 0.0, flags: int = 0) -> None:
        start = len(self.played)
        block = np.arange(start + 1, start + 1 + self.block, dtype=np.float32)[:, None]
        out = np.full((self.block, 1), np.nan, np.float32)
        self.stream.tick(block, out, now, flags)
        self.played = np.concatenate([self.played, out[:, 0]])

    def work(self, n: int = 1 << 20) -> None:
        block = np.zeros((min(n, self.stream.input.readable), 1), np.float32)
        assert self.stream.input.read(block)
        self.stream.output.append(block)

    def expected(self) -> np.ndarray:
        """What is heard without a fault: the input, ``headroom`` samples late."""
        delayed = np.arange(len(self.played)) + 1.0 - self.stream.headroom
        return np.maximum(delayed, 0.0).astype(np.float32)


@given(st.integers(1, 16), st.integers(0, 40))
def test_the_exchange_adds_exactly_the_headroom(block: int, headroom: int) -> None:
    bench = Bench(block, headroom)
    for _ in range(20):
        bench.tick()
        bench.work()
    stats = bench.stream.stats()
    if headroom >= block:
        np.testing.assert_array_equal(bench.played, bench.expected())
        assert (stats.starvations, stats.late) == (0, 0)
    else:  # the worker cannot answer in time
        assert stats.starved_samples == 20 * (block - headroom)
    assert stats.callbacks == 20


@given(st.integers(1, 16), st.integers(0, 40), st.integers(0, 40))
def test_a_headroom_of_another_run_is_no_miss(block: int, first: int, recalled: int) -> None:
    bench = Bench(block, first)
    bench.stream.headroom = block + recalled
    for _ in range(20):
        bench.tick()
        bench.work()
    np.testing.assert_array_equal(bench.played, bench.expected())
    assert (bench.stream.stats().starvations, bench.stream.stats().late) == (0, 0)


@example([0, 0, 4, 0], 3)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 9))
def test_nothing_is_heard_at_another_time_than_its_own(moved: list[int], block: int) -> None:
    """The late mixture takes the place of late answers: of a copy, it is the same."""
    bench = Bench(block, headroom=2 * block)
    bench.stream.replace_late(0)
    for n in moved:
        bench.tick()
        bench.work(n)
    faded = np.abs(bench.played - bench.expected())
    # Where it goes over, a sample is held and caught up with; that may begin before the last end.
    assert (faded < 2.0).all()
    for _ in range(20):
        bench.work()
        bench.tick()
    np.testing.assert_array_equal(bench.played[-block:], bench.expected()[-block:])
    assert bench.stream.stats().late == 0


def test_scripted_starvation_is_counted_and_answers_come_back_in_their_place() -> None:
    bench = Bench(block=8, headroom=16)
    for tick in range(30):
        bench.tick()
        if not 10 <= tick < 14:  # four blocks late, two of them covered by the headroom
            bench.work()
    stats = bench.stream.stats()
    assert (stats.starvations, stats.starved_samples, stats.late) == (1, 24, 0)
    assert stats.longest_starvation == 24
    expected = bench.expected()
    fade = 5
    heard, first = np.flatnonzero(bench.played != expected), 12 * 8
    assert heard.min() == first and heard.max() == 15 * 8 + fade - 2
    tail = expected[first - 1] * np.arange(fade, -1, -1) / fade
    np.testing.assert_allclose(bench.played[first : first + fade + 1], tail, rtol=1e-6)


def test_what_is_left_out_is_not_played() -> None:
    bench = Bench(block=8, headroom=16)
    for tick in range(100):
        bench.tick()
        if tick == 60:
            stream = bench.stream
            late = stream.input.readable
            stream.input.skip(late)
            stream.leave_out(late, latency=10)
        elif not 10 <= tick < 60:
            bench.work()
    stats = bench.stream.stats()
    assert late == 51 * 8
    # From tick 12 on nothing is there; the next answer is that to the first sample of tick 61.
    assert stats.starved_samples == stats.longest_starvation == (61 - 12) * 8 + 16 + 10
    assert (stats.starvations, stats.late) == (1, 0)
    np.testing.assert_array_equal(bench.played[-200:], bench.expected()[-200:])


def test_no_sample_is_further_from_the_last_than_the_fade_allows() -> None:
    """Answers of another sign than the mixture, there and not there."""
    rate, block, fade = 48_000, 64, 240
    stream = CallbackStream(rate, 1, 1, block, block, microphone=True)
    stream.replace_late(0)
    heard = np.zeros((600, block, 1), np.float32)
    mixture, answer = np.full((block, 1), 0.5, "f4"), np.full((block, 1), -0.5, "f4")
    present = np.random.default_rng(0).random(600) < 0.8
    for i, there in enumerate(present):
        stream.tick(mixture, heard[i], 0.0)
        if there:
            late = stream.input.readable - block
            stream.input.skip(late + block)
            stream.output.leave_out(late)
            stream.output.append(answer)
    played = heard.reshape(-1)[2 * block :]
    assert np.abs(np.diff(played)).max() <= 2 * 1.5 / fade
    assert played.min() == -0.5 and played.max() > 0.4


@cases(30)
@given(
    block=st.integers(1, 16),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    absent=st.booleans(),
)
def test_a_change_of_the_headroom_is_cross_faded(
    block: int, sizes: list[int], absent: bool
) -> None:
    """From the output of one time to that of the other, or between the mixtures of both times."""
    bench, slope = Bench(block, headroom=4 * block), 16 * 12
    stream = bench.stream
    stream.replace_late(0)
    for _ in range(20):
        bench.tick()
        bench.work()
    for size in sizes:
        stream.headroom = size * block
        assert stream.latency_terms()["headroom"] == stream.headroom == size * block
        before = stream.stats()
        for _ in range(30):
            bench.tick()
            if not absent:
                bench.work()
        if absent:
            bench.work()
        else:
            assert stream.stats().starvations == before.starvations
        np.testing.assert_array_equal(bench.played[-block:], bench.expected()[-block:])
    played = bench.played[5 * block :]
    assert np.abs(np.diff(played)).max() <= 1 + slope / 5  # a fade of five samples
    assert stream.stats().late == 0


def test_a_headroom_that_cannot_be() -> None:
    stream = Bench(8, headroom=16).stream
    stream.replace_late(1000)
    most = stream.input.capacity - 8 - 1000
    for n in (-1, most + 1):
        with pytest.raises(ValueError, match=f"must be 0 to {most} samples, not {n}"):
            stream.headroom = n
    stream.headroom = most
    assert stream.headroom == most


@given(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 1e31, 0.5]), min_size=8, max_size=8))
def test_only_sound_is_kept_and_played(values: list[float]) -> None:
    stream = CallbackStream(1000, 1, 1, 8, 0, microphone=True)
    stream.replace_late(0)
    block, out = np.array(values, np.float32)[:, None], np.zeros((8, 1), np.float32)
    stream.tick(block, out, 0.0)
    assert np.isfinite(out).all()
    kept = np.zeros((8, 1), np.float32)
    stream.input.read(kept)
    np.testing.assert_array_equal(kept, np.where(block == 0.5, block, 0.0))
    assert stream.stats().nonfinite == np.sum(block != 0.5)
    stream.output.leave_out(8)
    stream.output.append(block)
    stream.tick(block, out, 0.0)
    assert np.isfinite(out).all()


def test_the_limiter_limits_and_is_no_one_when_off() -> None:
    x = np.random.default_rng(0).standard_normal((4800, 1)).astype(np.float32)
    played = np.zeros((2, *x.shape), np.float32)
    for out, level in zip(played, (np.inf, 0.5), strict=True):
        stream = CallbackStream(48_000, 1, 1, len(x), 0, microphone=True)
        stream.replace_late(0)
        stream.tick(np.zeros_like(x), out, 0.0)
        stream.limit(level)
        stream.tick(x, out, 0.0)
    np.testing.assert_array_equal(played[0][240:], x[240:])
    assert np.abs(played[1]).max() == 0.5
    np.testing.assert_array_equal(np.sign(played[1]), np.sign(played[0]))


def test_a_latency_longer_than_what_is_kept_is_refused() -> None:
    stream = CallbackStream(1000, 1, 1, 8, 16)
    with pytest.raises(DeviceError, match=r"3.0 s exceeds the 2.0 s of mixture .* --on-late mute"):
        stream.replace_late(3000)


def _missed(times: list[float]) -> int:
    bench = Bench(block=10)  # a period of 10 ms
    for now in times:
        bench.tick(1.0 + 0.01 * now)
    return bench.stream.stats().missed


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
    for flags in (15, 1, 2, 2, 4, 8, 12, 16):  # the first tell of the time before the stream
        bench.tick(flags=flags)
    stats = bench.stream.stats()
    assert (stats.input_underflows, stats.input_overflows) == (1, 2)
    assert (stats.output_underflows, stats.output_overflows) == (2, 2)
    assert bench.stream.peaks() == (64.0, 64.0)
    assert bench.stream.peaks() == (0.0, 0.0)
    block, out = np.full((8, 1), -3, np.float32), np.zeros((8, 1), np.float32)
    bench.stream.tick(block, out, 0.0)
    assert bench.stream.peaks() == (3.0, 3.0)


def test_passthrough_repeats_the_last_channel() -> None:
    stream = CallbackStream(1000, 2, 3, 4, 0, microphone=True, passthrough=True)
    block, out = np.arange(8, dtype=np.float32).reshape(4, 2), np.zeros((4, 3), np.float32)
    stream.tick(block, out, 0.0)
    np.testing.assert_array_equal(out, block[:, [0, 1, 1]])
    assert stream.input.written == stream.output.written == 0


@given(st.integers(0, 50), st.integers(1, 9))
def test_a_source_is_played_once_and_then_silence(length: int, block: int) -> None:
    source = np.random.default_rng(length).standard_normal((length, 2)).astype(np.float32)
    stream = CallbackStream(1000, 2, 1, block, 0, source)
    unused, out = np.zeros((0, 2), np.float32), np.zeros((block, 1), np.float32)
    received = np.zeros((60 * block, 2), np.float32)
    for i in range(60):
        assert stream.finished == (i * block >= length)
        stream.tick(unused, out, 0.0)
        assert stream.input.read(received[i * block : (i + 1) * block])
    np.testing.assert_array_equal(received[:length], source)
    assert not received[length:].any()


@pytest.mark.parametrize("figures", [(0, 1, 1, 8, 0), (1, 1, 1, 0, 0), (1, 1, 1, 8, -1)])
def test_impossible_figures_are_refused(figures: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        CallbackStream(*figures)


def test_a_source_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(n, 2\), not \(5, 1\)"):
        CallbackStream(1000, 2, 1, 8, 0, np.zeros((5, 1), np.float32))


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
            n = clock.input.readable
            assert clock.input.read(received[count : count + n])
            count += n
    elapsed = time.perf_counter() - start
    clock.stop()
    n = clock.input.readable
    assert clock.input.read(received[count : count + n])
    assert not clock.active
    assert elapsed > 0.9 * len(source) / RATE
    np.testing.assert_array_equal(received[: len(source)], source)
    assert clock.stats().callbacks * BLOCK >= len(source)


def test_a_clock_without_a_source_is_silent_and_never_finished() -> None:
    with Clock(RATE, 2, 2, BLOCK, BLOCK) as clock:
        time.sleep(0.05)
    assert not clock.finished
    assert clock.peaks() == (0.0, 0.0)
    assert clock.latency_terms() == {"headroom": BLOCK}
