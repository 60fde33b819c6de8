"""Serve streams from this process, without a cluster."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websocket_server
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from rtsep.realtime.scheduling import undisturbed
from rtsep.serve.host import PATH, Host, Page
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
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows raises KeyboardInterrupt instead
                asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await serve(host, listener, tls, started, ended)

    with undisturbed(ask=False):
        asyncio.run(until_signal())


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

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        headers = {
            name.lower(): request.headers.get_all(name) for name in dict.fromkeys(request.headers)
        }
        path = request.path.partition("?")[0]
        page = host.refusal(headers) if path == PATH else host.page(path, headers)
        return None if page is None else _response(page)

    host.replica.start(asyncio.get_running_loop())
    try:
        async with websocket_server(
            host.serve,
            sock=listener,
            ssl=tls,
            process_request=answer,
            create_connection=Connection,
            **WEBSOCKET,
        ):
            started()
            await first(ended.wait(), host.replica.failed.wait())
            if host.replica.error is not None:
                raise host.replica.error
            await host.drain()
    finally:
        host.replica.stop()


def _response(page: Page) -> Response:
    headers = Headers(HEADERS)
    headers["Content-Type"] = page.kind
    headers["Content-Length"] = str(len(page.body))
    return Response(page.status.value, page.status.phrase, headers, page.body)
