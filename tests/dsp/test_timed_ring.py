"""Samples by their time: what was written is read, and what was overwritten is noticed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.dsp import timed_ring
from rtsep.dsp.timed_ring import CURSORS, Timeline


def new(capacity: int = 64, width: int = 2) -> Timeline:
    return Timeline(np.zeros((capacity, width), np.float32), np.zeros(CURSORS, np.int64))


def ramp(start: int, n: int, width: int = 2) -> np.ndarray:
    return np.arange(start * width, (start + n) * width, dtype=np.float32).reshape(n, width)


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 40), st.booleans()), max_size=30))
def test_every_sample_keeps_its_time(steps: list[tuple[int, int, bool]]) -> None:
    line, known = new(), np.zeros(0, bool)
    for n, gap, leave_out in steps:
        line.append(ramp(line.written, n))
        known = np.append(known, np.ones(n, bool))
        if leave_out:
            line.leave_out(gap)
            known = np.append(known, np.zeros(gap, bool))
        assert line.written == len(known)
        start = max(0, len(known) - 64)
        out = np.full((len(known) - start, 2), np.nan, np.float32)
        line.copy(start, out)
        there = known[start:]
        np.testing.assert_array_equal(out[there], ramp(start, len(out))[there])


def test_a_reader_that_comes_too_late_can_tell() -> None:
    line, out = new(), np.zeros((8, 2), np.float32)
    for start in range(0, 64, 8):
        line.append(ramp(start, 8))
    assert line.read(out) and line.readable == 56
    np.testing.assert_array_equal(out, ramp(0, 8))
    line.append(ramp(64, 16))
    assert not line.read(out), "its oldest samples are gone"
    line.skip(100)
    assert line.readable == 80 - 116


@given(st.integers(0, 200), st.integers(0, 64))
def test_the_kernels_are_their_python(start: int, n: int) -> None:
    lines = new(), new()
    for line, append in zip(lines, (timed_ring.append, timed_ring.append.py_func), strict=True):
        line.leave_out(start)
        append(line.data, line.cursors, ramp(start, n))
    np.testing.assert_array_equal(lines[0].data, lines[1].data)
    outs = np.zeros((2, n, 2), np.float32)
    timed_ring.copy(lines[0].data, start, outs[0])
    timed_ring.copy.py_func(lines[0].data, start, outs[1])
    np.testing.assert_array_equal(outs, np.stack([ramp(start, n)] * 2))


def test_what_does_not_fit_is_refused() -> None:
    for wrong in (np.zeros((1, 3), "f4"), np.zeros((1, 2)), np.zeros((65, 2), "f4")):
        with pytest.raises(ValueError, match="C-contiguous float32 of shape"):
            new().append(wrong)
    with pytest.raises(ValueError, match="invalid timeline"):
        new(capacity=48)


def test_waiting_lets_python_go_on_and_ends() -> None:
    line = new(8, 1)
    assert not line.wait(4, 1000, 5)
    written: list[bool] = []

    def write() -> None:
        time.sleep(0.05)
        line.append(np.zeros((4, 1), np.float32))
        written.append(True)

    thread = threading.Thread(target=write)
    thread.start()
    assert line.wait(4, 1000, 5000) and written
    thread.join()
    assert line.wait(4, 1000, 1)
