"""The session of a browser that sends its own sound; a worker thread separates it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from websockets.asyncio.server import ServerConnection

from rtsep.errors import ControlError, ProtocolError
from rtsep.runtime.engine import stream_latency
from rtsep.ui.connection import PICTURES_HZ, STATUS_S, Talk, first
from rtsep.ui.guard import Allowance
from rtsep.ui.protocol import (
    Command,
    Hello,
    Record,
    SetControl,
    SwitchDevice,
    SwitchModel,
    described,
    encode_spectra,
    faders,
    frame_number,
    parse_command,
    parse_hello,
)
from rtsep.ui.session_worker import BrowserChain, Pool, Worker
from rtsep.ui.spectra import BANDS, COLUMNS_HZ, peaks_to_bytes

SILENT_S = 30.0
"""A session ends after this time without sound, in seconds."""
UNSENT_S = 0.5
"""Sound that may wait for a slow network, in seconds; older sound is dropped."""
PACE = 1.1
"""Largest rate of incoming sound, relative to real time."""
BURST_S = 2.0
"""Sound that may arrive at once after a pause of the network, in seconds."""


class Browsers:
    """Creates sessions of browsers that send their own sound.

    Parameters
    ----------
    pool
        Source of models.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def facts(self) -> dict[str, Any]:
        """Return what a page needs before its session."""
        return {"models": self._pool.names}

    def session(self, connection: ServerConnection) -> Session:
        """Create the session of a connection."""
        return Session(connection, self._pool)


class Session(Talk):
    """Separates the sound of one browser.

    Parameters
    ----------
    connection
        Connection of an admitted browser.
    pool
        Source of models.
    """

    def __init__(self, connection: ServerConnection, pool: Pool) -> None:
        super().__init__(connection)
        self._pool = pool
        self._tasks: set[asyncio.Future[Any]] = set()

    async def serve(self) -> None:
        """Serve the session.

        Raises
        ------
        Exception
            The worker has failed.
        """
        hello = parse_hello(await self.hello())
        loop = asyncio.get_running_loop()
        self._loop, self._sound = loop, hello
        most = max(2, round(UNSENT_S * hello.sample_rate / hello.frame))
        chain = await asyncio.to_thread(
            BrowserChain, hello.model or self._pool.default, self._pool, hello
        )
        self._worker = worker = Worker(
            hello,
            chain,
            lambda answer: _call(loop, self.answer, answer, most),
            lambda before, number: _call(loop, self._switched, before, number),
        )
        self._ready(0)
        worker.start()
        try:
            await first(self._receive(hello), self.send(), self._draw(), self._report())
            if worker.error is not None:
                raise worker.error
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.shield(asyncio.to_thread(worker.stop))

    async def _receive(self, hello: Hello) -> None:
        per_second = hello.sample_rate / hello.frame
        sound = Allowance(PACE * per_second, BURST_S * per_second)
        heard = self._loop.time()
        while True:
            async with asyncio.timeout_at(heard + SILENT_S):
                message = await self.connection.recv()
            if isinstance(message, bytes):
                number = frame_number(message, hello)
                if not sound.take():
                    raise ProtocolError("sound came faster than real time")
                heard = self._loop.time()
                self._worker.put(number, message)
            else:
                self.allow_command()
                self._obey(parse_command(message))

    def _obey(self, command: Command) -> None:
        if isinstance(command, Record | SwitchDevice):
            raise ProtocolError("there is no such type of message")
        if isinstance(command, SwitchModel):
            if self._tasks or self._worker.switching:
                self.say("problem", text="the last change of the model is still in progress")
            else:
                self._start(self._load(command.name))
        elif isinstance(command, SetControl):
            try:
                self._worker.chain.loaded.set_controls({command.name: command.values})
            except ControlError as error:
                self.say("problem", text=str(error))
        elif not self._worker.control(command):
            self.say("problem", text="the current model has no such source")

    async def _load(self, name: str) -> None:
        try:
            chain = await asyncio.to_thread(BrowserChain, name, self._pool, self._sound)
        except ValueError as error:
            self.say("problem", text=str(error))
        else:
            self._worker.switch(chain)

    def _switched(self, before: BrowserChain, number: int) -> None:
        self._start(asyncio.to_thread(before.close))
        self._ready(number)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)  # errors are raised at the end of the session
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ready(self, number: int) -> None:
        chain = self._worker.chain
        self.say(
            "ready",
            model=chain.name,
            number=number,
            sources=chain.engine.spec.sources,
            controls=described(chain.mixer, chain.loaded.controls),
            faders=faders(chain.loaded),
            latency_samples=chain.engine.latency_samples,
            latency_ms=stream_latency(chain.engine, self._sound.sample_rate).terms_ms,
            bands=BANDS,
            columns_hz=COLUMNS_HZ,
            top_hz=chain.spectra.top_hz,
        )

    async def _draw(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(1 / PICTURES_HZ)
            chain = self._worker.chain
            columns = await asyncio.to_thread(chain.spectra.columns)
            if len(columns):
                number += len(columns)
                self.show(encode_spectra(number, peaks_to_bytes(chain.spectra.peaks), columns))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            worker = self._worker
            if worker.error is not None:
                return
            sound_s = worker.times.count * self._sound.frame / self._sound.sample_rate
            engine = worker.chain.engine
            self.say(
                "status",
                real_time_factor=worker.busy_s / max(sound_s, 1e-9),
                frame_ms={name: us / 1000 for name, us in worker.times.summary_us().items()},
                answered=worker.answered,
                dropped=worker.dropped,
                lost=worker.lost,
                undelivered=self.undelivered,
                nonfinite=engine.nonfinite_in + engine.nonfinite_out,
            )


def _call(loop: asyncio.AbstractEventLoop, function: Any, *arguments: Any) -> None:
    """Run a function on the event loop, from a worker thread."""
    loop.call_soon_threadsafe(function, *arguments)
