"""A replica on a machine of a Ray cluster: an actor with a server of its own.

Each second the snapshots of its streams go to the memory of another replica, on another machine if
there is one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import ray
from ray.exceptions import RayError

from rtsep.realtime.scheduling import undisturbed
from rtsep.runtime.engine import DEFAULT, StemOptions
from rtsep.serve.host import Host
from rtsep.serve.keeper import Kept, Memory
from rtsep.serve.replica import Figures
from rtsep.serve.server import serve
from rtsep.serve.site import PATH
from rtsep.ui.guard import Guard, is_loopback
from rtsep.ui.server import listen, tls_context

FETCH_S = 0.5
"""Longest time in which a snapshot is looked for, or waited for, in seconds."""

Others = Sequence[tuple[Any, str]]
"""Replicas: handles of `Actor` with the nodes that they are on."""


@dataclass(frozen=True)
class Plan:
    """What is served.

    Attributes
    ----------
    host, port, token
        Where the front listens, and the token that clients need. Replica n listens on port + 1 + n,
        on any free port if ``port`` is 0.
    certificate, key
        Files for https, on each machine; plain HTTP without them.
    models, places, options
        As in `rtsep.serve.replica.Replica`.
    replicas
        Smallest and largest number of replicas; each takes one core.
    """

    host: str
    port: int
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    models: Sequence[str | None] = (None,)
    places: int = 16
    replicas: tuple[int, int] = (1, 1)
    options: StemOptions = DEFAULT

    def tls(self) -> ssl.SSLContext | None:
        """Return the context of servers; see `rtsep.ui.server.tls_context`."""
        if self.certificate is None:
            return None
        return tls_context(self.certificate, self.key or self.certificate)


class Peers:
    """Keeps snapshots in other replicas, on another machine if there is one.

    Attributes
    ----------
    memory
        The snapshots of other replicas, and its own ones while there is no other replica.
    """

    def __init__(self) -> None:
        self.memory = Memory()
        self._all: list[Any] = []
        self._used: list[Any] = []
        self._sent: dict[str, Any] = {}

    def know(self, others: Others, node: str) -> None:
        """Use these replicas; ``node`` is that of this one."""
        self._all = [actor for actor, _ in others]
        self._used = [actor for actor, other in others if other != node] or self._all

    def keep(self, stream: str, number: int, state: bytes) -> None:
        """Send a snapshot to another replica, without waiting."""
        if used := self._used:
            actor = used[crc32(stream.encode()) % len(used)]
            self._sent[stream] = actor.keep.remote(stream, number, state)
        else:
            self.memory.keep(stream, number, state)

    def drop(self, stream: str) -> None:
        """Forget a stream everywhere, without waiting."""
        self.memory.drop(stream)
        self._sent.pop(stream, None)
        for actor in self._all:
            actor.drop.remote(stream)

    async def delivered(self, stream: str) -> None:
        """Wait until the last snapshot of a stream is there."""
        sent = self._sent.pop(stream, None)
        if sent is not None:
            with suppress(RayError, TimeoutError):  # the other replica has ended
                await asyncio.wait_for(sent, FETCH_S)

    async def fetch(self, stream: str) -> bytes | None:
        """Return the newest snapshot of all replicas."""
        found = [self.memory.find(stream)]
        if self._all:
            asked = [asyncio.ensure_future(_found(actor, stream)) for actor in self._all]
            done, late = await asyncio.wait(asked, timeout=FETCH_S)
            for task in late:
                task.cancel()
            found += [task.result() for task in done]
        kept = [each for each in found if each is not None]
        return max(kept).state if kept else None


async def _found(actor: Any, stream: str) -> Kept | None:
    with suppress(RayError):  # it has ended
        kept: Kept | None = await actor.find.remote(stream)
        return kept
    return None


class Actor:
    """A replica with its server, in a process of Ray.

    Parameters
    ----------
    plan
        What is served.
    number
        Its number.
    """

    def __init__(self, plan: Plan, number: int) -> None:
        self._plan, self._number = plan, number
        self._peers, self._node = Peers(), ray.get_runtime_context().get_node_id()

    async def start(self) -> tuple[str, str, list[str]]:
        """Start the server; return its address, its node and the names of the models.

        Raises
        ------
        BundleError, ServerError
            A model can't be run, or the port is in use.
        """
        plan = self._plan
        own = plan.host if is_loopback(plan.host) else ray.util.get_node_ip_address()
        listener, tls = listen(own, plan.port and plan.port + 1 + self._number), plan.tls()
        guard, peers = Guard(own, plan.token), self._peers
        self._host = await asyncio.to_thread(
            Host, guard, plan.models, plan.places, peers, print, plan.options
        )
        self._ended, started = asyncio.Event(), asyncio.Event()
        self._task = asyncio.ensure_future(self._serve(listener, tls, started))
        await started.wait()
        scheme = "ws" if plan.certificate is None else "wss"
        host = f"[{own}]" if ":" in own else own
        address = f"{scheme}://{host}:{listener.getsockname()[1]}{PATH}"
        return address, self._node, self._host.models()

    async def _serve(
        self, listener: socket.socket, tls: ssl.SSLContext | None, started: asyncio.Event
    ) -> None:
        with undisturbed(ask=False):
            await serve(self._host, listener, tls, started.set, self._ended)

    async def report(self) -> Figures:
        """Return the figures; raise the error that ended the server, if any."""
        if self._task.done():
            self._task.result()
        return self._host.replica.report()

    async def drain(self) -> None:
        """Hand the streams over and end the server."""
        self._ended.set()
        await self._task

    async def know(self, others: Others) -> None:
        """Learn of the other replicas."""
        self._peers.know(others, self._node)

    async def keep(self, stream: str, number: int, state: bytes) -> None:
        """Keep a snapshot of another replica."""
        self._peers.memory.keep(stream, number, state)

    async def drop(self, stream: str) -> None:
        """Forget a stream of another replica."""
        self._peers.memory.drop(stream)

    async def find(self, stream: str) -> Kept | None:
        """Return the snapshot of a stream, if it is here."""
        return self._peers.memory.find(stream)
