"""The thread that separates a session's sound, between two bounded queues."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from rtsep.errors import ProtocolError
from rtsep.realtime import scheduling
from rtsep.realtime.chain import Pool, SessionChain
from rtsep.runtime.timing import Durations
from rtsep.spec import Float32
from rtsep.ui.protocol import Control, Hello, decode, encode
from rtsep.ui.spectra import Spectra

BACKLOG_S = 0.25
"""Sound that may wait for the worker; more is dropped at once, since it is too late by then."""
WARM_UP_S = 0.5
"""How long a new model listens beside the present one before it is heard."""
FADE_S = 0.05
"""From one model to the next."""


class BrowserChain(SessionChain):
    """What separates the sound of a browser, and draws it.

    Parameters
    ----------
    name, pool
        As of `rtsep.realtime.chain.SessionChain`.
    hello
        The session's sound.
    """

    def __init__(self, name: str, pool: Pool, hello: Hello) -> None:
        super().__init__(name, pool, hello.sample_rate, hello.channels, hello.frame)
        late = self.engine.latency_samples
        self.spectra = Spectra(self.scope, self.spec.sample_rate / 2, late)

    def control(self, change: Control) -> bool:
        """Set the mixer; tell whether there is such a source."""
        return change.set(self.mixer, self.spec.sources)


class Worker:
    """Separate frames in their order, answer each with the frame of its number.

    A gap in the sound leaves the model as it is, as if that time had not been; what is still
    inside belongs before the gap, so as many frames go unanswered as the latency lasts. Who waits
    for them plays the mixture of their time.

    Parameters
    ----------
    hello
        The session's sound.
    chain
        What separates it at first.
    deliver
        Called by the thread with each answer; must not block.
    on_switch
        Called by the thread when the present chain, from the given number on, is heard alone; with
        the one before it, to be closed.

    Attributes
    ----------
    chain
        What is heard.
    answered, dropped, lost
        Frames answered, dropped for being late here, and never sent by the browser.
    busy_s
        Time all took, in seconds.
    times
        Time of each frame.
    error
        What ended the thread, if anything did.
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
        self._next: BrowserChain | None = None
        self._heard = 0  # samples that the next chain has heard
        self._most = max(2, round(BACKLOG_S * hello.sample_rate / hello.frame))
        self._queue: deque[tuple[int, bytes]] = deque()
        self._newest: int | None = None  # put
        self._last: int | None = None  # worked on
        self._stale = 0  # frames to come that hold what was before a gap
        shape = hello.frame, hello.channels
        self._sound, self._out, self._other = (np.zeros(shape, np.float32) for _ in range(3))
        self._there, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="rtsep session", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close its chains; what waits is not answered."""
        self._stopping = True
        self._there.set()
        self._thread.join()
        for chain in (self.chain, self._next):
            if chain is not None:
                chain.close()

    def put(self, number: int, message: bytes) -> None:
        """Queue a frame; never waits.

        Raises
        ------
        ProtocolError
            Its number is not above the last one's.
        """
        if self._newest is not None:
            if number <= self._newest:
                raise ProtocolError("the numbers of frames must rise")
            self.lost += number - self._newest - 1
        self._newest = number
        if len(self._queue) >= self._most:
            self.dropped += len(self._queue)
            self._queue.clear()
        self._queue.append((number, message))
        self._there.set()

    @property
    def switching(self) -> bool:
        """Whether another chain is about to be heard."""
        return self._next is not None

    def control(self, change: Control) -> bool:
        """Set the mixer; tell whether there is such a source."""
        coming = self._next
        if coming is not None:
            coming.control(change)
        return self.chain.control(change)

    def switch(self, chain: BrowserChain) -> None:
        """Go on with another chain; not while `switching`."""
        chain.go_on_from(self.chain)
        self._heard = 0
        self._next = chain

    def _run(self) -> None:
        scheduling.flush_denormals()
        try:
            while not self._stopping:
                self._there.wait()
                self._there.clear()
                while self._queue and not self._stopping:
                    try:
                        number, message = self._queue.popleft()
                    except IndexError:  # dropped just now
                        break
                    self._answer(number, message)
        except BaseException as error:  # the session reports it
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
        out, coming = self.chain.process(self._sound, self._out), self._next
        if coming is None:
            return out
        other = coming.process(self._sound, self._other)
        rate, n = self._hello.sample_rate, self._hello.frame
        since = (self._heard + np.arange(n, dtype=np.float32)) / rate - WARM_UP_S
        share = np.clip(since / FADE_S, 0.0, 1.0)[:, None]
        out += share * (other - out)
        self._heard += n
        if self._heard >= (WARM_UP_S + FADE_S) * rate:
            before, self.chain, self._next = self.chain, coming, None
            self._on_switch(before, number + 1)
        return out
