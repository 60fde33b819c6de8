"""A WebSocket with a bounded queue of outgoing messages, sent by priority."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed

from rtsep.errors import BundleError, ProtocolError
from rtsep.ui.guard import Allowance

HELLO_S = 5.0
"""A connection without a hello within this time is closed, in seconds."""
PICTURES_HZ = 30.0
STATUS_S = 0.5
COMMANDS_HZ = 100.0
"""Largest rate of commands; twice as many may arrive at once."""
_UNREAD = 64
"""Texts that may wait for a slow browser."""

_ENDED, _POLICY, _FAULT = 1000, 1008, 1011  # codes of RFC 6455


class Socket(Protocol):
    """A WebSocket; `websockets.exceptions.ConnectionClosed` says that it was closed."""

    async def recv(self) -> str | bytes:
        """Return the next message."""

    async def send(self, message: str | bytes, /) -> None:
        """Send a message; wait while the network takes no more."""

    async def close(self, code: int, reason: str) -> None:
        """Close the WebSocket if it is open."""


class Talk:
    """Serves a WebSocket until either side closes it.

    Parameters
    ----------
    connection
        Connection of an admitted client.

    Attributes
    ----------
    delivered, undelivered
        Frames of sound sent, and dropped because the network was too slow.
    """

    def __init__(self, connection: Socket) -> None:
        self.connection = connection
        self.delivered = self.undelivered = 0
        self._commands = Allowance(COMMANDS_HZ, 2 * COMMANDS_HZ)
        self._unsent: deque[bytes] = deque()
        self._texts: deque[str] = deque()
        self._pictures: deque[bytes] = deque(maxlen=2)
        self._any = asyncio.Event()

    async def run(self) -> None:
        """Serve the connection; an invalid message closes this session only.

        Raises
        ------
        Exception
            The server failed; the browser has been informed.
        """
        code, reason = _FAULT, "the server failed"
        try:
            await self.serve()
            code, reason = _ENDED, "the session ended"
        except ConnectionClosed:
            pass
        except (ProtocolError, BundleError) as error:
            code, reason = _POLICY, str(error)
        except TimeoutError:
            code, reason = _POLICY, "no message arrived for too long"
        finally:
            await self.connection.close(code, reason.encode()[:120].decode(errors="ignore"))

    async def serve(self) -> None:
        """Serve the session; implemented by each kind of session."""
        raise NotImplementedError

    async def hello(self) -> str:
        """Return the first message."""
        async with asyncio.timeout(HELLO_S):
            message = await self.connection.recv()
        if not isinstance(message, str):
            raise ProtocolError("a session begins with hello")
        return message

    def allow_command(self) -> None:
        """Count a command.

        Raises
        ------
        ProtocolError
            There are too many.
        """
        if not self._commands.take():
            raise ProtocolError("too many commands")

    def say(self, kind: str, **message: Any) -> None:
        """Queue a text; it is dropped if the browser reads too slowly."""
        if len(self._texts) < _UNREAD:
            self._texts.append(json.dumps({"type": kind, **message}))
        self._any.set()

    def answer(self, sound: bytes, most: int) -> None:
        """Queue sound, with the highest priority; keep the newest ``most`` frames."""
        if len(self._unsent) >= most:
            self._unsent.popleft()
            self.undelivered += 1
        self._unsent.append(sound)
        self._any.set()

    def show(self, picture: bytes) -> None:
        """Queue a picture, with the lowest priority; it replaces a waiting one."""
        self._pictures.append(picture)
        self._any.set()

    async def send(self) -> None:
        """Send queued messages until cancelled."""
        while True:
            await self._any.wait()
            self._any.clear()
            while self._unsent or self._texts or self._pictures:
                if self._unsent:
                    await self.connection.send(self._unsent.popleft())
                    self.delivered += 1
                elif self._texts:
                    await self.connection.send(self._texts.popleft())
                else:
                    await self.connection.send(self._pictures.popleft())


async def first(*work: Coroutine[Any, Any, object]) -> None:
    """Run all until the first one ends; raise its exception, if any."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
