"""Open the web panel's server for the command line."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from rtsep.cli import fail
from rtsep.errors import ExtraError
from rtsep.realtime.builder import Stream
from rtsep.runtime.engine import StemOptions
from rtsep.ui.guard import Guard, is_loopback, token_for


class Panel:
    """The open port of the panel, with its access rules.

    Parameters
    ----------
    host, port
        Address and port to listen on.
    token
        As in `rtsep.ui.guard.token_for`.
    sessions
        Largest number of simultaneous browsers.
    certificate, key
        Files for https; plain HTTP if not given.

    Raises
    ------
    ExtraError, GuardError, ServerError
        The server can't be opened with these settings.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None,
        sessions: int,
        certificate: Path | None,
        key: Path | None,
    ) -> None:
        self._token, self._host, self._sessions = token_for(host, token), host, sessions
        try:
            from rtsep.ui.server import listen, tls_context
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("websockets"):
                raise
            raise ExtraError(
                "rtsep ui needs websockets: install it with pip install 'rtsep[ui]'"
            ) from None
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = tls_context(certificate, key or certificate)
        self._listener = listen(host, port)

    def close(self) -> None:
        """Close the port."""
        self._listener.close()

    def say(self, what: str, microphone: bool) -> None:
        """Print the address, and a hint if browsers do not allow the microphone there."""
        port = self._listener.getsockname()[1]
        address = printed(self._host, port, self._token, self._tls is not None)
        click.echo(f"{what}: open {address}")
        if microphone and self._tls is None and not is_loopback(self._host):
            click.echo(
                "browsers allow the microphone on https pages only: add --certificate and --key"
            )

    def serve(self, model: str | None, options: StemOptions) -> None:
        """Separate the sound of browsers until Ctrl-C."""
        from rtsep.ui.browser_session import Browsers
        from rtsep.ui.server import Server
        from rtsep.ui.session_worker import Pool

        pool = Pool(model, self._sessions, options)

        def say() -> None:
            self.say(pool.default, microphone=True)
            click.echo("Ctrl-C stops")

        server = Server(Guard(self._host, self._token), Browsers(pool), self._sessions, fail)
        server.run(self._listener, self._tls, say)

    @contextmanager
    def showing(self, stream: Stream) -> Iterator[None]:
        """Show a stream of this machine for the duration of a ``with`` block."""
        from rtsep.ui.device_session import Station
        from rtsep.ui.server import Server

        server = Server(Guard(self._host, self._token), Station(stream), self._sessions, fail)
        with server.beside(self._listener, self._tls):
            self.say(stream.control.loaded.name, microphone=False)
            yield


def printed(host: str, port: int, token: str | None, tls: bool) -> str:
    """Return the address of a server, with its token."""
    fragment = "" if token is None else f"#token={token}"
    return f"http{'s' * tls}://{_named(host)}:{port}/{fragment}"


def _named(host: str) -> str:
    """Return a host as it is written in an address; this machine's own for "any"."""
    if host in ("0.0.0.0", "::"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # sends nothing, but selects the outgoing interface
                host = str(probe.getsockname()[0])
            except OSError:
                host = socket.gethostname()
    return f"[{host}]" if ":" in host else host
