"""The server of the page and its sessions, with limits on what strangers can take of it.

It is the one of the websockets package, which keeps the sizes and times that are set here and waits
for browsers that read slowly; it answers plain requests too, all with one of a few fixed files.
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
"""At the same time, whatever they are for; more are closed at once."""
REQUEST_S = 5.0
"""A connection that has not brought its request by then is closed."""
PING_S = 10.0
"""Between questions whether a browser is still there, and longest wait for an answer."""

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
"""Nothing from elsewhere is loaded, and nobody frames the page that holds the microphone."""

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # what strangers send is nothing to be told of
_log.propagate = False


def listen(host: str, port: int) -> socket.socket:
    """Open the port, so that what is wrong with it is known before anything is loaded.

    Raises
    ------
    ServerError
        There is no such address here, or the port is taken.
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
        They can't be read, or don't belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # ask for nothing
    except (OSError, ValueError) as error:
        raise ServerError(
            f"cannot use certificate {certificate} and key {key}: "
            f"{getattr(error, 'reason', None) or error}"
        ) from None
    return context


class Host(Protocol):
    """What browsers come for."""

    def facts(self) -> dict[str, Any]:
        """Return what a page needs to know before it has a session."""

    def session(self, connection: ServerConnection) -> Talk:
        """Make a session."""


class Server:
    """Answer requests.

    Parameters
    ----------
    guard
        Who may ask.
    host
        Makes sessions.
    sessions
        At the same time.
    complain
        Called with a sentence when a session fails for a reason of our own.
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
        """Answer until Ctrl-C.

        Parameters
        ----------
        listener
            Of `listen`.
        tls
            Of `tls_context`; plain HTTP if None.
        started
            Called when requests are answered.
        """

        async def serve() -> None:
            ended = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                with suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
                    asyncio.get_running_loop().add_signal_handler(number, ended.set)
            await self._serve(listener, tls, started, ended)

        with undisturbed(ask=False):
            asyncio.run(serve())

    @contextmanager
    def beside(self, listener: socket.socket, tls: ssl.SSLContext | None) -> Iterator[None]:
        """Answer in another thread as long as a ``with`` block lasts; else as `run`."""
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
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            create_connection=self._connection_type(),
            compression=None,  # sound does not get smaller, and it takes time
            max_size=MAX_MESSAGE,
            open_timeout=REQUEST_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=1.0,
            server_header=None,
            logger=_log,
        ):
            started()
            await ended.wait()

    def _connection_type(self) -> type[ServerConnection]:
        """Make connections that are counted, and closed at once where there are too many."""
        owner = self

        class Counted(ServerConnection):
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
        """Answer a plain request, or refuse what may have no session; None is a session."""
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
        """Say why a browser may have no session, if so."""
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
        if not self._places:  # taken since the request
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
    """Return the value of a header that is there exactly once."""
    values = headers.get_all(name)
    return values[0] if len(values) == 1 else None


def _response(status: HTTPStatus, kind: str, body: bytes) -> Response:
    headers = Headers(HEADERS)
    headers["Content-Type"] = kind
    headers["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, headers, body)


def _refusal(status: HTTPStatus, why: str) -> Response:
    return _response(status, "text/plain; charset=utf-8", f"{why}\n".encode())
