"""The server of the page and its sessions, with limits on connections, sizes and times.

It uses the server of the websockets package, which enforces the limits set here. Plain requests are
answered with one of a few fixed files.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websocket_server
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from rtsep.errors import ServerError
from rtsep.realtime.scheduling import undisturbed
from rtsep.ui.connection import Talk
from rtsep.ui.guard import Guard
from rtsep.ui.protocol import MAX_MESSAGE, SUBPROTOCOL
from rtsep.version import __version__

CONNECTIONS = 64
"""Largest number of simultaneous connections; further ones are closed immediately."""
REQUEST_S = 5.0
"""A connection without a request within this time is closed, in seconds."""
PING_S = 10.0
"""Interval of pings, and longest time for a pong, in seconds."""
CLOSE_S = 2.0
"""Longest time in which a connection is closed, in seconds."""

_PACKAGE = Path(__file__).parents[1]
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".flac": "audio/flac",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Connection": "close",
}
"""Headers that forbid loading from other servers and framing the page."""

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # invalid requests are not logged
_log.propagate = False
WEBSOCKET: dict[str, Any] = {
    "subprotocols": [Subprotocol(SUBPROTOCOL)],
    "compression": None,  # sound hardly compresses, and it takes time
    "max_size": MAX_MESSAGE,
    "open_timeout": REQUEST_S,
    "ping_interval": PING_S,
    "ping_timeout": PING_S,
    "close_timeout": 1.0,
    "server_header": None,
    "logger": _log,
}
"""Options of the WebSockets of all servers."""


def listen(host: str, port: int) -> socket.socket:
    """Open the port; called before models are loaded, to report errors early.

    Raises
    ------
    ServerError
        The address is not available, or the port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ServerError(f"cannot listen on {host}, port {port}: {reason}") from None


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Read a certificate and its key.

    Raises
    ------
    ServerError
        The files can't be read, or don't belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never prompt
    except (OSError, ValueError) as error:
        raise ServerError(
            f"cannot use certificate {certificate} and key {key}: "
            f"{getattr(error, 'reason', None) or error}"
        ) from None
    return context


class Connection(ServerConnection):
    """A connection that closes in a limited time, also if the client reads nothing."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket, without its reply if that takes more than `CLOSE_S`."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await super().close(code, reason)
        except TimeoutError:
            self.transport.abort()


class Host(Protocol):
    """Creates the sessions of a server."""

    def facts(self) -> dict[str, Any]:
        """Return what a page needs before its session."""

    def session(self, connection: ServerConnection) -> Talk:
        """Create the session of a connection."""


class Server:
    """Serves the page and its sessions.

    Parameters
    ----------
    guard
        Checks requests.
    host
        Creates sessions.
    sessions
        Largest number of simultaneous sessions.
    complain
        Function that receives a message when a session fails by a fault of the server.
    """

    def __init__(
        self, guard: Guard, host: Host, sessions: int, complain: Callable[[str], None]
    ) -> None:
        self._guard, self._host, self._complain = guard, host, complain
        self._places = sessions
        self._connections = 0
        static = Path(__file__).parent / "static"
        files = {f"/static/{path.name}": path for path in static.iterdir()}
        files |= {"/": files.pop("/static/index.html"), "/demo.flac": _PACKAGE / "demo.flac"}
        self._files = {
            name: (_TYPES[path.suffix], path.read_bytes())
            for name, path in files.items()
            if path.suffix in _TYPES
        }

    def run(
        self, listener: socket.socket, tls: ssl.SSLContext | None, started: Callable[[], None]
    ) -> None:
        """Serve until Ctrl-C.

        Parameters
        ----------
        listener
            Socket of `listen`.
        tls
            Context of `tls_context`; plain HTTP if None.
        started
            Function that is called when the server is ready.
        """

        async def serve() -> None:
            ended = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                with suppress(NotImplementedError):  # Windows raises KeyboardInterrupt instead
                    asyncio.get_running_loop().add_signal_handler(number, ended.set)
            await self._serve(listener, tls, started, ended)

        with undisturbed(ask=False):
            asyncio.run(serve())

    @contextmanager
    def beside(self, listener: socket.socket, tls: ssl.SSLContext | None) -> Iterator[None]:
        """Serve in another thread for the duration of a ``with`` block; otherwise as `run`."""
        loop, ended = asyncio.new_event_loop(), asyncio.Event()

        def answer() -> None:
            try:
                with asyncio.Runner(loop_factory=lambda: loop) as runner:
                    runner.run(self._serve(listener, tls, begun.set, ended))
            finally:
                begun.set()

        begun = threading.Event()
        thread = threading.Thread(target=answer, name="rtsep panel", daemon=True)
        thread.start()
        begun.wait()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()

    async def _serve(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        started: Callable[[], None],
        ended: asyncio.Event,
    ) -> None:
        async with websocket_server(
            self._session,
            sock=listener,
            ssl=tls,
            process_request=self._answer,
            create_connection=self._connection_type(),
            **WEBSOCKET,
        ):
            started()
            await ended.wait()

    def _connection_type(self) -> type[ServerConnection]:
        """Return a class of connections that closes those above `CONNECTIONS`."""
        owner = self

        class Counted(Connection):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                owner._connections += 1
                if owner._connections > CONNECTIONS:
                    transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                owner._connections -= 1
                super().connection_lost(exc)

        return Counted

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a plain request, or reject a session; None accepts the session."""
        headers = request.headers
        host = _only(headers, "Host")
        if not self._guard.knows_host(host):
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
        path = request.path.partition("?")[0]
        if path == "/session":
            return self._refused(headers, host)
        if path == "/models":
            scheme, _, token = (_only(headers, "Authorization") or "").partition(" ")
            if not self._guard.knows_token(token if scheme.lower() == "bearer" else None):
                return _refusal(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
            facts = {**self._host.facts(), "version": __version__, "places": self._places}
            return _response(HTTPStatus.OK, "application/json", json.dumps(facts).encode())
        if path in self._files:
            return _response(HTTPStatus.OK, *self._files[path])
        return _refusal(HTTPStatus.NOT_FOUND, "there is no such page")

    def _refused(self, headers: Headers, host: str | None) -> Response | None:
        """Return the rejection of a session, or None."""
        offered = [
            name.strip()
            for line in headers.get_all("Sec-WebSocket-Protocol")
            for name in line.split(",")
        ]
        token = next((name for name in offered if name != SUBPROTOCOL), None)
        if not self._guard.knows_origin(_only(headers, "Origin"), host):
            return _refusal(HTTPStatus.FORBIDDEN, "only this server's own page may connect")
        if not self._guard.knows_token(token):
            return _refusal(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        if not self._places:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "all sessions are taken")
        return None

    async def _session(self, connection: ServerConnection) -> None:
        if not self._places:  # the last one was taken since the request
            await connection.close(1013, "all sessions are taken")
            return
        self._places -= 1
        try:
            await self._host.session(connection).run()
        except Exception as error:
            self._complain(f"a session failed: {type(error).__name__}: {error}")
        finally:
            self._places += 1


def _only(headers: Headers, name: str) -> str | None:
    """Return the value of a header that occurs exactly once, else None."""
    values = headers.get_all(name)
    return values[0] if len(values) == 1 else None


def _response(status: HTTPStatus, kind: str, body: bytes) -> Response:
    headers = Headers(HEADERS)
    headers["Content-Type"] = kind
    headers["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, headers, body)


def _refusal(status: HTTPStatus, why: str) -> Response:
    return _response(status, "text/plain; charset=utf-8", f"{why}\n".encode())
