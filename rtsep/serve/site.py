"""What a server of streams answers to requests, with or without streams of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from rtsep.serve import metrics
from rtsep.serve.replica import Figures
from rtsep.ui.connection import Socket
from rtsep.ui.guard import Guard
from rtsep.ui.protocol import SUBPROTOCOL
from rtsep.version import __version__

PATH = "/session"
"""Path of WebSockets."""


class Page(NamedTuple):
    """Answer to a request.

    Attributes
    ----------
    status, kind, body
        Status, media type and content.
    location
        Address at which the request is to be made, if not here.
    """

    status: HTTPStatus
    kind: str
    body: bytes
    location: str | None = None


class Site:
    """The pages of a server, and whom it admits.

    Parameters
    ----------
    guard
        Checks requests.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def models(self) -> list[str]:
        """Return the names of the models."""
        raise NotImplementedError

    def reports(self) -> dict[str, Figures]:
        """Return the figures of all replicas by name."""
        raise NotImplementedError

    async def serve(self, socket: Socket) -> None:
        """Serve an admitted WebSocket until it is closed."""
        raise NotImplementedError

    async def admission(self, headers: Mapping[str, Sequence[str]]) -> Page | None:
        """Return the answer to the request of a WebSocket; None admits it.

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
            return text(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        if self._guard.token is None and (
            not self._guard.knows_host(host)
            or (origin is not None and not self._guard.knows_origin(origin, host))
        ):
            return text(HTTPStatus.FORBIDDEN, "pages of other sites need a token")
        return None

    def page(self, path: str, headers: Mapping[str, Sequence[str]]) -> Page:
        """Answer a plain request; ``headers`` as in `admission`."""
        reports = self.reports()
        if path == "/health":
            if all(figures.draining for figures in reports.values()):
                return text(HTTPStatus.SERVICE_UNAVAILABLE, "the server takes no streams")
            return text(HTTPStatus.OK, "ok")
        if path not in ("/metrics", "/models"):
            return text(HTTPStatus.NOT_FOUND, "there is no such page")
        scheme, _, token = (_only(headers, "authorization") or "").partition(" ")
        if not self._guard.knows_token(token if scheme.lower() == "bearer" else None):
            return text(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        if path == "/metrics":
            return Page(HTTPStatus.OK, metrics.TYPE, metrics.text(reports))
        facts = {
            "models": self.models(),
            "places": sum(each.places - each.streams for each in reports.values()),
            "version": __version__,
        }
        return Page(HTTPStatus.OK, "application/json", json.dumps(facts).encode())


def text(status: HTTPStatus, words: str) -> Page:
    """Return a page of one line."""
    return Page(status, "text/plain; charset=utf-8", f"{words}\n".encode())


def _only(headers: Mapping[str, Sequence[str]], name: str) -> str | None:
    """Return the value of a header that occurs exactly once, else None."""
    values = headers.get(name, ())
    return values[0] if len(values) == 1 else None
