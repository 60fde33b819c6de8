"""What an ordinary program may ask of the system so as not to be held up."""

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
"""How long another Python thread may keep the interpreter from the worker; Python's own is 5 ms."""
PRIORITY = 20
"""Of the worker where that is allowed; JACK's clients have 50 and more."""
HINT = "no real-time scheduling is allowed here, so other programs may delay the worker" + (
    ": see `ulimit -r` and rtprio in limits.conf" if sys.platform == "linux" else ""
)
NICENESS = -11
"""Of our other threads while a stream runs, where that is allowed, as of a sound server's: one of
them may hold the interpreter's lock just when the worker needs it, and must not wait for other
programs meanwhile."""
_MCL_CURRENT = 1
_FLUSH_X86 = 0x8040
"""MXCSR: flush results to zero, take denormal operands for zero."""
_FLUSH_ARM = 1 << 24
"""FPCR: flush to zero."""
_MACHINE = platform.machine().lower()


@intrinsic
def _flush(typingctx: Any) -> Any:
    """Set the flags of the calling thread; nothing on processors that are not known here."""

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


_set_flags: Any = _flush  # as numba's own annotations do not fit how it is called


@kernel(types.void())
def flush_denormals() -> None:
    """Take denormal numbers for zero in the calling thread: they are inaudible and very slow."""
    _set_flags()


def go_first() -> bool:
    """Ask for real-time scheduling of this thread, below the sound server's; tell whether granted.

    Only for threads that sleep between their turns: they can't lock a core up.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (AttributeError, OSError):  # no such call on this system, or not allowed
        return False
    return True


def lock_memory() -> bool:
    """Keep the pages this process has now from being swapped out; tell whether that is allowed."""
    if sys.platform != "linux":
        return False
    lock: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).mlockall
    return lock(_MCL_CURRENT) == 0


def unlock_memory() -> None:
    """Undo `lock_memory`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).munlockall()


def _niceness() -> dict[int, int]:
    """Niceness of this process's threads by their numbers, where each has its own."""
    if sys.platform != "linux":
        return {}
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            found[int(thread.name)] = os.getpriority(os.PRIO_PROCESS, int(thread.name))
    return found


def _be_nice(wanted: dict[int, int]) -> None:
    """Give threads another niceness, as far as that is allowed."""
    for thread, niceness in wanted.items():
        with suppress(OSError):  # it has ended, or is not allowed to
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


@contextmanager
def undisturbed(ask: bool) -> Iterator[None]:
    """Keep collections and other Python threads from the audio path.

    Parameters
    ----------
    ask
        Whether to ask the system for more: no swapping, and no long waits for the other threads of
        this process.
    """
    interval = sys.getswitchinterval()
    gc.collect()
    gc.freeze()  # a collection over all that was imported would take a hundred milliseconds
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    locked = ask and lock_memory()
    before = _niceness() if ask else {}
    _be_nice({thread: min(niceness, NICENESS) for thread, niceness in before.items()})
    try:
        yield
    finally:
        usual = before.get(os.getpid(), 0)  # of threads begun meanwhile, too
        _be_nice({thread: before.get(thread, usual) for thread in (_niceness() if ask else {})})
        if locked:
            unlock_memory()
        sys.setswitchinterval(interval)
        gc.unfreeze()
