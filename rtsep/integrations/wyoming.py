"""A microphone for Wyoming, the protocol of Home Assistant's voice satellites: clean speech.

Every client hears the same live stream from when it connects: ``audio-start``, an ``audio-chunk``
every 20 ms, and ``audio-stop`` at the end of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
import soxr

from rtsep.errors import ExtraError, ServerError
from rtsep.integrations.source_filter import to_int16
from rtsep.spec import Float32
from rtsep.stream import LiveStream
from rtsep.version import __version__

try:
    from wyoming.audio import AudioChunk, AudioFormat, AudioStart, AudioStop
    from wyoming.event import Event
    from wyoming.info import Attribution, Describe, Info, MicProgram
    from wyoming.server import AsyncEventHandler, AsyncServer
except ModuleNotFoundError as error:
    raise ExtraError(f"rtsep wyoming needs {error.name}: pip install 'rtsep[wyoming]'") from None

RATE_HZ = 16_000
"""Rate of the chunks; assistants expect it."""
CHUNK_S = 0.02
QUEUE = 100
"""Chunks that a client may be late; older ones are lost to it."""

_FORMAT = {"rate": RATE_HZ, "width": 2, "channels": 1}


class Microphone:
    """Hands the chunks of one source of a live stream to all clients.

    Parameters
    ----------
    stream
        A running stream of one channel.
    source
        Name of the source.

    Attributes
    ----------
    lost
        Chunks that clients were too late for.
    """

    def __init__(self, stream: LiveStream, source: str) -> None:
        self._stream, self.source, self.lost = stream, source, 0
        self._clients: set[asyncio.Queue[bytes | None]] = set()

    async def run(self) -> None:
        """Hand out chunks until the stream ends, then the end to all clients."""
        rate = self._stream.latency.rate_hz
        resampler = soxr.ResampleStream(rate, RATE_HZ, 1) if rate != RATE_HZ else None
        ready, size = np.zeros(0, np.float32), round(CHUNK_S * RATE_HZ)
        async for stems in self._stream.blocks(round(CHUNK_S * rate)):
            sound: Float32 = stems[self.source].mean(axis=1, dtype=np.float32)
            if resampler is not None:
                sound = resampler.resample_chunk(sound)
            ready = np.concatenate([ready, sound])
            while len(ready) >= size:
                self._hand_out(to_int16(ready[:size]))
                ready = ready[size:]
        self._hand_out(None)

    def _hand_out(self, chunk: bytes | None) -> None:
        for client in self._clients:
            if client.full():
                client.get_nowait()
                self.lost += 1
            client.put_nowait(chunk)

    def join(self) -> asyncio.Queue[bytes | None]:
        """Return the queue of a new client; None in it is the end."""
        client: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)
        self._clients.add(client)
        return client

    def leave(self, client: asyncio.Queue[bytes | None]) -> None:
        """Forget a client."""
        self._clients.discard(client)

    def info(self) -> Info:
        """Answer to ``describe``."""
        by = Attribution(name="rtsep", url="")
        program = MicProgram(
            name="rtsep",
            attribution=by,
            installed=True,
            description=f"{self.source} of {self._stream.model}, separated on this machine",
            version=__version__,
            mic_format=AudioFormat(**_FORMAT),
        )
        return Info(mic=[program])


class _Client(AsyncEventHandler):
    """One connection."""

    def __init__(
        self,
        microphone: Microphone,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(reader, writer)
        self._microphone = microphone
        self._sending = asyncio.create_task(self._send())

    async def handle_event(self, event: Event) -> bool:
        if Describe.is_type(event.type):
            await self.write_event(self._microphone.info().event())
        return True

    async def disconnect(self) -> None:
        self._sending.cancel()

    async def _send(self) -> None:
        chunks = self._microphone.join()
        try:
            with suppress(ConnectionError):
                await self.write_event(AudioStart(**_FORMAT).event())
                while (chunk := await chunks.get()) is not None:
                    await self.write_event(AudioChunk(**_FORMAT, audio=chunk).event())
                await self.write_event(AudioStop().event())
        finally:
            self._microphone.leave(chunks)


async def serve(microphone: Microphone, uri: str, started: Callable[[], None]) -> None:
    """Serve a microphone until its stream ends.

    Parameters
    ----------
    microphone
        What clients hear.
    uri
        Address, ``tcp://HOST:PORT`` or ``unix://PATH``.
    started
        Called when clients can connect.

    Raises
    ------
    ServerError
        The address is invalid or in use.
    """
    try:
        server = AsyncServer.from_uri(uri)
        await server.start(partial(_Client, microphone))
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ServerError(f"{uri} can't be served: {reason}") from None
    started()
    await microphone.run()
    await asyncio.sleep(0.2)  # for the last chunks
    await server.stop()
