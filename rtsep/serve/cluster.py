"""Serve streams on the machines of a Ray cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable

import ray

from rtsep.errors import ServerError
from rtsep.serve.actor import Plan
from rtsep.serve.front import Front
from rtsep.serve.server import answering, ended_by_signal
from rtsep.ui.connection import first
from rtsep.ui.guard import is_loopback


def run(
    plan: Plan,
    address: str,
    listener: socket.socket,
    started: Callable[[list[str]], None],
    complain: Callable[[str], None],
) -> None:
    """Serve on a Ray cluster until Ctrl-C or SIGTERM; then the streams are handed over.

    Parameters
    ----------
    plan, complain
        As in `Front`.
    address
        Of the cluster; ``"auto"`` for that of this machine, ``"local"`` for a new one of this
        machine alone.
    listener
        Socket of `rtsep.ui.server.listen`.
    started
        Function that is called with the names of the models when the first replica is ready.

    Raises
    ------
    RtsepError
        There is no such cluster, its machines can't be reached, or no replica can be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ServerError(f"there is no Ray cluster at {address}: {reason}") from None
    try:
        machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        if is_loopback(plan.host) and len(machines) > 1:
            raise ServerError(
                f"replicas on {len(machines)} machines can't be reached at {plan.host}: "
                "add --host 0.0.0.0 --token auto"
            )
        asyncio.run(_until_signal(plan, listener, started, complain))
    finally:
        ray.shutdown()


async def _until_signal(
    plan: Plan,
    listener: socket.socket,
    started: Callable[[list[str]], None],
    complain: Callable[[str], None],
) -> None:
    front = Front(plan, complain)
    await serve_front(
        front, listener, plan.tls(), lambda: started(front.models()), ended_by_signal()
    )


async def serve_front(
    front: Front,
    listener: socket.socket,
    tls: ssl.SSLContext | None,
    started: Callable[[], None],
    ended: asyncio.Event,
) -> None:
    """Serve until ``ended`` is set, on the cluster that Ray is connected to."""
    await first(front.start(), ended.wait())
    if ended.is_set():
        return
    async with answering(front, listener, tls):
        started()
        await first(front.watch(), ended.wait())
        await front.close()
