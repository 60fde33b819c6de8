"""What a server of streams answers, whichever library receives the requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from rtsep.runtime.engine import DEFAULT, StemOptions
from rtsep.serve import metrics
from rtsep.serve.keeper import Keeper
from rtsep.serve.replica import Figures, Replica
from rtsep.serve.session import RESTART, Session
from rtsep.serve.stream import Stream
from rtsep.ui.connection import Socket
from rtsep.ui.guard import Guard
from rtsep.ui.protocol import SUBPROTOCOL
from rtsep.version import __version__

PATH = "/session"
"""Path of WebSockets."""


class Page(NamedTuple):
    """Answer to a request."""

    status: HTTPStatus
    kind: str
    body: bytes


class Host:
    """A replica, its sessions and its pages.

    Parameters
    ----------
    guard
        Checks requests.
    models, places, keeper, options
        As in `rtsep.serve.replica.Replica`.
    complain
        Function that receives a message when a session fails by a fault of the server.

    Attributes
    ----------
    replica
        The replica.
    """

    def __init__(
        self,
        guard: Guard,
        models: Sequence[str | None],
        places: int,
        keeper: Keeper,
        complain: Callable[[str], None],
        options: StemOptions = DEFAULT,
    ) -> None:
        self._guard, self._complain = guard, complain
        self._sessions: dict[str, Session] = {}
        self.replica = Replica(models, places, keeper, self._answer, options)

    def _answer(self, stream: Stream, reply: bytes) -> None:
        session = self._sessions.get(stream.name)
        if session is not None:
            session.reply(reply)

    def refusal(self, headers: Mapping[str, Sequence[str]]) -> Page | None:
        """Return the rejection of a WebSocket by its headers, or None.

        Parameters
        ----------
        headers
            All values of each header, by its name in small letters.
        """
        host, origin = _only(headers, "host"), _only(headers, "origin")
        offered = [
            name.strip()
            for line in headers.get("sec-websocket-protocol", ())
            for name in line.split(",")
        ]
        token = next((name for name in offered if name != SUBPROTOCOL), None)
        if not self._guard.knows_token(token):
            return _text(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        if self._guard.token is None and (
            not self._guard.knows_host(host)
            or (origin is not None and not self._guard.knows_origin(origin, host))
        ):
            return _text(HTTPStatus.FORBIDDEN, "pages of other sites need a token")
        return None

    async def serve(self, socket: Socket) -> None:
        """Serve an admitted WebSocket until it is closed."""
        try:
            await Session(socket, self.replica, self._sessions).run()
        except Exception as error:
            self._complain(f"a session failed: {type(error).__name__}: {error}")

    def page(self, path: str, headers: Mapping[str, Sequence[str]]) -> Page:
        """Answer a plain request; arguments as in `refusal`."""
        if path == "/health":
            error = self.replica.error
            if error is not None:
                return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "the replica has failed")
            if self.replica.figures.draining:
                return _text(HTTPStatus.SERVICE_UNAVAILABLE, "the server is draining")
            return _text(HTTPStatus.OK, "ok")
        if path not in ("/metrics", "/models"):
            return _text(HTTPStatus.NOT_FOUND, "there is no such page")
        scheme, _, token = (_only(headers, "authorization") or "").partition(" ")
        if not self._guard.knows_token(token if scheme.lower() == "bearer" else None):
            return _text(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        if path == "/metrics":
            return Page(HTTPStatus.OK, metrics.TYPE, metrics.text(self.reports()))
        figures = self.replica.figures
        facts = {
            "models": list(self.replica.batches),
            "places": figures.places - figures.streams,
            "version": __version__,
        }
        return Page(HTTPStatus.OK, "application/json", json.dumps(facts).encode())

    def reports(self) -> dict[str, Figures]:
        """Return the figures of all replicas by name."""
        return {"0": self.replica.report()}

    async def drain(self) -> None:
        """Take no more streams and hand the old ones over, after what has arrived of them."""
        self.replica.figures.draining = True
        reason = "the server ends: the stream can go on elsewhere"
        await asyncio.gather(*(s.leave(RESTART, reason) for s in list(self._sessions.values())))


def _only(headers: Mapping[str, Sequence[str]], name: str) -> str | None:
    """Return the value of a header that occurs exactly once, else None."""
    values = headers.get(name, ())
    return values[0] if len(values) == 1 else None


def _text(status: HTTPStatus, words: str) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{words}\n".encode())
