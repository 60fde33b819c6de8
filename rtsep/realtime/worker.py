"""A live stream: device, engine and recorder around one worker thread.

The device's callback and the worker meet in two timelines; the worker and the recorder in a ring.
Nothing that shows, plots or writes can hold the worker up. What is changed while the stream runs is
made ready elsewhere; the worker finds it at its next turn.

A worker that was held up works its backlog off, since the model hears everything then; what is too
late is not played. A backlog that is too long, or not worked off in time, is dropped: the model
goes on from its present state as if that time had not been, and so does the recording. The device
plays the mixture for as long (see `rtsep.devices.callback`), so everything heard keeps its latency.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rtsep.devices.device import Device
from rtsep.dsp.mixer import Mixer, linear
from rtsep.errors import ControlError
from rtsep.latency import StreamLatency
from rtsep.realtime import scheduling
from rtsep.realtime.chain import ProcessingChain
from rtsep.realtime.compiled_loop import ASKED, IN_TIME, OTHER, PROCESSED, LoopState, run_loop
from rtsep.realtime.crossfade import Crossfade
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.stem_reader import Tap
from rtsep.runtime.resampled import Processor, Resampled, stream_latency
from rtsep.runtime.timing import Durations, TimedStep
from rtsep.spec import Float32

POLL_S = 0.0005
"""Longest sleep of an idle worker, a quarter block where that is less: the device's callback must
not wait for a lock, so it can't wake anybody."""
REST = 0.95
"""Share of a block's time in which the next one is not looked for; with less, it is looked for
twice, and every wake of this thread is one more moment for the sound server's to be held up."""
IDLE_S = 0.02
"""After so long without a block the worker looks whether it is to stop."""

PATIENCE_S = 0.5
"""A backlog that is not worked off after this time is dropped, in seconds."""


@dataclass(frozen=True)
class WorkerOptions:
    """Options of a worker.

    Attributes
    ----------
    on_late
        What is heard in place of what the worker could not make in time: ``"dry"``, the mixture of
        that time, or ``"mute"``, silence.
    limit_db
        Largest magnitude played, in dB re full scale; any if None.
    realtime
        Whether to ask the system for real-time scheduling and locked memory.
    """

    on_late: Literal["dry", "mute"] = "dry"
    limit_db: float | None = None
    realtime: bool = True


