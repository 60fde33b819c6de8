"""A replica: one model, or a few, whose calls all streams of this process share.

A thread works in rounds. In a round, each stream that has sound takes its next frame, and the model
is called for all of them at once until the frames are separated. Under load more frames wait for
each round, so calls become larger and cheaper per stream. A stream is separated at most twice as
fast as real time, so that none can slow down the others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rtsep import weights
from rtsep.errors import PlaceError, ProtocolError, SpecError
from rtsep.realtime import scheduling
from rtsep.runtime.engine import DEFAULT, StemOptions
from rtsep.runtime.timing import Durations
from rtsep.serve.batch import Batch
from rtsep.serve.keeper import Keeper
from rtsep.serve.protocol import Greeting, Reset
from rtsep.serve.stream import Leave, Sound, Stream

SNAPSHOT_S = 1.0
"""Time between two snapshots of a stream, in seconds."""

Answers = list[tuple[Stream, bytes]]


@dataclass
class Figures:
    """What a replica has done so far.

    Attributes
    ----------
    streams, places
        Streams now, and the largest number.
    opened, resumed, refused
        Streams that got a place, of these with the state of another connection, and those refused.
    frames, misses, late
        Frames answered; answered later than their own duration after they arrived; and arrived
        more than `LATE_S` after their time in the stream.
    closed
        Streams closed because they broke a rule.
    hop_p50_s, hop_p99_s, hop_p999_s
        Time of one call of the model for all streams that waited, transforms included.
    draining
        Whether it takes no more streams.
    """

    streams: int = 0
    places: int = 0
    opened: int = 0
    resumed: int = 0
    refused: int = 0
    frames: int = 0
    misses: int = 0
    late: int = 0
    closed: int = 0
    hop_p50_s: float = 0.0
    hop_p99_s: float = 0.0
    hop_p999_s: float = 0.0
    draining: bool = False


class Replica:
    """Separates up to ``places`` streams.

    Parameters
    ----------
    models
        Shipped names or paths of bundles; streams choose one by its name, by default the first.
    places
        Largest number of streams.
    keeper
        Where snapshots go.
    answer
        Function that receives replies, on the event loop.
    options
        What is done to stems.

    Attributes
    ----------
    batches
        The models by name.
    figures
        What it has done; hop times are those of the last call of `report`.
    error, failed
        Error that ended the thread, if any; then ``failed`` is set.

    Raises
    ------
    BundleError
        A model can't be run.
    """

    def __init__(
        self,
        models: Sequence[str | None],
        places: int,
        keeper: Keeper,
        answer: Callable[[Stream, bytes], None],
        options: StemOptions = DEFAULT,
    ) -> None:
        bundles = [weights.find(model) for model in models]
        self.batches = {bundle.metadata["name"]: Batch(bundle, places) for bundle in bundles}
        self.figures = Figures(places=places)
        self.error: BaseException | None = None
        self._keeper, self._answer, self._options = keeper, answer, options
        self._streams: dict[str, Stream] = {}
        self._hops = Durations()
        self.failed = asyncio.Event()
        self._leaving: set[asyncio.Event] = set()
        self._work, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="rtsep replica", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; replies go to ``loop``."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End the thread; streams get no more replies."""
        self._stopping = True
        self._work.set()
        self._thread.join()

    def report(self) -> Figures:
        """Return the figures with the hop times of now."""
        figures = self.figures
        figures.hop_p50_s, figures.hop_p99_s, figures.hop_p999_s = (
            self._hops.percentile_s(percent) for percent in (50.0, 99.0, 99.9)
        )
        return figures

    async def open(self, name: str, greeting: Greeting) -> Stream:
        """Begin a stream of this name, or go on with one of which there is a snapshot.

        Raises
        ------
        PlaceError
            All places are taken, or the replica is draining.
        ProtocolError
            There is no such model, or it can't process this format.
        """
        figures = self.figures
        if figures.draining or figures.streams == figures.places:
            figures.refused += 1
            raise PlaceError("the server takes no more streams now")
        figures.streams += 1
        figures.opened += 1
        try:
            model = greeting.hello.model or next(iter(self.batches))
            if model not in self.batches:
                raise ProtocolError(f"there is no such model; there are: {', '.join(self.batches)}")
            state = None if greeting.stream is None else await self._keeper.fetch(name)
            stream = await asyncio.to_thread(self._make, name, greeting, self.batches[model], state)
        except BaseException:
            figures.streams -= 1
            raise
        figures.resumed += stream.number >= 0
        self._streams[name] = stream
        return stream

    def _make(self, name: str, greeting: Greeting, batch: Batch, state: bytes | None) -> Stream:
        try:
            stream = Stream(name, greeting, batch, self._options)
        except SpecError as error:
            raise ProtocolError(str(error)) from None
        if state is not None:
            try:
                stream.restore(state)
            except BaseException:
                stream.close()
                raise
        return stream

    def put(self, stream: Stream, number: int, message: bytes) -> None:
        """Queue a frame of a stream."""
        now = time.monotonic()
        self.figures.late += stream.late(now)
        stream.queue.append(Sound(number, message, now))
        self._work.set()

    def reset(self, stream: Stream) -> None:
        """Reset a stream after the frames that wait."""
        stream.queue.append(Reset())
        self._work.set()

    async def close(self, stream: Stream, keep: bool, finish: bool) -> None:
        """End a stream here.

        Parameters
        ----------
        stream
            The stream; it can't be used any more.
        keep
            Whether it may go on elsewhere, so that a snapshot is kept.
        finish
            Whether frames that wait are separated first.
        """
        gone = asyncio.Event()
        leave = Leave(keep, lambda: self._post(gone.set))
        if finish:
            stream.queue.append(leave)
        else:
            stream.queue.appendleft(leave)
        self._work.set()
        if self.error is None and self._thread.is_alive():
            self._leaving.add(gone)
            await gone.wait()
            self._leaving.discard(gone)
        if keep:
            await self._keeper.delivered(stream.name)
        self.figures.streams -= 1

    def _run(self) -> None:
        scheduling.flush_denormals()
        try:
            while not self._stopping:
                self._work.clear()
                frames, pause_s = self._gather()
                if frames:
                    self._separate(frames)
                else:
                    self._work.wait(pause_s)
        except BaseException as error:  # raised by the server
            self.error = error
            self._post(self._fail)

    def _fail(self) -> None:
        """Tell those who wait that the thread has ended."""
        self.failed.set()
        for gone in self._leaving:
            gone.set()

    def _gather(self) -> tuple[list[tuple[Stream, Sound]], float]:
        """Return the next frame of each stream that may go on, and the time until another may."""
        now, pause_s = time.monotonic(), SNAPSHOT_S
        frames = []
        for stream in list(self._streams.values()):
            while stream.queue:
                item = stream.queue.popleft()
                if isinstance(item, Reset):
                    stream.reset()
                    continue
                if isinstance(item, Leave):
                    self._leave(stream, item)
                elif stream.due > now:
                    stream.queue.appendleft(item)
                    pause_s = min(pause_s, stream.due - now)
                else:
                    stream.begin(item)
                    frames.append((stream, item))
                break
        return frames, pause_s

    def _separate(self, frames: list[tuple[Stream, Sound]]) -> None:
        """Separate a frame of each of these streams, and answer them together."""
        left = [stream for stream, _ in frames]
        while left:
            start = time.perf_counter()
            left = [stream for stream in left if not stream.advance()]
            for batch in self.batches.values():
                if batch.waiting:
                    batch.run()
            if left:
                self._hops.add(time.perf_counter() - start)
        answers = [(stream, stream.finish()) for stream, _ in frames]
        now = time.monotonic()
        self.figures.frames += len(frames)
        self.figures.misses += sum(now - sound.arrived > s.frame_s for s, sound in frames)
        self._post(self._hand_out, answers)
        for stream, _ in frames:
            if now - stream.saved >= SNAPSHOT_S:
                self._keeper.keep(stream.name, stream.number, stream.save())

    def _hand_out(self, answers: Answers) -> None:
        for stream, reply in answers:
            self._answer(stream, reply)

    def _leave(self, stream: Stream, leave: Leave) -> None:
        if leave.keep:
            self._keeper.keep(stream.name, stream.number, stream.save())
        else:
            self._keeper.drop(stream.name)
        del self._streams[stream.name]
        stream.close()
        leave.done()

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        """Run a function on the event loop, unless that has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)
