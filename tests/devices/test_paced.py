"""The device without a sound card: a native clock that is not blamed on the worker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from rtsep.devices import callback_stream, paced
from rtsep.devices.paced import Clock
from rtsep.realtime.builder import Stream
from rtsep.realtime.compiled_loop import REST
from rtsep.realtime.worker import POLL_S
from tests.support.stream import BUNDLE

RATE, BLOCK = 16_000, 128
BLOCK_S = BLOCK / RATE
SLACK_S = 6e-5
"""No sleep ends earlier than this after its time."""
HOP_S = 0.001
"""Time in which the worker separates a block."""


class Machine:
    """Clock and worker of the demo in simulated time, on a machine that wakes both late.

    The clock is the compiled one, interpreted; the worker sleeps as the compiled loop does, and
    then separates blocks with it. There is one block of headroom.
    """

    def __init__(self, lateness_s: Callable[[], float], seconds: float) -> None:
        self.lateness_s, self.seconds = lateness_s, seconds
        self.clock = Clock(RATE, 1, 1, BLOCK, BLOCK, np.ones((RATE, 1), np.float32) / 9)
        self.worker = Stream(BUNDLE, self.clock).worker
        self.control = SimpleNamespace(standstills=0)
        self.now_s = self.arrived_s = self.absent_s = self.wake_s = 0.0
        self.separating = False

    def work(self) -> None:
        """Do what the worker does when it is awake."""
        if self.separating:
            self.worker.turn()
        self.separating = self.clock.input.readable >= BLOCK
        if self.separating:
            self.arrived_s = min(self.now_s, max(self.arrived_s + BLOCK_S, self.absent_s))
            self.wake_s = self.now_s + HOP_S
        else:
            self.absent_s = self.now_s
            pause_s = max(self.arrived_s + REST * BLOCK_S - self.now_s, min(POLL_S, BLOCK_S / 4))
            self.wake_s = self.now_s + pause_s + SLACK_S + self.lateness_s()

    def pause(self, us: int) -> None:
        """Let the clock sleep while the worker goes on."""
        end_s = self.now_s + 1e-6 * us + SLACK_S + self.lateness_s()
        while self.wake_s <= end_s:
            self.now_s = self.wake_s
            self.work()
        self.now_s = end_s
        self.clock._flags[0] = end_s > self.seconds

    def run(self) -> int:
        """Run the demo; return how many blocks were exchanged."""
        replaced = {
            "_now": lambda *_: self.now_s,
            "pause": self.pause,
            "pointer": lambda address: address,
            "carray": lambda *_: [self.control],
            "exchange": callback_stream._TICK,
            "run": paced.run.py_func,  # type: ignore[attr-defined]
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, replacement in replaced.items():
                patch.setattr(paced, name, replacement)
            self.clock._run()
        return self.clock.stats().callbacks

    def faults(self) -> tuple[int, int, int]:
        """Return the misses and drops of the worker, and the standstills of the machine."""
        return self.clock.stats().starvations, self.worker.drops, self.control.standstills


@pytest.mark.parametrize("share", [1 / 8, 1.0])
def test_wakes_5_ms_late_cost_no_deadline(share: float) -> None:
    """Ten runs of clock and worker, in which one sleep in eight, or each, may take longer."""
    for seed in range(10):
        random = np.random.default_rng(seed)
        late = lambda r=random: (r.random() < share) * r.uniform(0, 0.005)  # noqa: E731
        machine = Machine(late, 6.0)
        assert machine.run() > 0.7 * 6.0 / BLOCK_S
        assert machine.faults() == (0, 0, 0), seed


def test_the_pace_does_not_drift() -> None:
    random = np.random.default_rng(0)
    machine = Machine(lambda: random.uniform(0, 0.0002), 10.0)
    assert machine.run() == pytest.approx(10.0 / BLOCK_S, abs=2)
    assert machine.faults() == (0, 0, 0)


def test_a_standstill_is_counted_by_itself_and_not_made_up_for() -> None:
    """Everything sleeps for half a second; what follows comes at its pace."""
    stood = 0.0

    def late() -> float:
        nonlocal stood
        stood = max(stood, machine.now_s)
        return 2.5 - machine.now_s if 2.0 < machine.now_s < 2.4 else 0.0

    machine = Machine(late, 4.0)
    assert machine.run() == pytest.approx(3.5 / BLOCK_S, abs=3)
    misses, drops, standstills = machine.faults()
    assert standstills == 1 and misses <= 1 and drops == 0


def test_wakes_that_are_too_late_are_counted() -> None:
    random = np.random.default_rng(0)
    machine = Machine(lambda: (random.random() < 1 / 8) * random.uniform(0, 0.03), 5.0)
    machine.run()
    misses, _, standstills = machine.faults()
    assert misses > 3 and standstills > 3


def test_a_real_clock_is_never_early() -> None:
    sound = np.zeros((RATE, 1), np.float32)
    started = time.perf_counter()
    with Clock(RATE, 1, 1, BLOCK, BLOCK, sound, passthrough=True) as clock:
        time.sleep(0.2)
    stats = clock.stats()
    assert 0 < stats.callbacks <= (time.perf_counter() - started) / BLOCK_S
    assert stats.missed == 0


def test_the_interpreter_does_not_hold_the_clock_up() -> None:
    """While Python computes without letting go, blocks go on."""
    sound = np.zeros((RATE, 1), np.float32)
    switch = sys.getswitchinterval()
    with Clock(RATE, 1, 1, BLOCK, BLOCK, sound, passthrough=True) as clock:
        sys.setswitchinterval(60.0)
        try:
            end = time.perf_counter() + 50.0
            while clock.stats().callbacks < 10 and time.perf_counter() < end:
                pass
            exchanged = clock.stats().callbacks
        finally:
            sys.setswitchinterval(switch)
    assert exchanged >= 10
