"""A live stream: device, engine and recorder around one worker thread.

The device's callback and the worker meet in two timelines; the worker and the recorder in a ring.
Nothing that shows, plots or writes can hold the worker up.

A worker that was held up works its backlog off, since the model hears everything then; what is too
late is not played. A backlog that is too long, or not worked off in time, is dropped: the model
goes on from its present state as if that time had not been, and so does the recording. The device
plays the mixture for as long (see `rtsep.io.callback`), so everything heard keeps its latency.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
from numba import njit, types

from rtsep import realtime
from rtsep.io.device import Device
from rtsep.latency import StreamLatency
from rtsep.measure import Durations, TimedStep
from rtsep.recorder import Recorder
from rtsep.resample import Processor, Resampled, stream_latency
from rtsep.ring import Float32

POLL_S = 0.002
"""Longest sleep of an idle worker, half a block where that is less: a native callback can't wake a
Python thread without the GIL."""

PATIENCE_S = 0.5
"""A backlog that is not worked off after this time is dropped, in seconds."""

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
    on_late
        What is heard in place of what the worker could not make in time: ``"dry"``, the mixture of
        that time, or ``"mute"``, silence.
    ask_realtime
        Whether to ask the system for real-time scheduling and locked memory.
    limit_db
        Largest magnitude played, in dB re full scale; any if None.

    Attributes
    ----------
    hops
        Time of one hop from input to output, resampling and mixing included.
    processed, busy_s
        Samples separated on the present device, and the time all took, in seconds.
    drops, dropped
        Backlogs dropped, and their samples.
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
        *,
        on_late: Literal["dry", "mute"] = "dry",
        ask_realtime: bool = True,
        limit_db: float | None = None,
    ) -> None:
        self.recorder = recorder
        self._step = step
        self._on_late = on_late
        self._ask_realtime = ask_realtime
        self._limit = np.inf if limit_db is None else 10 ** (limit_db / 20)
        self.realtime = False
        self.error: BaseException | None = None
        self._gains = np.ascontiguousarray(gains, np.float32)
        self._peaks = np.zeros(1 + len(engine.spec.sources), np.float32)
        self._manners = ExitStack()
        self._separated_s = 0.0
        self._nonfinite = 0, 0
        self._connect(device, engine)
        self._warm_up()

    def _connect(self, device: Device, engine: Processor | Resampled) -> None:
        """Make what the worker needs for this device."""
        self.device, self.engine = device, engine
        sources, channels = len(engine.spec.sources), engine.channels
        self._most = (4 * device.headroom // device.block + 16) * device.block
        self._patience = round(PATIENCE_S * device.sample_rate)
        self._in_time = 0
        self._mixture = np.zeros((self._most, channels), np.float32)
        self._stems = np.zeros((self._most, sources, channels), np.float32)
        self._out = np.zeros((self._most, device.output.width), np.float32)
        self._no_tail = np.zeros((engine.latency_samples, sources, channels), np.float32)
        self._pause = min(POLL_S, 0.5 * device.block / device.sample_rate)
        self._stopping, self._asked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep worker", daemon=True)
        device.limit(self._limit)
        if self._on_late == "dry":
            device.replace_late(engine.latency_samples)

    def _warm_up(self) -> None:
        """Run every path once before the stream opens, then start from nothing."""
        for _ in range(20):
            self._work(self._mixture[: self.device.block])
        self.engine.reset()
        self._step.times = Durations()
        self.hops = Durations()
        self.processed, self.busy_s = 0, 0.0
        self.drops, self.dropped = 0, 0

    def start(self) -> None:
        """Start worker and device."""
        self._manners.enter_context(realtime.undisturbed(self._ask_realtime))
        self._thread.start()
        self._asked.wait()
        self.device.start()

    def stop(self) -> None:
        """Stop the device, then the worker; complete the recording.

        Raises
        ------
        AudioFileError
            The recording could not be written.
        """
        self._halt()
        self._manners.close()
        self.end_recording()

    def move(
        self, device: Device, engine: Processor | Resampled, recorder: Recorder | None
    ) -> None:
        """Go on with another device, and an engine and a recorder for its rate.

        Parameters
        ----------
        device
            Not started yet.
        engine
            Calls the same step, which keeps its state.
        recorder
            Takes the place of the present one, see `end_recording`.
        """
        started = self._thread.ident is not None
        self._halt()
        self._separated_s = self.separated_s
        self._nonfinite = self.nonfinite
        self.processed = 0
        device.inherit(self.device.stats())
        self._connect(device, engine)
        self.recorder = recorder
        if started:
            self._thread.start()
        device.start()

    def _halt(self) -> None:
        self.device.stop()
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def end_recording(self, *, keep_state: bool = False) -> None:
        """Complete the recording, if there is one; the stream must not run.

        Parameters
        ----------
        keep_state
            Leave the model as it is, at the price of the stems' last samples: silence is recorded
            for those that are still inside.

        Raises
        ------
        AudioFileError
            The recording could not be written.
        """
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            broken = self.error is not None  # then there is nothing more to get from the engine
            recorder.close(self._no_tail if broken or keep_state else self.engine.flush())

    @property
    def separated_s(self) -> float:
        """Seconds separated, on all devices."""
        return self._separated_s + self.processed / self.device.sample_rate

    @property
    def nonfinite(self) -> tuple[int, int]:
        """Input samples and frames of the model replaced because they were no sound."""
        heard, made = self._nonfinite
        return heard + self.engine.nonfinite_in, made + self.engine.nonfinite_out

    @property
    def latency(self) -> StreamLatency:
        """From microphone to loudspeaker, as it is meant to be."""
        device = self.device
        return stream_latency(self.engine, device.sample_rate, device.latency_terms())

    @property
    def real_time_factor(self) -> float:
        """Share of real time the worker was busy."""
        return self.busy_s / max(self.separated_s, 1e-9)

    def figures(self) -> dict[str, Any]:
        """Everything measured and counted so far, ready for JSON."""
        stats = self.device.stats()
        return {
            "separated_seconds": self.separated_s,
            "real_time_factor": round(self.real_time_factor, 5),
            "hop_time_us": self.hops.summary_us(),
            "realtime_priority": self.realtime,
            "xruns": stats.xruns,
            "callbacks": stats.callbacks,
            "missed_callbacks": stats.missed,
            "deadline_misses": stats.starvations,
            "starved_samples": stats.starved_samples,
            "longest_starvation": stats.longest_starvation,
            "input_overruns": self.drops,
            "dropped_samples": self.dropped,
            "nonfinite_in": stats.nonfinite + self.nonfinite[0],
            "nonfinite_out": self.nonfinite[1],
        }

    @property
    def working(self) -> bool:
        """Whether the worker is there, and able to go on with a device that comes back."""
        return self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether worker and device both are."""
        return self.working and self.device.active

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
        realtime.flush_denormals()
        self.realtime = self._ask_realtime and realtime.go_first()
        self._asked.set()
        try:
            while not self._stopping.is_set():
                if not self.turn():
                    time.sleep(self._pause)
        except BaseException as error:  # the main thread reports it
            self.error = error

    def turn(self) -> bool:
        """Separate the blocks that are there; tell whether there were any.

        The worker does nothing else. What drives a stream without a thread calls it.
        """
        device = self.device
        backlog = device.input.readable // device.block * device.block
        if not backlog:
            return False
        if device.output.readable >= 0:
            self._in_time = device.input.position
        late = device.input.written - self._in_time
        mixture = self._mixture[:backlog]
        if backlog > self._most or late > self._patience:
            device.input.skip(backlog)
            return self._drop(backlog)
        start, calls = time.perf_counter(), self._step.times.count
        if not device.input.read(mixture):  # held up for seconds in between: it was overwritten
            return self._drop(backlog)
        device.output.append(self._work(mixture))
        elapsed = time.perf_counter() - start
        calls = self._step.times.count - calls
        if calls:
            self.hops.add(elapsed / calls)
        self.busy_s += elapsed
        if self.recorder is not None:
            self.recorder.put(mixture, self._stems[:backlog])
        self.processed += backlog
        return True

    def _drop(self, n: int) -> bool:
        """Go on ``n`` samples later."""
        self.device.leave_out(n, self.engine.latency_samples)
        self._in_time = self.device.input.position
        self.drops += 1
        self.dropped += n
        return True
