"""The server of a site: the streams of this process, or the way to those of others."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websocket_server
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from rtsep.realtime.scheduling import undisturbed
from rtsep.serve.host import Host
from rtsep.serve.site import PATH, Page, Site
from rtsep.ui.connection import first
from rtsep.ui.server import HEADERS, WEBSOCKET, Connection


def run(
    host: Host, listener: socket.socket, tls: ssl.SSLContext | None, started: Callable[[], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM; then the streams are handed over.

    Parameters
    ----------
    host
        The replica and its pages.
    listener, tls
        Of `rtsep.ui.server.listen` and `rtsep.ui.server.tls_context`; None for plain HTTP.
    started
        Function that is called when the server is ready.
    """

    async def until_signal() -> None:
        await serve(host, listener, tls, started, ended_by_signal())

    with undisturbed(ask=False):
        asyncio.run(until_signal())


def ended_by_signal() -> asyncio.Event:
    """Return an event of the running loop that Ctrl-C and SIGTERM set."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows raises KeyboardInterrupt instead
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


async def serve(
    host: Host,
    listener: socket.socket,
    tls: ssl.SSLContext | None,
    started: Callable[[], None],
    ended: asyncio.Event,
) -> None:
    """Serve until ``ended`` is set; otherwise as `run`.

    Raises
    ------
    BaseException
        The error that ended the thread of the replica.
    """
    host.replica.start(asyncio.get_running_loop())
    try:
        async with answering(host, listener, tls):
            started()
            await first(ended.wait(), host.replica.failed.wait())
            if host.replica.error is not None:
                raise host.replica.error
            await host.drain()
    finally:
        host.replica.stop()


@asynccontextmanager
async def answering(
    site: Site, listener: socket.socket, tls: ssl.SSLContext | None
) -> AsyncIterator[None]:
    """Answer requests for the duration of a ``with`` block; arguments as in `run`."""

    async def answer(connection: ServerConnection, request: Request) -> Response | None:
        headers = {
            name.lower(): request.headers.get_all(name) for name in dict.fromkeys(request.headers)
        }
        path = request.path.partition("?")[0]
        page = await site.admission(headers) if path == PATH else site.page(path, headers)
        return None if page is None else _response(page)

    async with websocket_server(
        site.serve,
        sock=listener,
        ssl=tls,
        process_request=answer,
        create_connection=Connection,
        **WEBSOCKET,
    ):
        yield


def _response(page: Page) -> Response:
    headers = Headers(HEADERS)
    headers["Content-Type"] = page.kind
    headers["Content-Length"] = str(len(page.body))
    if page.location is not None:
        headers["Location"] = page.location
    return Response(page.status.value, page.status.phrase, headers, page.body)
