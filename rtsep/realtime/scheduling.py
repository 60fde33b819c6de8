"""Scheduling: real-time priority, locked memory and denormals, without special rights."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rtsep.dsp.kernel import kernel

SWITCH_INTERVAL_S = 0.0001
"""Interval of switches between Python threads, in seconds; Python's default is 5 ms."""
PRIORITY = 20
"""Real-time priority of the worker; clients of JACK have 50 and more."""
HINT = "no real-time scheduling is allowed here, so other programs may delay the worker" + (
    ": see `ulimit -r` and rtprio in limits.conf" if sys.platform == "linux" else ""
)
NICENESS = -11
"""Niceness of the other threads while a stream runs, like that of sound servers: a thread that
holds the interpreter lock when the worker needs it must not wait for other programs."""
_MCL_CURRENT, _MCL_ONFAULT = 1, 4
"""Of mlockall: memory there is now; and each page of it only once it is in use."""
_FLUSH_X86 = 0x8040
"""MXCSR: flush denormal results and operands to zero."""
_FLUSH_ARM = 1 << 24
"""FPCR: flush to zero."""
_MACHINE = platform.machine().lower()


@intrinsic
def _flush(typingctx: Any) -> Any:
    """Set the flags of the calling thread, on x86 and ARM."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        module, word, long = builder.module, ir.IntType(32), ir.IntType(64)

        def call(name: str, result: Any, *arguments: Any) -> Any:
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            return builder.call(module.declare_intrinsic(name, fnty=kind), arguments)

        if _MACHINE in ("x86_64", "amd64"):
            cell = builder.alloca(word)
            address = builder.bitcast(cell, ir.IntType(8).as_pointer())
            call("llvm.x86.sse.stmxcsr", ir.VoidType(), address)
            builder.store(builder.or_(builder.load(cell), word(_FLUSH_X86)), cell)
            call("llvm.x86.sse.ldmxcsr", ir.VoidType(), address)
        elif _MACHINE in ("aarch64", "arm64"):
            flags = call("llvm.aarch64.get.fpcr", long)
            call("llvm.aarch64.set.fpcr", ir.VoidType(), builder.or_(flags, long(_FLUSH_ARM)))
        return context.get_dummy_value()

    return types.void(), codegen


_set_flags: Any = _flush  # typed as Any: numba's annotations do not fit this call


@kernel(types.void())
def flush_denormals() -> None:
    """Treat denormal numbers as zero in the calling thread, because they are very slow."""
    _set_flags()


def go_first() -> bool:
    """Request real-time scheduling of this thread, below sound servers; return whether granted.

    Only for threads that sleep regularly; others would block a core.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (AttributeError, OSError):  # not available or not allowed
        return False
    return True


def lock_memory() -> bool:
    """Keep the memory that this process uses from being paged out; return whether that is allowed.

    Mapped memory that nothing has touched, such as most of PyTorch's code, is not read for that.
    The audio path has been through all of its own before a stream starts.
    """
    if sys.platform != "linux":
        return False
    lock: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).mlockall
    return lock(_MCL_CURRENT | _MCL_ONFAULT) == 0


def unlock_memory() -> None:
    """Undo `lock_memory`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).munlockall()


def _niceness() -> dict[int, int]:
    """Return the niceness of this process's threads by number, where threads have their own."""
    if sys.platform != "linux":
        return {}
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended
            found[int(thread.name)] = os.getpriority(os.PRIO_PROCESS, int(thread.name))
    return found


def _be_nice(wanted: dict[int, int]) -> None:
    """Set the niceness of threads, as far as allowed."""
    for thread, niceness in wanted.items():
        with suppress(OSError):  # it has ended, or this is not allowed
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


@contextmanager
def undisturbed(ask: bool) -> Iterator[None]:
    """Protect the audio path from garbage collections and other Python threads.

    Within another use of it, it is entered and left quickly.

    Parameters
    ----------
    ask
        Whether to also lock memory and lower the niceness of this process's threads.
    """
    interval, outermost = sys.getswitchinterval(), not gc.get_freeze_count()
    gc.collect()
    gc.freeze()  # collecting all imported objects would take 100 ms
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    locked = ask and lock_memory()
    before = _niceness() if ask else {}
    _be_nice({thread: min(niceness, NICENESS) for thread, niceness in before.items()})
    try:
        yield
    finally:
        usual = before.get(os.getpid(), 0)  # also for threads started meanwhile
        _be_nice({thread: before.get(thread, usual) for thread in (_niceness() if ask else {})})
        if locked:
            unlock_memory()
        sys.setswitchinterval(interval)
        if outermost:
            gc.unfreeze()