class StreamWorker:
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
    options
        See `WorkerOptions`.
    tapped
        Whether each chain gets a tap, for who reads the stems while the stream runs.

    Attributes
    ----------
    chain
        The model at work.
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
        options: WorkerOptions | None = None,
        *,
        tapped: bool = False,
    ) -> None:
        self._options = options or WorkerOptions()
        self._tapped, self._unread = tapped, 0
        self.realtime = False
        self.error: BaseException | None = None
        self._manners = ExitStack()
        self._separated_s = 0.0
        self._nonfinite = 0, 0
        self._busy_s = np.zeros(1)
        self._progress = np.zeros(3, np.int64)
        self._own: tuple[tuple[object, ...], LoopState | None] = ((), None)
        self.drops, self.dropped = 0, 0
        self._turns = 0
        self._arriving: Crossfade[ProcessingChain] | None = None
        self._connect(device)
        self.chain = self.make_chain(engine, step)
        self.chain.mixer.gains[:] = gains
        self.chain.warm_up(device.block)
        self._replace_late()

    def _connect(self, device: Device) -> None:
        """Make what the worker needs for this device."""
        self.device = device
        self._most = (4 * device.headroom // device.block + 16) * device.block
        self._patience = round(PATIENCE_S * device.sample_rate)
        self._progress[:] = 0
        self._mixture = np.zeros((self._most, device.input.width), np.float32)
        self._pause_s = min(POLL_S, 0.25 * device.block / device.sample_rate)
        self._stopping, self._asked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep worker", daemon=True)
        limit_db = self._options.limit_db
        device.limit(np.inf if limit_db is None else linear(limit_db))

    def make_chain(self, engine: Processor | Resampled, step: TimedStep) -> ProcessingChain:
        """Make a chain for the present device, of an engine for its rate and channels."""
        device = self.device
        chain = ProcessingChain(engine, step, device.sample_rate, device.output.width, self._most)
        if self._tapped:
            chain.tap = Tap(len(engine.spec.sources), engine.channels, device.sample_rate)
        return chain

    def _replace_late(self) -> None:
        if self._options.on_late == "dry":
            self.device.replace_late(self.engine.latency_samples)

    def start(self) -> None:
        """Start worker and device."""
        self._manners.enter_context(scheduling.undisturbed(self._options.realtime))
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
        self,
        device: Device,
        engine: Processor | Resampled,
        recorder: Recorder | None,
        step: TimedStep | None = None,
    ) -> None:
        """Go on with another device, and an engine and a recorder for its rate.

        Parameters
        ----------
        device
            Not started yet.
        engine
            For the model at work, or the one on its way to take its place.
        recorder
            Takes the place of the present one, see `end_recording`.
        step
            What the engine calls, if that is another than before; else it keeps its state.
        """
        started = self._thread.ident is not None
        self._halt()
        if self._arriving is not None:
            self._arrive(self._arriving)
        former, separated_s, nonfinite = self.chain, self.separated_s, self.nonfinite
        device.inherit(self.device.stats())
        self._connect(device)
        self.chain = self.make_chain(engine, step or former.step)
        self.chain.go_on_from(former)
        self._read_on(former)
        if step is not None:
            self.chain.warm_up(device.block)
        self.chain.hops = former.hops
        self.chain.recorder = recorder
        self._separated_s, self._nonfinite = separated_s, nonfinite
        self._replace_late()
        if started:
            self._thread.start()
        device.start()

    def switch(self, chain: ProcessingChain) -> None:
        """Let another model take the present one's place, cross-faded; may be called any time.

        Parameters
        ----------
        chain
            From `make_chain`, warmed up. It records from when it has taken over.

        Raises
        ------
        ControlError
            The device does not keep the mixture for as long as the model is late.
        """
        device, latency = self.device, chain.engine.latency_samples
        if latency + device.headroom + device.block > device.input.capacity:
            raise ControlError(f"the mixture is not kept for a latency of {latency} samples")
        self._arriving = Crossfade(chain, device.sample_rate)
        self._progress[ASKED] = 1

    @property
    def chains(self) -> tuple[ProcessingChain, ...]:
        """The model at work, and the one on its way to take its place, if there is one."""
        arriving = self._arriving
        return (self.chain,) if arriving is None else (self.chain, arriving.chain)

    @property
    def switching(self) -> bool:
        """Whether there are two."""
        return self._arriving is not None

    def _arrive(self, arriving: Crossfade[ProcessingChain]) -> None:
        self._nonfinite = self.nonfinite
        former, self.chain, self._arriving = self.chain, arriving.chain, None
        self._read_on(former)
        self._replace_late()

    def _read_on(self, former: ProcessingChain) -> None:
        """Let who reads the stems of a former chain read those of the present one."""
        if former.tap is not None and self.chain.tap is not None:
            self._unread += former.tap.lost
            self.chain.tap.reading = former.tap.reading

    def exchange_recorder(self, recorder: Recorder | None) -> Recorder | None:
        """Record with another recorder, or none, from now on; return the former, no longer used."""
        former, self.chain.recorder = self.chain.recorder, recorder
        self._progress[ASKED] = 1
        turn = self._turns
        while self.working and self._turns == turn:
            time.sleep(POLL_S)
        return former

    def _halt(self) -> None:
        self.device.stop()
        self._stopping.set()
        self._progress[ASKED] = 1
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
        recorder = self.exchange_recorder(None)
        if recorder is not None:
            broken = self.error is not None  # then there is nothing more to get from the engine
            silent = broken or keep_state
            recorder.close(self.chain.silent_tail() if silent else self.engine.flush())

    @property
    def engine(self) -> Processor | Resampled:
        """The engine of the model at work."""
        return self.chain.engine

    @property
    def mixer(self) -> Mixer:
        """What mixes its stems."""
        return self.chain.mixer

    @property
    def hops(self) -> Durations:
        """Time of one of its hops, resampling and mixing included."""
        return self.chain.hops

    @property
    def recorder(self) -> Recorder | None:
        """Gets mixture and stems, if there is one; set before the stream starts."""
        return self.chain.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self.chain.recorder = recorder

    @property
    def processed(self) -> int:
        """Samples separated on the present device."""
        return int(self._progress[PROCESSED])

    @property
    def busy_s(self) -> float:
        """Time that took, on all devices, in seconds."""
        return float(self._busy_s[0])

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
    def unread(self) -> int:
        """Samples of stems that their reader was too late for."""
        tap = self.chain.tap
        return self._unread + (0 if tap is None else tap.lost)

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
            "unread_samples": self.unread,
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
        return self.mixer.peaks()

    def _run(self) -> None:
        scheduling.flush_denormals()
        self.realtime = self._options.realtime and scheduling.go_first()
        self._asked.set()
        pause_us, pauses = max(1, round(1e6 * self._pause_s)), round(IDLE_S / self._pause_s)
        rest_us = round(1e6 * REST * self.device.block / self.device.sample_rate)
        try:
            while True:
                self._progress[ASKED] = 0  # first of all: whoever asks, asks after what is wanted
                if self._stopping.is_set():
                    return
                state = self._compiled()
                here = state is None or run_loop(state, pause_us, rest_us) == OTHER
                if here and not self._turn():
                    self.device.input.wait(self.device.block, pause_us, pauses)
                self._turns += 1
        except BaseException as error:  # the main thread reports it
            self.error = error

    def turn(self) -> bool:
        """Separate the blocks that are there; tell whether there were any.

        The worker does nothing else. What drives a stream without a thread calls it.
        """
        self._progress[ASKED] = 0
        state = self._compiled()
        if state is not None and (status := run_loop(state, 0, 0)) != OTHER:
            return bool(status)
        return self._turn()

    def _compiled(self) -> LoopState | None:
        """Return what the compiled loop works on, if it can do it."""
        chain, device = self.chain, self.device
        what = chain, chain.recorder, self._arriving, device
        if self._own[0] != what:
            state = None
            if self._arriving is None:
                most = np.array([self._most, self._patience], np.int64)
                state = chain.loop_state(
                    *(device.block, device.input.cells, device.output.cells),
                    *(self._progress, self._busy_s, most),
                )
            self._own = what, state
        return self._own[1]

    def _turn(self) -> bool:
        """Do the same in Python: for models that ONNX Runtime runs, and what is unusual."""
        device = self.device
        backlog = device.input.readable // device.block * device.block
        if not backlog:
            return False
        if device.output.readable >= 0:
            self._progress[IN_TIME] = device.input.position
        late = device.input.written - int(self._progress[IN_TIME])
        mixture = self._mixture[:backlog]
        if backlog > self._most or late > self._patience:
            device.input.skip(backlog)
            return self._drop(backlog)
        chain, arriving = self.chain, self._arriving
        start, calls = time.perf_counter(), chain.step.times.count
        if not device.input.read(mixture):  # held up for seconds in between: it was overwritten
            return self._drop(backlog)
        heard = chain.process(mixture)
        if arriving is not None:
            arriving.process(mixture, heard)
        device.output.append(heard)
        elapsed = time.perf_counter() - start
        calls = chain.step.times.count - calls
        if calls and arriving is None:
            chain.hops.add(elapsed / calls)
        self._busy_s[0] += elapsed
        chain.record(mixture)
        self._progress[PROCESSED] += backlog
        if arriving is not None and arriving.complete:
            self._arrive(arriving)
        return True

    def _drop(self, n: int) -> bool:
        """Go on ``n`` samples later."""
        latency, arriving = self.engine.latency_samples, self._arriving
        if arriving is not None:
            latency = max(latency, arriving.chain.engine.latency_samples)
        self.device.leave_out(n, latency)
        self._progress[IN_TIME] = self.device.input.position
        self.drops += 1
        self.dropped += n
        return True
