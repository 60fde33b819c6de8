"""The pool of models for browsers' sessions, and the worker thread of a session."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

import numpy as np

from rtsep import weights
from rtsep.errors import BundleError, ProtocolError
from rtsep.realtime import scheduling
from rtsep.realtime.chain import ProcessingChain
from rtsep.realtime.crossfade import Crossfade
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import DEFAULT, StemOptions
from rtsep.runtime.pipeline import LoadedModel
from rtsep.runtime.timing import Durations
from rtsep.spec import Float32
from rtsep.ui.protocol import Control, Hello, decode, encode
from rtsep.ui.spectra import Spectra

BACKLOG_S = 0.25
"""Sound that may wait for the worker, in seconds; more is dropped, because it is too late."""


class Pool:
    """Loaded models that sessions take and give back.

    Loading holds the interpreter lock and disturbs other sessions, so no model is loaded twice.

    Parameters
    ----------
    first
        First model of sessions: a shipped name, or the path of a bundle; None is the default model.
    spare
        Number of copies of it to load now.
    options
        What is done to the stems.

    Raises
    ------
    BundleError
        The model can't be run.
    """

    def __init__(
        self, first: str | None = None, spare: int = 0, options: StemOptions = DEFAULT
    ) -> None:
        self._options = options
        bundle = weights.find(first)
        self.default = first if first in weights.available() else bundle.metadata["name"]
        self._bundles: dict[str, Bundle] = {self.default: bundle}
        self._idle: defaultdict[tuple[str, int], list[LoadedModel]] = defaultdict(list)
        self._lock = threading.Lock()
        for loaded in [self.take(self.default, 1) for _ in range(spare)]:
            self.give(self.default, loaded)

    @property
    def names(self) -> list[str]:
        """Names of all models, the default one first."""
        return [self.default, *(name for name in weights.available() if name != self.default)]

    def bundle(self, name: str) -> Bundle:
        """Return the model of one of `names`; paths are not accepted.

        Raises
        ------
        BundleError
            There is no model of this name, or it can't be run.
        """
        if name not in self.names:
            raise BundleError(f"there is no such model; there are: {', '.join(self.names)}")
        if name not in self._bundles:
            self._bundles[name] = weights.find(name)
        return self._bundles[name]

    def take(self, name: str, channels: int) -> LoadedModel:
        """Return a reset model for a number of channels; slow, thread-safe.

        The result of a joint model may have more channels, see its ``channels``.
        """
        with self._lock:  # load one at a time
            bundle = self.bundle(name)
            heard = channels if bundle.spec.channels == 1 else bundle.spec.channels
            idle = self._idle[name, heard]
            return idle.pop() if idle else LoadedModel(bundle, heard, self._options)

    def give(self, name: str, loaded: LoadedModel) -> None:
        """Return a model to the pool."""
        with self._lock:
            loaded.reset()
            self._idle[name, loaded.channels].append(loaded)


class BrowserChain(ProcessingChain):
    """The processing chain of a browser's session, with a model of a pool.

    Parameters
    ----------
    name
        Name of the model in the pool.
    pool
        Source of the model; `close` gives it back.
    hello
        Format of the sound. Missing channels of a joint model repeat the last one.

    Attributes
    ----------
    loaded
        The model.

    Raises
    ------
    BundleError
        The model can't be run.
    """

    def __init__(self, name: str, pool: Pool, hello: Hello) -> None:
        self.name, self._pool, self._closed = name, pool, False
        self.loaded = loaded = pool.take(name, hello.channels)
        rate, frame = hello.sample_rate, hello.frame
        super().__init__(loaded.engine(rate, frame), rate, hello.channels, frame)
        self._mixture = np.zeros((frame, loaded.channels), np.float32)
        self.mixer.muted[1:] = True  # only the first source is audible, as in `rtsep run`
        self.warm_up(frame)
        late = self.engine.latency_samples
        self.spectra = Spectra(self.scope, self.engine.spec.sample_rate / 2, late)

    def process(self, mixture: Float32) -> Float32:
        """Separate a frame (frame, channels) of the session and return the output."""
        for channel in range(self._mixture.shape[1]):
            self._mixture[:, channel] = mixture[:, min(channel, mixture.shape[1] - 1)]
        return super().process(self._mixture)

    def control(self, change: Control) -> bool:
        """Apply a change of the mixer; return whether the source exists."""
        return change.set(self.mixer, self.engine.spec.sources)

    def close(self) -> None:
        """Give the model back; the chain can't be used any more."""
        if not self._closed:
            self._closed = True
            self._pool.give(self.name, self.loaded)


