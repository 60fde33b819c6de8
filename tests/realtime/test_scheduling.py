"""What is asked of the system holds where it is meant to, and is given back."""

from __future__ import annotations

import gc
import mmap
import os
import platform
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rtsep.realtime import scheduling


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
        scheduling.flush_denormals()
        found.append(half_of_the_smallest())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] > 0.0 and found[1] == 0.0
    assert half_of_the_smallest() > 0.0, "other threads are left alone"


@pytest.mark.parametrize("ask", [False, True])
def test_what_was_changed_is_given_back(ask: bool) -> None:
    interval, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    with scheduling.undisturbed(ask):
        assert sys.getswitchinterval() == pytest.approx(scheduling.SWITCH_INTERVAL_S)
        assert gc.get_freeze_count() > frozen
        with scheduling.undisturbed(ask):
            pass
        assert gc.get_freeze_count() > frozen
    assert sys.getswitchinterval() == interval
    assert gc.get_freeze_count() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
def test_other_threads_do_not_wait_for_other_programs() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with scheduling.undisturbed(ask=False):
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
    done = threading.Event()
    begun: list[int] = []

    def work() -> None:
        begun.append(threading.get_native_id())
        done.wait()

    thread = threading.Thread(target=work)
    with scheduling.undisturbed(ask=True):
        during = os.getpriority(os.PRIO_PROCESS, 0)
        assert during in (before, scheduling.NICENESS)  # as far as this user may
        thread.start()
        while not begun:
            pass
        assert os.getpriority(os.PRIO_PROCESS, begun[0]) == during
    assert os.getpriority(os.PRIO_PROCESS, begun[0]) == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    done.set()
    thread.join()


def kilobytes(name: str) -> int:
    """An entry of this process's status, such as its resident (VmRSS) and locked memory (VmLck)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@pytest.mark.skipif(sys.platform != "linux", reason="locks no memory")
def test_what_is_used_is_locked_and_nothing_else_is_read() -> None:
    size, used = 64 << 20, 8 << 20
    with mmap.mmap(-1, size) as untouched, mmap.mmap(-1, used) as touched:
        touched.write(b"1" * used)
        resident = kilobytes("VmRSS")
        if not scheduling.lock_memory():
            pytest.skip("locking memory is not allowed here")
        try:
            assert kilobytes("VmRSS") < resident + size // 2048
            assert kilobytes("VmLck") >= size // 1024  # all of it, each page once it is used
            untouched.write(b"1" * size)
            assert kilobytes("VmRSS") >= resident + size // 2048
        finally:
            scheduling.unlock_memory()
    assert kilobytes("VmLck") == 0
