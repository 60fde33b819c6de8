"""Change model, recording and device of a running stream, from any thread.

One thread executes the requests in order and reopens a lost device. It prepares slow changes and
hands them over to the audio path, which never waits. A request returns a future; its result is also
reported as a message.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from rtsep import weights
from rtsep.devices.device import Device
from rtsep.errors import AudioFileError, ControlError, RtsepError
from rtsep.realtime.chain import ProcessingChain
from rtsep.realtime.recorder import Recorder, Takes
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.pipeline import LoadedModel

POLL_S = 0.1
"""Interval between checks for requests and of the stream, in seconds."""
MOST_LOAD = 0.9
"""Share of real time above which a model is rejected."""

Answer = TypeVar("Answer")


class _Request(NamedTuple, Generic[Answer]):
    """A request: its description, its function, and the future of its result."""

    what: str
    do: Callable[[], Answer]
    answer: Future[Answer]


class Control:
    """Executes requests to a running stream.

    Parameters
    ----------
    live
        The worker of the stream.
    loaded
        Its model.
    takes
        Its recordings.
    say
        Function that receives a message about each result; called in another thread.
    open_device
        Function that opens a device by its name, for `switch_device`.
    list_inputs
        Function that returns the names of devices, for `look_for_inputs`; may take seconds.
    recover
        Function that waits for a lost device until it is back or its argument returns True; it
        returns whether the stream continues. Without it, a lost device ends the stream.
    adapt
        Function that adapts the stream to the machine; called every `POLL_S` between requests.

    Attributes
    ----------
    loaded
        The current model, or the one that is being faded in.
    busy
        Description of the current request; empty if there is none.
    inputs
        Names of input devices, as far as known.
    unwritten
        Error of a recording that could not be written, if any.
    """

    def __init__(
        self,
        live: StreamWorker,
        loaded: LoadedModel,
        takes: Takes,
        say: Callable[[str], object],
        open_device: Callable[[str], Device] | None = None,
        list_inputs: Callable[[], Sequence[str]] = tuple,
        recover: Callable[[Callable[[], bool]], bool] | None = None,
        adapt: Callable[[], object] = lambda: None,
    ) -> None:
        self.live, self.loaded, self.takes = live, loaded, takes
        self.busy = ""
        self.inputs: Sequence[str] = ()
        self.unwritten: AudioFileError | None = None
        self.error: BaseException | None = None
        self._say, self._open_device, self._list_inputs = say, open_device, list_inputs
        self._recover, self._adapt = recover, adapt
        self._former: ProcessingChain | None = None
        self._requests: queue.SimpleQueue[_Request[Any]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep control", daemon=True)

    def start(self) -> None:
        """Start the thread, after the stream."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after the current request."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def working(self) -> bool:
        """Whether the stream runs or waits for a lost device."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return self._requests.qsize()

    def toggle_bypass(self) -> None:
        """Toggle between the sources and the equally delayed mixture."""
        on = not self.live.mixer.bypass
        for chain in self.live.chains:
            chain.mixer.bypass = on

    def switch_model(self, name: str) -> Future[None]:
        """Request another model: a shipped name, or a path."""
        return self._ask(f"loading {name}", lambda: self._switch_model(name))

    def switch_device(self, name: str) -> Future[None]:
        """Request another device, named as on the command line."""
        return self._ask(f"opening {name}", lambda: self._switch_device(name))

    def record(self, on: bool, folder: str | Path | None = None) -> Future[Recorder | None]:
        """Request the start or end of a recording; the result is its recorder, if any.

        Parameters
        ----------
        on
            Start or end; a running recording continues.
        folder
            Folder of this recording and the following ones; see `rtsep.realtime.recorder.Takes`.
        """
        if on:
            return self._ask("", lambda: self._begin_recording(folder))
        return self._ask("", self._end_recording)

    def look_for_inputs(self) -> Future[None]:
        """Request an update of `inputs`."""

        def look() -> None:
            self.inputs = self._list_inputs()

        return self._ask("", look)

    def _ask(self, what: str, request: Callable[[], Answer]) -> Future[Answer]:
        answer: Future[Answer] = Future()
        self._requests.put(_Request(what, request, answer))
        if not self.working:  # the thread has ended or will not check again
            self._refuse()
        return answer

    def _refuse(self) -> None:
        """Reject the waiting requests."""
        while True:
            try:
                answer = self._requests.get_nowait().answer
            except queue.Empty:
                return
            answer.set_exception(ControlError("the stream does not run"))

    def _run(self) -> None:
        try:
            while not self._closing.is_set() and self._there():
                self._retire()
                self._adapt()
                try:
                    request = self._requests.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                self._fulfil(request)
        except BaseException as error:  # reported by the main thread
            self.error = error
        finally:
            self._retire()
            self._refuse()

    def _there(self) -> bool:
        """Reopen a lost device unless requests wait; return whether the stream continues."""
        if not self.live.working:
            return False
        if self.live.running:
            return True
        if self._recover is None:
            return False
        return self._recover(lambda: self._closing.is_set() or not self._requests.empty())

    def _fulfil(self, request: _Request[Any]) -> None:
        self.busy = request.what
        try:
            request.answer.set_result(request.do())
        except BaseException as error:
            request.answer.set_exception(error)
            if not isinstance(error, RtsepError):
                raise
            self._say(str(error))
        finally:
            self.busy = ""

    def _switch_model(self, name: str) -> None:
        live = self.live
        loaded = LoadedModel(weights.find(name), live.engine.channels, self.loaded.options)
        if (load := loaded.load()) > MOST_LOAD:
            raise ControlError(f"{loaded.name} is too slow: it takes {load:.1f} of real time")
        engine = loaded.engine(live.device.sample_rate, live.device.block)
        chain = live.make_chain(engine)
        chain.warm_up(live.device.block)
        former = live.chain
        chain.go_on_from(former)  # last, so that no change of the controls is lost
        live.switch(chain)
        self._former, self.loaded = former, loaded
        while live.switching and live.running and not self._closing.is_set():
            time.sleep(POLL_S / 4)
        self._retire()
        self._say(f"the model is {loaded.name} now")

    def _retire(self) -> None:
        """Complete the recording of the former model and start one for the new model."""
        former, live = self._former, self.live
        if former is None or live.switching:
            return
        self._former = None
        recorder, former.recorder = former.recorder, None
        if recorder is not None:
            try:
                recorder.close(former.engine.flush())
            except AudioFileError as error:
                self._lost(error)
            else:
                self._begin_recording()

    def _switch_device(self, name: str) -> None:
        if self._open_device is None:
            raise ControlError("the device can't be changed here")
        live, device = self.live, self._open_device(name)
        loaded = self.loaded
        if device.input.width != loaded.channels:
            bundle = loaded.bundle.controlled(loaded.controls)
            loaded = LoadedModel(bundle, device.input.width, loaded.options)
        engine = loaded.engine(device.sample_rate, device.block)
        recording = live.recorder is not None
        self._end_recording()
        self.loaded = loaded
        live.move(device, engine, None)
        if recording:
            self._begin_recording()
        self._say(f"{name}: {device.name}, {device.sample_rate} Hz")

    def _begin_recording(self, folder: str | Path | None = None) -> Recorder:
        live = self.live
        if live.recorder is not None:
            return live.recorder
        if folder is not None:
            self.takes.move(Path(folder))
        recorder = self.takes.begin(live.engine, live.device.sample_rate)
        live.exchange_recorder(recorder)
        self._say(f"recording to {recorder.paths[0].parent}")
        return recorder

    def _end_recording(self) -> Recorder | None:
        """Complete the recording, up to the last sample with stems."""
        recorder = self.live.exchange_recorder(None)
        if recorder is None:
            return None
        try:
            recorder.close(self.live.chain.silent_tail()[:0])
        except AudioFileError as error:
            self._lost(error)
        else:
            self._say(f"recorded {recorder.paths[0].parent}")
        return recorder

    def _lost(self, error: AudioFileError) -> None:
        self.unwritten = error
        self._say(str(error))