class Worker:
    """Separates frames in order and replies to each with a frame of its number.

    A gap in the sound does not change the model's state. The samples still inside belong before the
    gap, so frames within the latency get no reply; the browser plays the mixture in their place.

    Parameters
    ----------
    hello
        Format of the sound.
    chain
        The first chain.
    deliver
        Function that receives each reply in this thread; must not block.
    on_switch
        Function that is called in this thread at the end of a cross-fade, with the former chain,
        to be closed, and the number of the first frame of the new chain alone.

    Attributes
    ----------
    chain
        The current chain.
    answered, dropped, lost
        Number of frames replied to, dropped here because they were late, and not sent by the
        browser.
    busy_s
        Processing time of all frames, in seconds.
    times
        Processing time of each frame.
    error
        Error that ended the thread, if any.
    """

    def __init__(
        self,
        hello: Hello,
        chain: BrowserChain,
        deliver: Callable[[bytes], None],
        on_switch: Callable[[BrowserChain, int], None],
    ) -> None:
        self.chain = chain
        self.answered = self.dropped = self.lost = 0
        self.busy_s = 0.0
        self.times = Durations()
        self.error: BaseException | None = None
        self._hello, self._deliver, self._on_switch = hello, deliver, on_switch
        self._arriving: Crossfade[BrowserChain] | None = None
        self._most = max(2, round(BACKLOG_S * hello.sample_rate / hello.frame))
        self._queue: deque[tuple[int, bytes]] = deque()
        self._newest: int | None = None  # last queued
        self._last: int | None = None  # last processed
        self._stale = 0  # following frames that contain sound from before a gap
        shape = hello.frame, hello.channels
        self._sound = np.zeros(shape, np.float32)
        self._there, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="rtsep session", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close its chains; waiting frames get no reply."""
        self._stopping = True
        self._there.set()
        self._thread.join()
        for chain in self._chains:
            chain.close()

    def put(self, number: int, message: bytes) -> None:
        """Queue a frame, without waiting.

        Raises
        ------
        ProtocolError
            Its number is not greater than the last one.
        """
        if self._newest is not None:
            if number <= self._newest:
                raise ProtocolError("the numbers of frames must increase")
            self.lost += number - self._newest - 1
        self._newest = number
        if len(self._queue) >= self._most:
            self.dropped += len(self._queue)
            self._queue.clear()
        self._queue.append((number, message))
        self._there.set()

    @property
    def switching(self) -> bool:
        """Whether another chain is being faded in."""
        return self._arriving is not None

    @property
    def _chains(self) -> tuple[BrowserChain, ...]:
        """The current chain, and the one that is being faded in."""
        arriving = self._arriving
        return (self.chain,) if arriving is None else (self.chain, arriving.chain)

    def control(self, change: Control) -> bool:
        """Apply a change of the mixer; return whether the source exists."""
        known = [chain.control(change) for chain in self._chains]
        return known[0]

    def switch(self, chain: BrowserChain) -> None:
        """Cross-fade to another chain; not while `switching`."""
        chain.go_on_from(self.chain)
        self._arriving = Crossfade(chain, self._hello.sample_rate)

    def _run(self) -> None:
        scheduling.flush_denormals()
        try:
            while not self._stopping:
                self._there.wait()
                self._there.clear()
                while self._queue and not self._stopping:
                    try:
                        number, message = self._queue.popleft()
                    except IndexError:  # just dropped
                        break
                    self._answer(number, message)
        except BaseException as error:  # raised by the session
            self.error = error

    def _answer(self, number: int, message: bytes) -> None:
        start = time.perf_counter()
        if self._last is not None and number != self._last + 1:
            self._stale = -(-self.chain.engine.latency_samples // self._hello.frame)
        self._last = number
        decode(message, self._hello, self._sound)
        out = self._process(number)
        elapsed = time.perf_counter() - start
        self.busy_s += elapsed
        self.times.add(elapsed)
        if self._stale:
            self._stale -= 1
            return
        self.answered += 1
        self._deliver(encode(number, out, self._hello))

    def _process(self, number: int) -> Float32:
        heard, arriving = self.chain.process(self._sound), self._arriving
        if arriving is not None:
            arriving.process(self._sound, heard)
            if arriving.complete:
                before, self.chain, self._arriving = self.chain, arriving.chain, None
                self._on_switch(before, number + 1)
        return heard
