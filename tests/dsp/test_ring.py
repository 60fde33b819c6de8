from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtsep.dsp import ring
from rtsep.dsp.ring import Ring


class RingAgainstDeque(RuleBasedStateMachine):
    """A ring is a bounded deque of samples."""

    @initialize(capacity=st.integers(1, 20), width=st.integers(1, 3))
    def make(self, capacity: int, width: int) -> None:
        self.ring = Ring(capacity, width)
        self.model: deque[list[float]] = deque()
        self.next = 1.0
        self.capacity = self.ring.capacity
        assert self.capacity >= capacity and self.capacity & (self.capacity - 1) == 0

    @rule(n=st.integers(0, 40))
    def write(self, n: int) -> None:
        width = self.ring.width
        block = np.arange(self.next, self.next + n * width, dtype=np.float32).reshape(n, width)
        self.next += n * width
        block.flags.writeable = False  # a producer may hand over what it must not change
        written = self.ring.write(block)
        assert written == min(n, self.capacity - len(self.model))
        self.model.extend(block[:written].tolist())

    @rule(n=st.integers(0, 40))
    def read(self, n: int) -> None:
        out = np.full((n, self.ring.width), -1, np.float32)
        count = self.ring.read(out)
        assert count == min(n, len(self.model))
        assert out[:count].tolist() == [self.model.popleft() for _ in range(count)]
        assert (out[count:] == -1).all()

    @rule(n=st.integers(-3, 40))
    def skip(self, n: int) -> None:
        count = self.ring.skip(n)
        assert count == max(0, min(n, len(self.model)))
        for _ in range(count):
            self.model.popleft()

    @rule()
    def clear(self) -> None:
        self.ring.clear()
        self.model.clear()

    @invariant()
    def counts(self) -> None:
        assert self.ring.readable == len(self.model)
        assert self.ring.writable == self.capacity - len(self.model)


TestRingAgainstDeque = RingAgainstDeque.TestCase


@given(
    st.lists(st.tuples(st.sampled_from(["write", "read", "skip"]), st.integers(0, 12)), max_size=30)
)
def test_compiled_kernels_equal_interpreted(calls: list[tuple[str, int]]) -> None:
    compiled, interpreted = Ring(8, 2), Ring(8, 2)
    for name, n in calls:
        kernel = getattr(ring, name)
        results = []
        for which, call in ((compiled, kernel), (interpreted, kernel.py_func)):
            block = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
            if name == "skip":
                results.append((call(which.cursors, n), None))
            else:
                results.append((call(which.data, which.cursors, block), block.tolist()))
        assert results[0] == results[1]
        np.testing.assert_array_equal(compiled.data, interpreted.data)
        np.testing.assert_array_equal(compiled.cursors, interpreted.cursors)


def test_counted_sequence_arrives_unbroken_across_threads() -> None:
    total, between = 50_000, Ring(256, 2)
    numbers = np.repeat(np.arange(total, dtype=np.float32)[:, None], 2, axis=1)

    def produce() -> None:
        sent, n = 0, 0
        while sent < total:
            n = n % 97 + 1
            written = between.write(numbers[sent : sent + n])
            sent += written
            if not written:
                time.sleep(0)  # hand the GIL over

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    received = np.zeros_like(numbers)
    count, n = 0, 0
    while count < total:
        n = n % 89 + 1
        read = between.read(received[count : count + n])
        count += read
        if not read:
            time.sleep(0)
        assert read or producer.is_alive() or between.readable
    producer.join()
    np.testing.assert_array_equal(received, numbers)


def test_cursors_lie_on_cache_lines_of_their_own() -> None:
    for _ in range(20):
        cursors = Ring(4, 1).cursors
        assert cursors.ctypes.data % 128 == 0
        assert cursors.strides[0] == 128


@pytest.mark.parametrize(
    "block",
    [
        np.zeros((4, 2)),
        np.zeros((4, 3), np.float32),
        np.zeros(8, np.float32),
        np.zeros((2, 4), np.float32).T,
    ],
)
def test_a_wrong_block_is_refused(block: np.ndarray) -> None:
    between = Ring(8, 2)
    with pytest.raises(ValueError, match="C-contiguous float32"):
        between.write(block)
    with pytest.raises(ValueError, match="C-contiguous float32"):
        between.read(block)


@pytest.mark.parametrize(("capacity", "width"), [(0, 1), (1, 0), (-4, 2)])
def test_an_empty_ring_is_refused(capacity: int, width: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Ring(capacity, width)
