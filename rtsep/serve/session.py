"""The connection of a stream: who sends too fast or reads too slowly is told, then closed."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from rtsep.errors import PlaceError, ProtocolError
from rtsep.serve.protocol import End, Greeting, Reset, parse_greeting, parse_request
from rtsep.serve.replica import Replica
from rtsep.serve.stream import Stream
from rtsep.ui.connection import Socket, Talk, first
from rtsep.ui.protocol import frame_number

SILENT_S = 30.0
"""A stream is closed after this time without sound, in seconds."""
EMPTIED_S = 5.0
"""Longest time for the last replies of a stream that goes on elsewhere, in seconds."""
POLICY, RESTART, LATER = 1008, 1012, 1013
"""Codes with which a connection is closed: a broken rule; go on elsewhere; try again later."""


class Session(Talk):
    """Serves the stream of one connection.

    Parameters
    ----------
    connection
        Connection of an admitted client.
    replica
        Where it is separated.
    sessions
        All sessions by the name of their stream; this one is added while it runs.
    """

    def __init__(self, connection: Socket, replica: Replica, sessions: dict[str, Session]) -> None:
        super().__init__(connection)
        self._replica, self._sessions = replica, sessions
        self._leaving: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._received = self._answered = 0
        self._told = False

    async def serve(self) -> None:
        """Serve the stream.

        Raises
        ------
        ProtocolError
            The client broke a rule.
        """
        greeting = parse_greeting(await self.hello())
        name = greeting.stream or secrets.token_urlsafe(16)
        while (former := self._sessions.get(name)) is not None:
            await former.leave(POLICY, "the stream goes on in another connection")
        self._sessions[name] = self
        try:
            stream = await self._replica.open(name, greeting)
            await self._talk(stream, greeting)
        except PlaceError as error:
            await self.connection.close(LATER, str(error))
        finally:
            del self._sessions[name]
            self._ended.set()

    async def _talk(self, stream: Stream, greeting: Greeting) -> None:
        keep, finish = True, False
        self.say("ready", **stream.described())
        sender = asyncio.ensure_future(self.send())
        try:
            await first(self._receive(stream, greeting), self._until(self._leaving, sender))
            keep = finish = self._leaving.done()
        except TimeoutError:
            finish = True
            self._leaving.set_result((RESTART, "no sound arrived for too long"))
        except ProtocolError as error:
            self._replica.figures.closed += 1
            self.say("problem", text=str(error))
            keep = False
            raise
        finally:
            await asyncio.shield(self._replica.close(stream, keep, finish))
            if finish or not keep:
                await self._emptied(sender)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        if finish:
            await self.connection.close(*self._leaving.result())

    async def leave(self, code: int, reason: str) -> None:
        """Separate what has arrived, then close the connection; the stream can go on elsewhere."""
        if not self._leaving.done():
            self._leaving.set_result((code, reason))
        await self._ended.wait()

    def reply(self, message: bytes) -> None:
        """Queue a reply."""
        self._answered += 1
        self.answer(message, self._answered)

    async def _receive(self, stream: Stream, greeting: Greeting) -> None:
        """Receive until the client ends the stream."""
        newest = greeting.next - 1
        while True:
            async with asyncio.timeout(SILENT_S):
                message = await self.connection.recv()
            if isinstance(message, bytes):
                number = frame_number(message, greeting.hello)
                if number <= newest:
                    raise ProtocolError("the numbers of frames must increase")
                newest = number
                self._received += 1
                self._check(stream.window)
                self._replica.put(stream, number, message)
                continue
            self.allow_command()
            request = parse_request(message)
            if isinstance(request, End):
                return
            if isinstance(request, Reset):
                self._replica.reset(stream)
            elif not stream.control(request):
                self.say("problem", text="the model has no such source")

    def _check(self, window: int) -> None:
        """Check the number of frames without a reply that was sent.

        Raises
        ------
        ProtocolError
            There are twice as many as allowed.
        """
        waiting = self._received - self.delivered
        if waiting <= window:
            self._told = False
            return
        slow = self._answered - self.delivered > waiting // 2
        what = "replies are read too slowly" if slow else "sound comes too fast"
        if waiting > 2 * window:
            raise ProtocolError(what)
        if not self._told:
            self._told = True
            self.say("problem", text=f"{what}: at most {window} frames may be without a reply")

    async def _until(self, future: asyncio.Future[Any], sender: asyncio.Future[None]) -> None:
        """Wait for a future; raise the error that ended the sender, if that is first."""
        await asyncio.wait([future, sender], return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            sender.result()

    async def _emptied(self, sender: asyncio.Future[None]) -> None:
        """Wait until everything is sent, while that is possible."""
        end = asyncio.get_running_loop().time() + EMPTIED_S
        while not sender.done() and asyncio.get_running_loop().time() < end:
            if self.delivered == self._answered and not self._texts:
                return
            await asyncio.sleep(0.005)
