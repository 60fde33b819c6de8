"""What is asked of the system holds where it is meant to, and is given back."""

from __future__ import annotations

import gc
import os
import platform
import sys
import threading

import numpy as np
import pytest

from rtsep import realtime


def half_of_the_smallest() -> float:
    """A denormal number, computed in this thread."""
    return float((np.full(1, 1.2e-38, np.float32) * np.float32(0.5))[0])


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64", "aarch64", "arm64"),
    reason="no flags are known for this processor",
)
def test_denormals_are_flushed_in_the_thread_that_asks() -> None:
    found: list[float] = []

    def work() -> None:
        found.append(half_of_the_smallest())
        realtime.flush_denormals()
        found.append(half_of_the_smallest())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] > 0.0 and found[1] == 0.0
    assert half_of_the_smallest() > 0.0, "other threads are left alone"


@pytest.mark.parametrize("lock", [False, True])
def test_what_was_changed_is_given_back(lock: bool) -> None:
    interval, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    with realtime.undisturbed(lock):
        assert sys.getswitchinterval() == pytest.approx(realtime.SWITCH_INTERVAL_S)
        assert gc.get_freeze_count() > frozen
    assert sys.getswitchinterval() == interval
    assert gc.get_freeze_count() == 0


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such call here")
@pytest.mark.parametrize("ask", [False, True])
def test_a_thread_is_held_up_again_afterwards(ask: bool) -> None:
    with pytest.raises(ZeroDivisionError), realtime.not_held_up(ask):
        ordinary = os.sched_getscheduler(0) == os.SCHED_OTHER
        assert ordinary or ask
        raise ZeroDivisionError
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
