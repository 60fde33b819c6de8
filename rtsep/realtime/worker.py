"""The worker of a live stream: a thread between the device and the model.

Device and worker exchange samples through two timelines, worker and recorder through a ring.
Views, plots and files never block the worker. Changes of a running stream are prepared in other
threads; the worker applies them between two blocks.

After a delay the worker processes its backlog, so that the model receives all samples; output that
is too late is not played. A backlog that is too long, or not processed within `PATIENCE_S`, is
dropped: model and recording continue as if that time had not existed. Meanwhile the device plays
the delayed mixture (see `rtsep.devices.callback`), so the latency of the output does not change.
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
from rtsep.realtime import power, scheduling
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
"""Longest sleep of an idle worker in seconds, at most a quarter block. The worker polls, because
the device's callback must not take a lock to wake it."""
PATIENCE_S = 0.5
"""A backlog that is not processed after this time is dropped, in seconds."""


@dataclass(frozen=True)
class WorkerOptions:
    """Options of a worker.

    Attributes
    ----------
    on_late
        Replacement for output that the worker did not complete in time: ``"dry"``, the mixture of
        that time, or ``"mute"``, silence.
    limit_db
        Largest magnitude of the output, in dB re full scale; None for no limit.
    realtime
        Whether to request real-time scheduling, locked memory and no deep sleep from the system.
    """

    on_late: Literal["dry", "mute"] = "dry"
    limit_db: float | None = None
    realtime: bool = True


