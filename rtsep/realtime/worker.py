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
from rtsep.dsp.held import Held
from rtsep.dsp.mixer import Mixer, linear
from rtsep.errors import ControlError
from rtsep.latency import StreamLatency
from rtsep.realtime import scheduling
from rtsep.realtime.chain import ProcessingChain
from rtsep.realtime.compiled_loop import (
    ASKED,
    BUSY,
    DONE,
    IN_TIME,
    LATE,
    LEFT,
    LOOP_STATE,
    MODEL,
    PRESENT,
    PROCESSED,
    RECORDED,
    STAGE,
    UNRECORDED,
    LoopState,
    hold,
    run_loop,
)
from rtsep.realtime.crossfade import NO_FADE, Crossfade
from rtsep.realtime.recorder import NO_TRACKS, Recorder
from rtsep.realtime.stem_reader import NO_TAP, Tap
from rtsep.runtime.engine import Engine, stream_latency
from rtsep.runtime.timing import Durations
from rtsep.spec import Float32

POLL_S = 0.0005
"""Longest sleep of an idle worker, a quarter block where that is less: the device's callback must
not wait for a lock, so it can't wake anybody."""
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
        engine: Engine,
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
        self._seconds = np.zeros(4)
        self._progress = np.zeros(6, np.int64)
        self._laid: tuple[tuple[object, ...], Held[LoopState]] | None = None
        self.drops, self.dropped = 0, 0
        self._turns = 0
        self._arriving: Crossfade[ProcessingChain] | None = None
        self._connect(device)
        self.chain = self.make_chain(engine)
        self.chain.mixer.gains[:] = gains
        self.chain.warm_up(device.block)
        self._replace_late()

    def _connect(self, device: Device) -> None:
        """Make what the worker needs for this device."""
        self.device = device
        most = (4 * device.headroom // device.block + 16) * device.block
        self._most = np.array([most, round(PATIENCE_S * device.sample_rate)], np.int64)
        self._progress[:] = 0
        self._mixture = np.zeros((device.block, device.input.width), np.float32)
        self._pause_s = min(POLL_S, 0.25 * device.block / device.sample_rate)
        self._stopping, self._asked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep worker", daemon=True)
        limit_db = self._options.limit_db
        device.limit(np.inf if limit_db is None else linear(limit_db))

    def make_chain(self, engine: Engine) -> ProcessingChain:
        """Make a chain for the present device, of an engine for its rate and channels."""
        device = self.device
        rate, width = device.sample_rate, device.output.width
        chain = ProcessingChain(engine, rate, width, device.block)
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

    def move(self, device: Device, engine: Engine, recorder: Recorder | None) -> None:
        """Go on with another device, and an engine and a recorder for its rate.

        Parameters
        ----------
        device
            Not started yet.
        engine
            For the model at work, or the one on its way to take its place. A step that is not the
            present one starts without state.
        recorder
            Takes the place of the present one, see `end_recording`.
        """
        started = self._thread.ident is not None
        self._halt()
        if self._arriving is not None:
            self._arrive(self._arriving)
        former, separated_s, nonfinite = self.chain, self.separated_s, self.nonfinite
        device.inherit(self.device.stats())
        self._connect(device)
        self.chain = self.make_chain(engine)
        self.chain.go_on_from(former)
        self._read_on(former)
        if engine.step is not former.engine.step:
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
        turn = self._turns
        while self.working and self._turns == turn:
            self._progress[ASKED] = 1  # again and again: the worker clears it before it looks
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
    def engine(self) -> Engine:
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
        return float(self._seconds[BUSY])

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
            "standstills": stats.standstills,
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
        pause_us = max(1, round(1e6 * self._pause_s))
        block_us = round(1e6 * self.device.block / self.device.sample_rate)
        try:
            while True:
                self._progress[ASKED] = 0  # first of all: whoever asks, asks after what is wanted
                if self._stopping.is_set():
                    return
                self._work(pause_us, block_us)
                self._turns += 1
        except BaseException as error:  # the main thread reports it
            self.error = error

    def turn(self) -> bool:
        """Separate the blocks that are there; tell whether there were any.

        The worker does nothing else. What drives a stream without a thread calls it.
        """
        self._progress[ASKED] = 0
        return self._work(0, 0)

    def _work(self, pause_us: int, block_us: int) -> bool:
        """Run the compiled loop, and do what it leaves to Python; tell whether there was anything.

        Parameters
        ----------
        pause_us, block_us
            As of `rtsep.realtime.compiled_loop.run_loop`.
        """
        state, worked = self._state(), False
        while True:
            status = run_loop(state.address, pause_us, block_us)
            if status == MODEL:
                self.chains[self._progress[STAGE] - PRESENT].engine.call()
            elif status == UNRECORDED:
                self.chain.record(self._mixture)
                self._progress[STAGE] = RECORDED
            elif status == LATE:
                self._drop()
                return True
            else:
                worked = worked or status == DONE
                if self._arriving is None or not self._arriving.complete:
                    return worked
                self._arrive(self._arriving)
                state = self._state()

    def _state(self) -> Held[LoopState]:
        """Return what the compiled loop works on now."""
        chain, device, arriving = self.chain, self.device, self._arriving
        what = chain, chain.recorder, chain.tap, arriving, device
        if self._laid is None or self._laid[0] != what:
            nobody = chain.state._replace(stems=np.zeros((0, 0, 0), np.float32))
            state = LoopState(
                *(device.input.cells, device.output.cells, self._mixture, chain.state),
                arriving=nobody if arriving is None else arriving.chain.state,
                fade=NO_FADE if arriving is None else arriving.fade,
                tapped=NO_TAP if chain.tap is None else chain.tap.tapped,
                tracks=NO_TRACKS if chain.recorder is None else chain.recorder.tracks,
                hops=chain.hops.histogram,
                progress=self._progress,
                seconds=self._seconds,
                most=self._most,
                instant=np.zeros(2, np.int64),
            )
            self._laid = what, Held(state, LOOP_STATE, hold)
        return self._laid[1]

    def _drop(self) -> None:
        """Go on after the backlog, as if it had not been."""
        device, latency = self.device, max(c.engine.latency_samples for c in self.chains)
        n = device.input.readable // device.block * device.block
        device.input.skip(n)
        device.leave_out(n, latency)
        self._progress[LEFT] = 0
        self._progress[IN_TIME] = device.input.position
        self.drops += 1
        self.dropped += n
