"""The device without a sound card: a native clock that is not blamed on the worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from rtsep.devices.paced import Clock

RATE, BLOCK = 16_000, 128


def run(seconds: float) -> Clock:
    sound = np.random.default_rng(0).uniform(-1, 1, (RATE, 1)).astype(np.float32)
    with Clock(RATE, 1, 1, BLOCK, BLOCK, sound, passthrough=True) as clock:
        time.sleep(seconds)
    return clock


def test_the_pace_does_not_drift() -> None:
    started = time.perf_counter()
    clock = run(1.0)
    stats, due = clock.stats(), (time.perf_counter() - started) * RATE / BLOCK
    assert stats.missed == 0
    if not stats.standstills:
        assert due - 8 < stats.callbacks <= due


def test_the_interpreter_does_not_hold_the_clock_up() -> None:
    """While Python computes without letting go, blocks go on."""
    sound = np.zeros((RATE, 1), np.float32)
    switch = sys.getswitchinterval()
    with Clock(RATE, 1, 1, BLOCK, BLOCK, sound, passthrough=True) as clock:
        sys.setswitchinterval(10.0)
        try:
            until = time.perf_counter() + 0.5
            while time.perf_counter() < until:
                pass
            exchanged = clock.stats().callbacks
        finally:
            sys.setswitchinterval(switch)
    assert exchanged > 40


def test_a_standstill_is_counted_by_itself_and_not_made_up_for() -> None:
    """A program that was stopped for half a second goes on at its pace."""
    code = (
        "import time, numpy as np\n"
        "from rtsep.devices.paced import Clock\n"
        "clock = Clock(16000, 1, 1, 128, 128, np.zeros((16000, 1), np.float32), passthrough=True)\n"
        "with clock:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(1.5)\n"
        "stats = clock.stats()\n"
        "print(stats.standstills, stats.missed, stats.callbacks)\n"
    )
    if not hasattr(os, "kill") or sys.platform == "win32":
        pytest.skip("programs can't be stopped here")
    import signal

    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    child.send_signal(signal.SIGCONT)
    standstills, missed, callbacks = map(int, child.communicate()[0].split())
    assert standstills >= 1 and missed == 0
    assert callbacks < 160  # 188 blocks in 1.5 s, less those of the standstill
