"""Run the callbacks and the worker's loop as real-time code, through every fault of a device.

The interpreter is the program of `realtime_sanitizer.c`. ``faults`` runs a minute of simulated
time; ``allocation`` allocates, which must be reported.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np
from numba import cfunc, types

from bench import soak
from rtsep import weights
from rtsep.devices import callback_stream
from rtsep.devices.callback import callback, listen
from rtsep.devices.fake import Away, Bad, Blocks, FakeDevice, Hold, Rate
from rtsep.realtime import worker
from rtsep.realtime.builder import Stream
from rtsep.realtime.compiled_loop import run_loop
from rtsep.runtime.pipeline import LoadedModel

SCRIPT = [
    Bad(2.0, 3000, float("nan")),
    Hold(5.0, 0.05),
    Blocks(8.0, 333),
    Hold(11.0, 1.2),
    Away(15.0, 2.0),
    Bad(20.0, 100, 1e35),
    Rate(25.0, 44_100),
    Hold(30.0, 0.3),
    Blocks(35.0, 64),
    Rate(40.0, 48_000),
    Bad(50.0, 10, float("-inf")),
    Hold(55.0, 30.0),
]
"""Every kind of fault within a minute."""

_program = ctypes.PyDLL(None)
_LOOP = ctypes.PYFUNCTYPE(ctypes.c_longlong, *[ctypes.c_longlong] * 3)


@cfunc(types.int64(types.int64, types.int64, types.int64))
def _loop(address: int, pause_us: int, block_us: int) -> int:
    return run_loop(address, pause_us, block_us)


def _address(name: str) -> int:
    return ctypes.cast(getattr(_program, name), ctypes.c_void_p).value or 0


def _set(name: str, address: int) -> None:
    ctypes.c_void_p.in_dll(_program, name).value = address


def check() -> None:
    """Let devices and workers of this process call through the sanitizer."""
    _set("native_tick", callback.address or 0)
    _set("native_listen", listen.address or 0)
    _set("native_loop", _loop.address)
    exchange = callback_stream._CALLBACK
    callback_stream._TICK = exchange(_address("checked_tick"))
    callback_stream._LISTEN = exchange(_address("checked_listen"))
    worker.run_loop = _LOOP(_address("checked_loop"))


def model() -> None:
    """Separate ten seconds with a shipped model, with a change of model after five."""
    device = FakeDevice(48_000, 1, 1, 128, 1024, _speak)
    bundle = weights.find("speech")
    live = Stream(bundle, device).worker
    device.start()
    device.run(live.turn, 5.0)
    chain = live.make_chain(LoadedModel(bundle, 1).engine(48_000, device.block))
    chain.warm_up(device.block)
    live.switch(chain)
    device.run(live.turn, 5.0)
    assert live.chain is chain


def _speak(start: int, block: np.ndarray) -> None:
    block[:] = np.random.default_rng(start).uniform(-1, 1, block.shape)


def main() -> None:
    """Run what the command line names."""
    check()
    if sys.argv[1] == "allocation":
        _set("native_loop", _address("allocate"))
        _program.checked_loop(64, 0, 0)
    else:
        told = soak.faults(SCRIPT)
        assert told | soak.expected(SCRIPT) == told, told
        assert soak.drift(hours=1 / 60)["dropouts"] == 0
        model()
    print("done")


if __name__ == "__main__":
    main()