class StreamWorker:
    """Separates the input of a device in a thread until stopped.

    Parameters
    ----------
    device
        A device that is not started.
    engine
        An engine for the device's rate and input channels.
    gains
        (sources,) linear gains of the output.
    options
        See `WorkerOptions`.
    tapped
        Whether stems can be read while the stream runs, see `rtsep.realtime.stem_reader.Tap`.

    Attributes
    ----------
    chain
        The chain of the current model.
    answers
        Times from the arrival of blocks until their output is written, on all devices.
    drops, dropped
        Number of dropped backlogs, and of their samples.
    realtime
        Whether the worker has real-time priority.
    error
        Exception that ended the worker, or None.
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
        self.answers = Durations()
        self._turns = 0
        self._arriving: Crossfade[ProcessingChain] | None = None
        self._connect(device)
        self.chain = self.make_chain(engine)
        self.chain.mixer.gains[:] = gains
        self.chain.warm_up(device.block)
        self._replace_late()

    def _connect(self, device: Device) -> None:
        """Allocate the buffers and the thread for a device."""
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
        """Make a chain for the current device from an engine for its rate and channels."""
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
        self._manners.enter_context(power.awake(self._options.realtime))
        self._thread.start()
        self._asked.wait()
        self.device.start()

    def stop(self) -> None:
        """Stop the device, then the worker, and complete the recording.

        Raises
        ------
        AudioFileError
            The recording could not be written.
        """
        self._halt()
        self._manners.close()
        self.end_recording()

    def move(self, device: Device, engine: Engine, recorder: Recorder | None) -> None:
        """Continue with another device, and an engine and a recorder for its rate.

        Parameters
        ----------
        device
            A device that is not started.
        engine
            An engine of the current model, or of the one that is being faded in. A new step starts
            from the initial state.
        recorder
            Replaces the current recorder, see `end_recording`.
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
        """Cross-fade to another model; may be called at any time.

        Parameters
        ----------
        chain
            A chain from `make_chain`, warmed up. It records after the cross-fade.

        Raises
        ------
        ControlError
            The latency of the model exceeds the mixture that the device keeps.
        """
        device, latency = self.device, chain.engine.latency_samples
        if latency + device.headroom + device.block > device.input.capacity:
            raise ControlError(f"the mixture is not kept for a latency of {latency} samples")
        self._arriving = Crossfade(chain, device.sample_rate)
        self._progress[ASKED] = 1

    @property
    def chains(self) -> tuple[ProcessingChain, ...]:
        """The current chain, and the one that is being faded in, if there is one."""
        arriving = self._arriving
        return (self.chain,) if arriving is None else (self.chain, arriving.chain)

    @property
    def switching(self) -> bool:
        """Whether another chain is being faded in."""
        return self._arriving is not None

    def _arrive(self, arriving: Crossfade[ProcessingChain]) -> None:
        self._nonfinite = self.nonfinite
        former, self.chain, self._arriving = self.chain, arriving.chain, None
        self._read_on(former)
        self._replace_late()

    def _read_on(self, former: ProcessingChain) -> None:
        """Connect the reader of the former chain's stems to the current chain."""
        if former.tap is not None and self.chain.tap is not None:
            self._unread += former.tap.lost
            self.chain.tap.reading = former.tap.reading

    def exchange_recorder(self, recorder: Recorder | None) -> Recorder | None:
        """Replace the recorder, which may be None; return the former one, no longer in use."""
        former, self.chain.recorder = self.chain.recorder, recorder
        turn = self._turns
        while self.working and self._turns == turn:
            self._progress[ASKED] = 1  # repeatedly, because the worker clears it before it checks
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
            Do not flush the model, to keep its state; silence is recorded in place of the stems'
            last samples, which are still inside the model.

        Raises
        ------
        AudioFileError
            The recording could not be written.
        """
        recorder = self.exchange_recorder(None)
        if recorder is not None:
            broken = self.error is not None
            silent = broken or keep_state
            recorder.close(self.chain.silent_tail() if silent else self.engine.flush())

    @property
    def engine(self) -> Engine:
        """The engine of the current model."""
        return self.chain.engine

    @property
    def mixer(self) -> Mixer:
        """The mixer of the current model's stems."""
        return self.chain.mixer

    @property
    def hops(self) -> Durations:
        """Durations of the current model's hops, resampling and mixing included."""
        return self.chain.hops

    @property
    def recorder(self) -> Recorder | None:
        """Recorder of mixture and stems, or None; set it before the stream starts."""
        return self.chain.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self.chain.recorder = recorder

    @property
    def processed(self) -> int:
        """Samples separated on the current device."""
        return int(self._progress[PROCESSED])

    @property
    def busy_s(self) -> float:
        """Time spent on separation, on all devices, in seconds."""
        return float(self._seconds[BUSY])

    @property
    def separated_s(self) -> float:
        """Seconds of sound separated, on all devices."""
        return self._separated_s + self.processed / self.device.sample_rate

    @property
    def nonfinite(self) -> tuple[int, int]:
        """Numbers of input samples and of output frames replaced because they were not finite."""
        heard, made = self._nonfinite
        return heard + self.engine.nonfinite_in, made + self.engine.nonfinite_out

    @property
    def unread(self) -> int:
        """Samples of stems lost because their reader was late."""
        tap = self.chain.tap
        return self._unread + (0 if tap is None else tap.lost)

    @property
    def latency(self) -> StreamLatency:
        """Nominal latency from microphone to loudspeaker, by its terms."""
        device = self.device
        return stream_latency(self.engine, device.sample_rate, device.latency_terms())

    @property
    def real_time_factor(self) -> float:
        """Share of real time the worker was busy."""
        return self.busy_s / max(self.separated_s, 1e-9)

    def figures(self) -> dict[str, Any]:
        """Return all measurements and counters so far, for JSON."""
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
        """Whether the thread runs, so that the stream can continue after the loss of a device."""
        return self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether worker and device run."""
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
                self._progress[ASKED] = 0  # before reading requests, so that none is lost
                if self._stopping.is_set():
                    return
                self._work(pause_us, block_us)
                self._turns += 1
        except BaseException as error:  # the main thread reports it
            self.error = error

    def turn(self) -> bool:
        """Separate the available blocks; return whether there were any.

        For streams that are driven without the worker's thread.
        """
        self._progress[ASKED] = 0
        return self._work(0, 0)

    def _work(self, pause_us: int, block_us: int) -> bool:
        """Run the compiled loop and execute its requests; return whether blocks were separated.

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
        """Return the current state of the compiled loop."""
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
                answers=self.answers.histogram,
                progress=self._progress,
                seconds=self._seconds,
                most=self._most,
                instant=np.zeros(2, np.int64),
            )
            self._laid = what, Held(state, LOOP_STATE, hold)
        return self._laid[1]

    def _drop(self) -> None:
        """Drop the backlog: continue as if that time had not existed."""
        device, latency = self.device, max(c.engine.latency_samples for c in self.chains)
        n = device.input.readable // device.block * device.block
        device.input.skip(n)
        device.leave_out(n, latency)
        self._progress[LEFT] = 0
        self._progress[IN_TIME] = device.input.position
        self.drops += 1
        self.dropped += n
