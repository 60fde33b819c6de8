"""A running stream changed by any thread: its model, its recording, its device.

What takes time is made ready and handed over by one thread, one request after the other; the same
thread brings a lost device back. The audio path takes over what is ready, and never waits. Who asks
gets a future, and need not look at it: what has been done, or why not, is also said.
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
"""Between two looks for a request, or at the stream, in seconds."""
MOST_LOAD = 0.9
"""Share of real time above which a model is refused."""

Answer = TypeVar("Answer")


class _Request(NamedTuple, Generic[Answer]):
    """What is to be done, in words and in deeds, and who waits for the answer."""

    what: str
    do: Callable[[], Answer]
    answer: Future[Answer]


class Control:
    """Fulfils what is asked of a running stream.

    Parameters
    ----------
    live
        The stream.
    loaded
        Its model.
    takes
        Makes its recorders.
    say
        Is told in one sentence what has been done, or why not; from another thread.
    open_device
        Opens what a name says, as on the command line, for `switch_device`.
    list_inputs
        Names of the devices there are, for `look_for_inputs`; may take seconds.
    recover
        Waits for a lost device until it is back or the function given says that it is enough;
        tells whether to go on. Without, a lost device is the end.

    Attributes
    ----------
    loaded
        The model at work, or on its way to take over.
    busy
        What is being done now; empty if nothing.
    inputs
        Names of input devices, as far as known.
    unwritten
        A recording that could not be written, if there was one.
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
    ) -> None:
        self.live, self.loaded, self.takes = live, loaded, takes
        self.busy = ""
        self.inputs: Sequence[str] = ()
        self.unwritten: AudioFileError | None = None
        self.error: BaseException | None = None
        self._say, self._open_device, self._list_inputs = say, open_device, list_inputs
        self._recover = recover
        self._former: ProcessingChain | None = None
        self._requests: queue.SimpleQueue[_Request[Any]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep control", daemon=True)

    def start(self) -> None:
        """Begin, after the stream has."""
        self._thread.start()

    def close(self) -> None:
        """Leave the stream to the caller, after what is being done now."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def working(self) -> bool:
        """Whether the stream runs, or may still come back."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Requests that wait for the one before."""
        return self._requests.qsize()

    def toggle_bypass(self) -> None:
        """Hear the mixture in place of the sources, as late as they are, or no longer."""
        on = not self.live.mixer.bypass
        for chain in self.live.chains:
            chain.mixer.bypass = on

    def switch_model(self, name: str) -> Future[None]:
        """Ask for a shipped model, or a bundle's path."""
        return self._ask(f"loading {name}", lambda: self._switch_model(name))

    def switch_device(self, name: str) -> Future[None]:
        """Ask for another device, named as on the command line."""
        return self._ask(f"opening {name}", lambda: self._switch_device(name))

    def record(self, on: bool, folder: str | Path | None = None) -> Future[Recorder | None]:
        """Ask for a recording to begin or end; the answer is its recorder, if there is one.

        Parameters
        ----------
        on
            Whether it is to begin; one that has begun goes on.
        folder
            Where it begins, and those after it go on; else see `rtsep.realtime.recorder.Takes`.
        """
        if on:
            return self._ask("", lambda: self._begin_recording(folder))
        return self._ask("", self._end_recording)

    def look_for_inputs(self) -> Future[None]:
        """Ask which devices there are, see `inputs`."""

        def look() -> None:
            self.inputs = self._list_inputs()

        return self._ask("", look)

    def _ask(self, what: str, request: Callable[[], Answer]) -> Future[Answer]:
        answer: Future[Answer] = Future()
        self._requests.put(_Request(what, request, answer))
        if not self.working:  # nobody will look, or has looked for the last time
            self._refuse()
        return answer

    def _refuse(self) -> None:
        """Refuse what still waits."""
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
                try:
                    request = self._requests.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                self._fulfil(request)
        except BaseException as error:  # the main thread reports it
            self.error = error
        finally:
            self._retire()
            self._refuse()

    def _there(self) -> bool:
        """Tell whether the stream goes on; bring its device back first, unless asked for more."""
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
        loaded = LoadedModel(weights.find(name), live.engine.channels)
        if (load := loaded.load()) > MOST_LOAD:
            raise ControlError(f"{loaded.name} is too slow here: {load:.1f} of the time there is")
        engine = loaded.engine(live.device.sample_rate, live.device.block)
        chain = live.make_chain(engine, loaded.step)
        chain.warm_up(live.device.block)
        former = live.chain
        chain.go_on_from(former)  # last, so that no change of a control is lost meanwhile
        live.switch(chain)
        self._former, self.loaded = former, loaded
        while live.switching and live.running and not self._closing.is_set():
            time.sleep(POLL_S / 4)
        self._retire()
        self._say(f"the model is {loaded.name} now")

    def _retire(self) -> None:
        """Complete the recording of a model that is no longer at work, and begin the next."""
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
        live, block = self.live, self.live.device.block
        device = self._open_device(name)
        loaded = self.loaded
        if device.input.width != loaded.channels:
            loaded = LoadedModel(loaded.bundle, device.input.width)
        engine = loaded.engine(device.sample_rate, block)
        recording = live.recorder is not None
        self._end_recording()
        step = None if loaded is self.loaded else loaded.step
        self.loaded = loaded
        live.move(device, engine, None, step)
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
        self._say(f"recording into {recorder.paths[0].parent}")
        return recorder

    def _end_recording(self) -> Recorder | None:
        """Complete the recording: up to the last sample whose stems are known."""
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
