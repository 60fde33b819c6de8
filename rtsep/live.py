"""A live stream: device, engine and recorder around one worker thread.

The device's callback and the worker meet in two rings; the worker and the recorder in a third.
Nothing that shows, plots or writes can hold the worker up.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

import numpy as np
from numba import njit, types

from rtsep.io.device import Device
from rtsep.measure import Durations, TimedStep
from rtsep.recorder import Recorder
from rtsep.resample import Processor, Resampled
from rtsep.ring import Float32

SWITCH_INTERVAL_S = 0.0001
"""How long another Python thread may keep the interpreter from the worker; Python's own is 5 ms."""
REALTIME_PRIORITY = 20
"""Of the worker where that is allowed; JACK's clients have 50 and more."""
POLL_S = 0.002
"""Longest sleep of an idle worker, half a block where that is less: a native callback can't wake a
Python thread without the GIL."""

_block = types.Array(types.float32, 2, "C")
_stems = types.Array(types.float32, 3, "C")


@njit(types.void(_block, _stems, types.float32[::1], _block, types.float32[::1]), cache=True)
def mix_down(
    mixture: Float32, stems: Float32, gains: Float32, out: Float32, peaks: Float32
) -> None:
    """Mix stems by ``gains`` into what is heard, and keep the largest absolute values.

    Parameters
    ----------
    mixture, stems
        (n, channels) and (n, sources, channels).
    gains
        (sources,), linear.
    out
        (n, out_channels); a channel that the stems lack repeats their last one.
    peaks
        (1 + sources,): of the mixture and each source; raised, never lowered.
    """
    sources, channels = stems.shape[1], stems.shape[2]
    for n in range(stems.shape[0]):
        for channel in range(channels):
            peaks[0] = max(peaks[0], abs(mixture[n, channel]))
            for source in range(sources):
                peaks[1 + source] = max(peaks[1 + source], abs(stems[n, source, channel]))
        for channel in range(out.shape[1]):
            total = np.float32(0.0)
            for source in range(sources):
                total += gains[source] * stems[n, source, min(channel, channels - 1)]
            out[n, channel] = total


class Live:
    """Separate what a device brings until stopped.

    Parameters
    ----------
    device
        Not started yet.
    engine
        Works at the device's rate, on its input channels.
    step
        What the engine calls.
    gains
        (sources,) linear gains of what is heard.
    recorder
        Gets mixture and stems, if given.

    Attributes
    ----------
    hops
        Time of one hop from input ring to output ring, resampling and mixing included.
    processed, busy_s
        Samples separated, and the time that took, in seconds.
    realtime
        Whether the system lets the worker go before ordinary programs.
    error
        What ended the worker, if anything did.
    """

    def __init__(
        self,
        device: Device,
        engine: Processor | Resampled,
        step: TimedStep,
        gains: Float32,
        recorder: Recorder | None = None,
    ) -> None:
        self.device = device
        self.engine = engine
        self.recorder = recorder
        self._step = step
        self.realtime = False
        self.error: BaseException | None = None
        self._gains = np.ascontiguousarray(gains, np.float32)
        sources, channels = len(engine.spec.sources), engine.channels
        most = device.input.capacity // device.block * device.block
        self._mixture = np.zeros((most, channels), np.float32)
        self._stems = np.zeros((most, sources, channels), np.float32)
        self._out = np.zeros((most, device.output.width), np.float32)
        self._peaks = np.zeros(1 + sources, np.float32)
        self._no_tail = np.zeros((engine.latency_samples, sources, channels), np.float32)
        self._pause = min(POLL_S, 0.5 * device.block / device.sample_rate)
        self._stopping = threading.Event()
        self._interval = sys.getswitchinterval()
        self._thread = threading.Thread(target=self._run, name="rtsep worker", daemon=True)
        self._warm_up()

    def _warm_up(self) -> None:
        """Run every path once before the stream opens, then start from nothing."""
        for _ in range(20):
            self._work(self._mixture[: self.device.block])
        self.engine.reset()
        self._step.times = Durations()
        self.hops = Durations()
        self.processed, self.busy_s = 0, 0.0

    def start(self) -> None:
        """Start worker and device."""
        gc.collect()
        gc.freeze()  # a collection over all that was imported would take a hundred milliseconds
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()
        self.device.start()

    def stop(self) -> None:
        """Stop the device, then the worker; complete the recording.

        Raises
        ------
        AudioFileError
            The recording could not be written.
        """
        self.device.stop()
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        sys.setswitchinterval(self._interval)
        gc.unfreeze()
        if self.recorder is not None:
            broken = self.error is not None  # then there is nothing more to get from the engine
            self.recorder.close(self._no_tail if broken else self.engine.flush())

    @property
    def running(self) -> bool:
        """Whether worker and device both are."""
        return self._thread.is_alive() and self.device.active

    def peaks(self) -> Float32:
        """(1 + sources,) largest absolute value of mixture and stems since the last call."""
        found = self._peaks.copy()
        self._peaks[:] = 0.0
        return found

    def _work(self, mixture: Float32) -> Float32:
        n = len(mixture)
        stems = self.engine.process(mixture, self._stems[:n])
        out = self._out[:n]
        mix_down(mixture, stems, self._gains, out, self._peaks)
        return out

    def _run(self) -> None:
        self.realtime = _ask_for_realtime()
        try:
            while not self._stopping.is_set():
                if not self._turn():
                    time.sleep(self._pause)
        except BaseException as error:  # the main thread reports it
            self.error = error

    def _turn(self) -> bool:
        """Separate the blocks that are there; tell whether there were any."""
        device = self.device
        n = device.input.readable // device.block * device.block
        if not n:
            return False
        start, calls = time.perf_counter(), self._step.times.count
        mixture = self._mixture[:n]
        device.input.read(mixture)
        out = self._work(mixture)
        device.output.write(out)
        elapsed = time.perf_counter() - start
        calls = self._step.times.count - calls
        if calls:
            self.hops.add(elapsed / calls)
        self.busy_s += elapsed
        if self.recorder is not None:
            self.recorder.put(mixture, self._stems[:n])
        self.processed += n
        return True


def _ask_for_realtime() -> bool:
    """Ask for real-time scheduling of this thread, below the sound server's; tell whether granted.

    The worker sleeps between blocks, so it can't lock a core up.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
    except (AttributeError, OSError):  # no such call on this system, or not allowed
        return False
    return True
