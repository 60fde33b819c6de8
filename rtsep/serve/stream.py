"""A stream of a client: its engine and mixer, in steps between which the model is called."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rtsep.dsp.mixer import Mixer
from rtsep.errors import ProtocolError
from rtsep.runtime.engine import DONE, Engine, StemOptions, advance, stream_latency
from rtsep.serve import snapshot
from rtsep.serve.batch import Batch
from rtsep.serve.protocol import Greeting, Reset
from rtsep.ui.protocol import Control, decode, described, encode

WINDOW_S = 1.0
"""Sound that a client may send before it reads the replies, in seconds."""
PACE = 2.0
"""Fastest separation of a stream, relative to real time, after a burst of `WINDOW_S`."""
LATE_S = 0.04
"""A frame that arrives this much after its time in the stream is late, in seconds."""


@dataclass(frozen=True)
class Sound:
    """A frame that waits for the model.

    Attributes
    ----------
    number
        Its number.
    message
        The message that has it.
    arrived
        When it came, by `time.monotonic`.
    """

    number: int
    message: bytes
    arrived: float


@dataclass(frozen=True)
class Leave:
    """The stream ends here.

    Attributes
    ----------
    keep
        Whether a snapshot is kept, with which it can go on elsewhere.
    done
        Function that is called afterwards, in the thread of the replica.
    """

    keep: bool
    done: Callable[[], None]


class Stream:
    """A stream on this server.

    The event loop puts work into ``queue``; everything else is for the thread of the replica.

    Parameters
    ----------
    name
        Secret name with which it can go on elsewhere.
    greeting
        First message of the client.
    batch
        Model and place of the stream.
    options
        What is done to the stems.

    Attributes
    ----------
    queue
        Work in order.
    number
        Number of the last frame that was separated, -1 at the start.
    due
        Time from which the next frame may be separated, by `time.monotonic`.
    saved
        Time of the last snapshot.

    Raises
    ------
    ProtocolError
        The model can't process this format.
    SpecError
        See `rtsep.serve.batch.Batch.lane`.
    """

    def __init__(self, name: str, greeting: Greeting, batch: Batch, options: StemOptions) -> None:
        self.name, self.greeting, self._batch = name, greeting, batch
        hello, bundle = greeting.hello, batch.bundle
        self.queue: deque[Sound | Reset | Leave] = deque()
        self.number = -1
        self.due, self.saved = -np.inf, time.monotonic()
        self._clock = np.inf
        self._lane = batch.lane(hello.channels)
        try:
            floor_db = bundle.floor_db if options.floor_db is None else options.floor_db
            self.engine = Engine(
                *(self._lane, bundle.spec, hello.channels, hello.frame, hello.sample_rate),
                replace(options, floor_db=floor_db),
            )
        except BaseException:
            batch.give_back(self._lane)
            raise
        sources, late = len(bundle.spec.sources), self.engine.latency_samples
        shape = hello.frame, hello.channels
        self.mixer = Mixer(sources, shape[1], shape[1], hello.sample_rate, late)
        self.mixer.muted[1:] = True  # only the first source is audible, as in `rtsep run`
        self.mixer.reset()
        self._sound = np.zeros(shape, np.float32)
        self._stems = np.zeros((shape[0], sources, shape[1]), np.float32)
        self._out = np.zeros(shape, np.float32)

    @property
    def frame_s(self) -> float:
        """Duration of a frame, in seconds."""
        return self.greeting.hello.frame / self.greeting.hello.sample_rate

    @property
    def window(self) -> int:
        """Number of frames that may be sent before their replies are read."""
        return round(WINDOW_S / self.frame_s)

    def described(self) -> dict[str, Any]:
        """Return what the client is told at the start, see `rtsep.serve.protocol`."""
        bundle = self._batch.bundle
        latency = stream_latency(self.engine, self.greeting.hello.sample_rate)
        return {
            "stream": self.name,
            "model": bundle.metadata["name"],
            "sources": bundle.spec.sources,
            "controls": described(self.mixer),
            "latency_samples": self.engine.latency_samples,
            "latency_terms": latency.terms,
            "window": self.window,
            "after": self.number,
        }

    def control(self, change: Control) -> bool:
        """Apply a change of the mixer, from any thread; return whether the source exists."""
        return change.set(self.mixer, self.engine.spec.sources)

    def late(self, now: float) -> bool:
        """Return whether the frame that arrives ``now`` is late by the earlier ones."""
        expected = self._clock + self.frame_s
        late = bool(now > expected + LATE_S)
        self._clock = now if late else min(expected, now)
        return late

    def begin(self, sound: Sound) -> None:
        """Take the next frame, which `advance` separates."""
        self.number = sound.number
        self.due = max(self.due + self.frame_s / PACE, time.monotonic() - WINDOW_S / PACE)
        decode(sound.message, self.greeting.hello, self._sound)

    def advance(self) -> bool:
        """Separate the frame as far as possible; False if the model must be called first."""
        if advance(self.engine.held.address, self._sound, self._stems) == DONE:
            return True
        self.engine.call()
        return False

    def finish(self) -> bytes:
        """Return the reply to the frame, once `advance` has separated it."""
        out = self._stems
        if not self.greeting.stems:
            out = self.mixer.process(self._sound, self._stems, self._out)
        return encode(self.number, out, self.greeting.hello)

    def reset(self) -> None:
        """Reset the state."""
        self.engine.reset()
        self.mixer.reset()

    def close(self) -> None:
        """Free the place of the stream."""
        self._batch.give_back(self._lane)

    def save(self) -> bytes:
        """Return the state after the last frame."""
        self.saved = time.monotonic()
        head = {**self._kind(), "number": self.number}
        return snapshot.pack(head, self.engine, self._lane, self.mixer)

    def restore(self, state: bytes) -> None:
        """Go on from a state.

        Raises
        ------
        ProtocolError
            It is of a stream of another model or format.
        """
        head = snapshot.head_of(state)
        number = head.pop("number")
        if head != self._kind():
            raise ProtocolError("the stream had another model or format")
        snapshot.unpack(state, self.engine, self._lane, self.mixer)
        self.number = number

    def _kind(self) -> dict[str, Any]:
        """Return what must be equal where the stream goes on."""
        hello = {**asdict(self.greeting.hello), "model": None}
        return {"graph": self._batch.fingerprint, "hello": hello, "stems": self.greeting.stems}
