"""One browser's session: messages in and out of its worker, nothing computed on the event loop."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Coroutine
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from rtsep.bundle import BundleError
from rtsep.ui.chain import Chain, Pool
from rtsep.ui.guard import Allowance
from rtsep.ui.protocol import (
    Control,
    Hello,
    ProtocolError,
    SwitchModel,
    encode_spectra,
    frame_number,
    parse_command,
    parse_hello,
)
from rtsep.ui.spectra import BANDS, COLUMNS_HZ, peaks_to_bytes
from rtsep.ui.worker import Worker

HELLO_S = 5.0
"""A browser that has not said hello by then is not one of ours."""
SILENT_S = 30.0
"""A session without sound for so long gives its place back."""
UNSENT_S = 0.5
"""Answers that may wait for a slow network; older ones are dropped."""
PICTURES_HZ = 30.0
STATUS_S = 0.5
COMMANDS_HZ = 100.0
"""Commands per second; twice as many at once."""
PACE = 1.1
"""Sound may come so much faster than real time."""
BURST_S = 2.0
"""Sound that may come at once after a network's pause."""

_POLICY, _FAULT = 1008, 1011  # codes of RFC 6455


class Session:
    """Serve a WebSocket until either side ends it.

    Parameters
    ----------
    connection
        Of a browser that may have a session.
    pool
        Where models come from.

    Attributes
    ----------
    undelivered
        Answers dropped because the network was too slow.
    """

    def __init__(self, connection: ServerConnection, pool: Pool) -> None:
        self._connection, self._pool = connection, pool
        self._unsent: deque[bytes] = deque()
        self._texts: deque[str] = deque()
        self._pictures: deque[bytes] = deque(maxlen=2)
        self._any = asyncio.Event()
        self._tasks: set[asyncio.Future[Any]] = set()
        self.undelivered = 0

    async def run(self) -> None:
        """Serve it; whatever the browser does ends this session only.

        Raises
        ------
        Exception
            The server failed; the browser has been told so.
        """
        code, reason = _FAULT, "the server failed"
        try:
            await self._serve()
        except ConnectionClosed:
            pass
        except (ProtocolError, BundleError) as error:
            code, reason = _POLICY, str(error)
        except TimeoutError:
            code, reason = _POLICY, "nothing came for too long"
        finally:
            await self._connection.close(code, reason.encode()[:120].decode(errors="ignore"))

    async def _serve(self) -> None:
        hello = await self._hello()
        loop = asyncio.get_running_loop()
        self._loop, self._sound = loop, hello
        self._most = max(2, round(UNSENT_S * hello.sample_rate / hello.frame))
        chain = await asyncio.to_thread(Chain, hello.model or self._pool.default, self._pool, hello)
        self._worker = worker = Worker(
            hello,
            chain,
            lambda answer: _call(loop, self._answered, answer),
            lambda before, number: _call(loop, self._switched, before, number),
        )
        self._ready(0)
        worker.start()
        try:
            await _first(self._receive(hello), self._send(), self._draw(), self._report())
            if worker.error is not None:
                raise worker.error
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.shield(asyncio.to_thread(worker.stop))

    async def _hello(self) -> Hello:
        async with asyncio.timeout(HELLO_S):
            message = await self._connection.recv()
        if not isinstance(message, str):
            raise ProtocolError("a session begins with hello")
        return parse_hello(message)

    async def _receive(self, hello: Hello) -> None:
        per_second = hello.sample_rate / hello.frame
        sound = Allowance(PACE * per_second, BURST_S * per_second)
        commands = Allowance(COMMANDS_HZ, 2 * COMMANDS_HZ)
        heard = self._loop.time()
        while True:
            async with asyncio.timeout_at(heard + SILENT_S):
                message = await self._connection.recv()
            if isinstance(message, bytes):
                number = frame_number(message, hello)
                if not sound.take():
                    raise ProtocolError("sound came faster than real time")
                heard = self._loop.time()
                self._worker.put(number, message)
            else:
                if not commands.take():
                    raise ProtocolError("too many commands")
                self._obey(parse_command(message))

    def _obey(self, command: Control | SwitchModel) -> None:
        if isinstance(command, SwitchModel):
            if self._tasks or self._worker.switching:
                self._say("problem", text="the last change of the model is not over yet")
            else:
                self._start(self._load(command.name))
        elif not self._worker.control(command):
            self._say("problem", text="the present model has no such source")

    async def _load(self, name: str) -> None:
        try:
            chain = await asyncio.to_thread(Chain, name, self._pool, self._sound)
        except (BundleError, ValueError) as error:
            self._say("problem", text=str(error))
        else:
            self._worker.switch(chain)

    def _switched(self, before: Chain, number: int) -> None:
        self._start(asyncio.to_thread(before.close))
        self._ready(number)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)  # its errors are raised where the session ends
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ready(self, number: int) -> None:
        chain = self._worker.chain
        mixer = chain.mixer
        self._say(
            "ready",
            model=chain.name,
            number=number,
            sources=[
                {"name": name, "muted": bool(muted)}
                for name, muted in zip(chain.spec.sources, mixer.muted, strict=True)
            ],
            latency_samples=chain.engine.latency_samples,
            latency_ms=chain.latency_terms_ms(),
            bands=BANDS,
            columns_hz=COLUMNS_HZ,
            top_hz=chain.spectra.top_hz,
        )

    def _say(self, kind: str, **message: Any) -> None:
        if len(self._texts) < 64:  # commands that are answered come faster than they are read
            self._texts.append(json.dumps({"type": kind, **message}))
        self._any.set()

    def _answered(self, answer: bytes) -> None:
        if len(self._unsent) >= self._most:
            self._unsent.popleft()
            self.undelivered += 1
        self._unsent.append(answer)
        self._any.set()

    async def _send(self) -> None:
        """Send what there is, sound first."""
        while True:
            await self._any.wait()
            self._any.clear()
            while self._unsent or self._texts or self._pictures:
                if self._unsent:
                    await self._connection.send(self._unsent.popleft())
                elif self._texts:
                    await self._connection.send(self._texts.popleft())
                else:
                    await self._connection.send(self._pictures.popleft())

    async def _draw(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(1 / PICTURES_HZ)
            chain = self._worker.chain
            columns = await asyncio.to_thread(chain.spectra.columns)
            if len(columns):
                peaks = peaks_to_bytes(chain.mixer.peaks())
                number += len(columns)
                self._pictures.append(encode_spectra(number, peaks, columns))
                self._any.set()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            worker = self._worker
            if worker.error is not None:
                return
            sound_s = worker.times.count * self._sound.frame / self._sound.sample_rate
            engine = worker.chain.engine
            self._say(
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
    """Run a function on the loop; from a worker, which the loop outlives."""
    loop.call_soon_threadsafe(function, *arguments)


async def _first(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first one ends, and raise what it raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
