"""The headroom follows the machine, comes to rest, and is remembered."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.soak import waiting
from rtsep.devices.fake import FakeDevice, Hold
from rtsep.realtime import headroom
from rtsep.realtime.builder import Stream
from rtsep.realtime.headroom import Need, Regulator, recall, remember
from rtsep.runtime.timing import Durations
from tests.support.random_cases import cases

RATE, BLOCK = 48_000, 128
BLOCK_S = BLOCK / RATE
LOOK_S = 0.1


class Machine:
    """Answers of a worker with a log-normal time, and the misses that follow from the headroom."""

    def __init__(self, median_s: float, spread: float, seed: int, blocks: int = 4) -> None:
        self.median_s, self.spread = median_s, spread
        self.random = np.random.default_rng(seed)
        self.regulator = Regulator(BLOCK_S, Need(blocks), 1 << 10)
        self.durations = Durations()
        self.now_s, self.misses, self.missing, self.xruns = 0.0, 0, 0, 0
        self.changes: list[int] = []

    def run(self, seconds: float) -> None:
        cells, per_look = self.durations.histogram.cells, round(LOOK_S / BLOCK_S)
        for _ in range(round(seconds / LOOK_S)):
            times = self.median_s * np.exp(self.spread * self.random.standard_normal(per_look))
            late = np.ceil(times / BLOCK_S) - self.regulator.blocks
            self.misses += int((late > 0).sum())
            self.missing += int(late[late > 0].sum())
            np.add.at(cells, np.clip(200 * np.log10(times / 1e-7), 0, 1600).astype(int), 1)
            self.now_s += LOOK_S
            before = self.regulator.blocks
            if self.regulator.look(self.now_s, self.misses, self.missing, cells, self.xruns):
                self.changes.append(self.regulator.blocks - before)


@cases(5)
@given(
    median_s=st.floats(1e-4, 8e-3),
    spread=st.floats(0.05, 1.0),
    first=st.integers(1, 18),
    seed=st.integers(0, 99),
)
def test_it_comes_to_rest_on_any_machine(
    median_s: float, spread: float, first: int, seed: int
) -> None:
    """There are few attempts to shrink, each of which grows at most to where it was."""
    machine, seconds = Machine(median_s, spread, seed, first), 300.0
    machine.run(seconds)
    shrunk = [-change for change in machine.changes if change < 0]
    attempts = 2 + math.log2(seconds / headroom.PATIENCE_S)
    assert len(shrunk) <= attempts + machine.regulator.most
    assert machine.changes.count(1) <= machine.regulator.most + sum(shrunk)
    last = len(machine.changes)
    machine.run(seconds / 2)
    assert len(machine.changes) - last <= 3 + machine.regulator.most // 2


@pytest.mark.parametrize(("median_s", "blocks"), [(0.0005, 1), (0.0028, 2), (0.006, 3)])
def test_it_becomes_what_the_slowest_answers_need(median_s: float, blocks: int) -> None:
    machine = Machine(median_s, 0.05, 0)
    machine.run(15.0)
    assert machine.regulator.blocks == blocks and machine.misses == 0
    assert median_s < machine.regulator.slowest_s < 1.4 * median_s
    assert machine.changes == [blocks - 4]


def test_a_miss_lets_it_grow_and_wait_longer() -> None:
    machine = Machine(0.0005, 0.05, 0)
    machine.run(15.0)
    for patience_s in (20.0, 40.0):
        machine.misses += 3
        machine.missing += 3
        machine.run(LOOK_S)
        assert (machine.regulator.blocks, machine.regulator.patience_s) == (2, patience_s)
        machine.run(patience_s - 1.0)
        assert machine.regulator.blocks == 2
        machine.run(3.0)
        assert machine.regulator.blocks == 1


def test_rare_misses_are_spared_where_that_is_asked_for() -> None:
    machine = Machine(0.0005, 0.05, 0)
    machine.regulator = Regulator(BLOCK_S, Need(1), 99, spared=2)

    def miss(times: int) -> None:
        machine.misses += times
        machine.missing += times
        machine.run(LOOK_S)

    machine.run(2.0)
    for _ in range(5):
        miss(2)
        machine.run(headroom.PATIENCE_S)
    assert not machine.changes
    miss(1)
    machine.run(1.0)
    miss(2)
    assert machine.changes == [1]
    machine.run(headroom.SETTLE_S)
    miss(2)  # those before are forgotten
    assert machine.changes == [1]
    miss(5)
    assert machine.changes == [1, 1]


def test_misses_beside_xruns_are_the_devices() -> None:
    machine = Machine(0.0005, 0.05, 0, 1)
    machine.run(5.0)
    for wait_s in (0.0, 0.4):
        machine.xruns += 1
        machine.run(LOOK_S + wait_s)
        machine.misses += 1
        machine.missing += 1
        machine.run(2.0)
        assert machine.changes == ([] if wait_s == 0.0 else [1])


def test_what_no_headroom_helps_against_changes_nothing() -> None:
    machine = Machine(0.0005, 0.05, 0, 1)
    machine.run(5.0)
    machine.misses += 1
    machine.missing += machine.regulator.most + 1
    machine.run(1.0)
    assert not machine.changes
    cells = machine.durations.histogram.cells
    idle = Regulator(BLOCK_S, Need(3), 99)
    for second in range(100):  # a device that is away: no answers
        assert not idle.look(float(second), 0, 0, cells)


def test_it_is_never_more_than_can_be() -> None:
    assert Regulator(BLOCK_S, Need(500), 99).blocks == int(headroom.MOST_S / BLOCK_S)
    assert Regulator(BLOCK_S, Need(5), 3).blocks == 3
    assert Regulator(0.2, Need(1), 9).blocks == 1


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(headroom, "_path", lambda: tmp_path / "new" / "headroom.json")
    return tmp_path / "new" / "headroom.json"


def test_the_newest_streams_are_remembered(state: Path) -> None:
    assert recall("a") is None
    for number in range(headroom.MOST_KEPT + 5):
        remember("a", Need(2))
        remember(f"{number}", Need(number + 1, 20.0))
    assert recall("a") == Need(2)
    assert recall("0") is None
    assert recall("99") == Need(100, 20.0)
    assert len(json.loads(state.read_text())) == headroom.MOST_KEPT


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{",
        b"[" * 60_000,
        b"[1, 2]",
        b'{"a": 3}',
        b'{"a": null}',
        b'{"a": [2]}',
        b'{"a": ["2", 10.0]}',
        b'{"a": [true, 10.0]}',
        b'{"a": [0, 10.0]}',
        b'{"a": [2, NaN]}',
        b'{"a": [2, Infinity]}',
        b'{"a": [2, "later"]}',
        b'{"a": [2, 1' + b"0" * 400 + b"]}",
        b'{"a": [2, 10.0]' + b" " * 100_000 + b"}",
    ],
)
def test_a_file_that_is_not_valid_is_ignored(state: Path, content: bytes) -> None:
    state.parent.mkdir()
    state.write_bytes(content)
    assert recall("a") is None
    remember("a", Need(3))
    assert recall("a") == Need(3)


def test_without_a_place_nothing_is_remembered(tmp_path: Path, state: Path) -> None:
    state.parent.touch()
    remember("a", Need(3))
    assert recall("a") is None


def answer(stream: Stream, seconds: float, count: int) -> None:
    """Let the worker have answered; without a thread it does not know when blocks arrived."""
    cells = stream.worker.answers.histogram.cells
    cells[:] = 0
    for _ in range(count):
        stream.worker.answers.add(seconds)


def test_a_stream_changes_its_device_and_begins_there_again(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(headroom.time, "monotonic", lambda: now[0])

    def opened(kind: Any, *script: Any) -> tuple[Stream, FakeDevice]:
        device = FakeDevice(RATE, 1, 1, BLOCK, 4 * BLOCK, script=script)
        stream = Stream(waiting(480, 1.0), device, headroom=kind)
        device.start()
        return stream, device

    stream, device = opened("adapted", Hold(3.0, 0.05))
    terms = stream.worker.latency.terms
    answer(stream, 0.0, 1)
    for _ in range(12):  # quick answers
        stream._adapt()
        answer(stream, 0.0004, 400)
        now[0] += 1.0
        stream.worker.answers.histogram.cells[:] *= round(now[0] - 1000.0)
    assert device.headroom == BLOCK
    assert stream.worker.latency.terms == {**terms, "headroom": BLOCK}
    assert "headroom 2.7 ms now, because it answers within 0." in stream.notices.last()[1]
    device.run(stream.worker.turn, 4.0)  # a miss
    stream._adapt()
    assert device.headroom == 2 * BLOCK
    assert "because the worker has missed a deadline" in stream.notices.last()[1]
    stream.stop()

    stream, device = opened("adapted")
    assert device.headroom == 2 * BLOCK
    stream.stop()
    for kind, blocks in (("fixed", 4), ("smallest", 1)):
        before = state.read_bytes()
        stream, device = opened(kind)
        stream._adapt()
        assert device.headroom == blocks * BLOCK
        stream.stop()
        assert state.read_bytes() == before
