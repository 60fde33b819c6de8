"""A recording holds what was separated, on time and aligned, whatever disk and device do."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import AudioFileError
from rtsep.files.readers import read_all
from rtsep.files.writers import Take
from rtsep.realtime import recorder as recorders
from rtsep.realtime.recorder import Recorder
from tests.support.command import start
from tests.support.patience import PATIENCE_S, until
from tests.support.random_cases import cases

Array = np.ndarray[Any, np.dtype[np.float32]]


def noise(n: int, channels: int = 1) -> Array:
    return np.random.default_rng(n).standard_normal((n, channels)).astype(np.float32)


def recorded(recorder: Recorder) -> list[Array]:
    return [read_all(path)[0] for path in recorder.paths]


class Stream:
    """A model that doubles, ``latency`` samples late, and a recorder of its stream."""

    def __init__(self, folder: Path, latency: int, channels: int = 1) -> None:
        self.recorder = Recorder(folder, ("a", "b"), 16000, channels, latency)
        self.late = np.zeros((latency, channels), np.float32)
        self.time = 0

    def put(self, x: Array) -> None:
        known = np.concatenate([self.late, x])
        stems = known[: len(x), None] * np.array([1, 2], np.float32)[:, None]
        self.late = known[len(x) :]
        self.recorder.put(x, np.ascontiguousarray(stems))

    def ramp(self, n: int) -> None:
        """Put the numbers from where the last ones ended; exact in float32."""
        self.put(np.arange(self.time + 1, self.time + n + 1, dtype=np.float32)[:, None])
        self.time += n

    def close(self) -> list[Array]:
        tail = self.late[:, None] * np.array([1, 2], np.float32)[:, None]
        self.recorder.close(np.ascontiguousarray(tail))
        return recorded(self.recorder)


@cases(8)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    latency=st.integers(0, 5000),
    channels=st.integers(1, 2),
)
def test_a_recording_is_complete_and_aligned(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], latency: int, channels: int
) -> None:
    folder = tmp_path_factory.mktemp("r") / "new"
    x = noise(sum(sizes), channels)
    stream = Stream(folder, latency, channels)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        stream.put(part)
    for found, wanted in zip(stream.close(), (x, x, 2 * x), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert stream.recorder.lost == 0
    assert sorted(p.name for p in folder.iterdir()) == ["a.wav", "b.wav", "mixture.wav"]


@pytest.mark.parametrize("latency", [0, 100, 3000])
def test_what_a_slow_disk_loses_is_counted_and_silent_and_nothing_shifts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latency: int
) -> None:
    disk, write = threading.Event(), Take.write
    disk.set()

    def slow(self: Take, block: Array) -> None:
        assert disk.wait(PATIENCE_S)
        write(self, block)

    monkeypatch.setattr(Take, "write", slow)
    monkeypatch.setattr(recorders, "DISK_LAG_S", 0.25)
    stream = Stream(tmp_path, latency)
    recorder = stream.recorder
    for _ in range(3):
        stream.ramp(2000)
        disk.clear()
        for _ in range(40):
            stream.ramp(500)  # if it waited for the disk, the disk would give up
        lost = recorder.lost
        disk.set()
        until(lambda: recorder._mixture.ring.readable <= latency)
    stream.ramp(500)
    assert 0 < recorder.lost == lost < stream.time
    mixture, a, b = (found[:, 0] for found in stream.close())
    assert len(mixture) == len(a) == len(b) == stream.time
    # Every sample that is there lies where the stream's clock says, in all files.
    for found, gain in ((mixture, 1), (a, 1), (b, 2)):
        there = found != 0
        assert np.count_nonzero(there) == stream.time - recorder.lost
        np.testing.assert_array_equal(np.flatnonzero(there), found[there] / gain - 1)
    both = (mixture != 0) & (a != 0)
    np.testing.assert_array_equal(mixture[both], a[both])
    assert np.count_nonzero(both) > stream.time - 2 * recorder.lost


@pytest.mark.parametrize("fault", [AudioFileError("the disk is full"), ZeroDivisionError("fault")])
def test_a_recording_that_fails_is_told_and_what_was_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    write = Take.write

    def fail(self: Take, block: Array) -> None:
        if self.length >= 1500:
            raise fault
        write(self, block)

    monkeypatch.setattr(Take, "write", fail)
    monkeypatch.setattr(recorders, "_ROWS", 500)
    stream = Stream(tmp_path, 100)
    for _ in range(4):
        stream.ramp(500)
    until(lambda: stream.recorder.error is not None)
    stream.ramp(500)
    with pytest.raises(type(fault), match=str(fault)) as caught:
        stream.close()
    if isinstance(fault, AudioFileError):
        assert str(caught.value) == "the disk is full; the first 0.1 s are kept"
    found = recorded(stream.recorder)
    length = len(found[0])
    assert 1500 <= length < 2000 and stream.recorder.lost == stream.time - length
    for x, gain in zip(found, (1, 1, 2), strict=True):
        np.testing.assert_array_equal(x[:, 0], gain * np.arange(1, length + 1))


def test_a_killed_program_leaves_all_but_the_last_half_second(tmp_path: Path) -> None:
    process = start("-d", "demo", "--record", tmp_path)
    assert process.stdout is not None
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        latency_s = elapsed_s = 0.0
        while elapsed_s < 3.0:
            line = process.stdout.readline()
            assert line, "it ended by itself"
            if told := re.match(r"latency ([\d.]+) ms", line):
                latency_s = float(told[1]) / 1000
            if told := re.match(r" *([\d.]+) s  latency", line):
                elapsed_s = float(told[1])
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finally:
        process.kill()
        watchdog.cancel()
    assert 0 < latency_s < 0.2
    lengths = []
    for name in ("mixture", "speech", "noise"):
        x, rate = read_all(tmp_path / f"{name}.wav")
        assert np.abs(x).max() > 0.01
        lengths.append(len(x) / rate)
    assert min(lengths) >= elapsed_s - 0.5
    assert max(lengths) - min(lengths) < 0.5
