"""A device without a sound card: the native callback, paced by the system clock."""

from __future__ import annotations

import threading
import time

import numpy as np

from rtsep.devices.callback_stream import CallbackStream
from rtsep.spec import Float32

_GIVE_UP = 0.5
"""Delay in seconds (of a suspended machine) after which blocks are skipped, not caught up."""


class Clock(CallbackStream):
    """Call the compiled callback from a thread, one block per ``block / sample_rate`` seconds.

    The parameters are those of `CallbackStream`. Without a source the input is silence; the output
    is discarded. Deadlines are absolute, so the pace does not drift. The thread needs the GIL,
    which limits its precision.
    """

    def __init__(
        self,
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        headroom: int,
        source: Float32 | None = None,
        *,
        passthrough: bool = False,
    ) -> None:
        super().__init__(
            sample_rate,
            in_channels,
            out_channels,
            block,
            headroom,
            source,
            passthrough=passthrough,
        )
        self.name = "no device, paced by the system clock"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep clock", daemon=True)

    @property
    def active(self) -> bool:
        """Whether blocks are exchanged."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start to exchange blocks; once per object."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; may be repeated."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        """Call the callback until stopped."""
        block = np.zeros((self.block, self.input.width), np.float32)
        out = np.zeros((self.block, self.output.width), np.float32)
        start, ticks = time.perf_counter(), 0
        while True:
            ticks += 1
            # A product instead of a sum, so that rounding errors do not accumulate.
            delay = start + ticks * self.block / self.sample_rate - time.perf_counter()
            if delay < -_GIVE_UP:
                start, ticks = time.perf_counter(), 0
            if self._stopping.wait(max(delay, 0.0)):
                return
            self.tick(block, out, time.perf_counter())
