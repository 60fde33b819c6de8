"""The front of a cluster: starts and ends replicas, and sends each stream to one of them.

It answers the request of a WebSocket with the address of a replica, so that sound goes there
without a detour; a proxy, such as that of Ray Serve, would pass on each packet.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from rtsep.errors import RtsepError
from rtsep.serve.actor import Actor, Plan
from rtsep.serve.replica import Figures
from rtsep.serve.site import Page, Site, text
from rtsep.ui.guard import Guard

TICK_S = 1.0
"""Interval at which the front looks at the replicas, in seconds."""
ANSWER_S = 1.0
"""A replica that does not answer in this time gets no streams, in seconds."""
LOST_S = 10.0
"""A replica that does not answer for this time is replaced, and one that can't be started is tried
again after it, in seconds."""
DRAIN_S = 15.0
"""Longest time in which a replica hands its streams over, in seconds."""
SPARE_S = 60.0
"""A replica ends when it has not been needed for this time, in seconds."""
FULL = 0.75
"""Share of taken places above which another replica is started."""


@dataclass(eq=False)
class Member:
    """A replica as the front knows it.

    Attributes
    ----------
    number, actor
        Its number, and the handle of its `rtsep.serve.actor.Actor`.
    address, node, models
        Results of `Actor.start`, empty until it is there.
    figures
        Its last report.
    answered
        Time of that, by `time.monotonic`.
    sent, opened
        Streams sent to it in this tick, and those begun there before.
    leaving
        Whether it hands its streams over.
    """

    number: int
    actor: Any
    address: str = ""
    node: str = ""
    models: Sequence[str] = ()
    figures: Figures = field(default_factory=Figures)
    answered: float = 0.0
    sent: int = 0
    opened: int = 0
    leaving: bool = False

    def taken(self, sent: int) -> int:
        """Return how many places are taken, also by the first ``sent`` streams of this tick."""
        return self.figures.streams + max(0, sent - (self.figures.opened - self.opened))


class Front(Site):
    """Starts and ends replicas as the streams need, and sends streams to them.

    Parameters
    ----------
    plan
        What is served.
    complain
        Function that receives a message when a replica fails.
    spare_s
        A replica ends when it has not been needed for this time, in seconds.
    """

    def __init__(
        self, plan: Plan, complain: Callable[[str], None], spare_s: float = SPARE_S
    ) -> None:
        super().__init__(Guard(plan.host, plan.token))
        self._plan, self._complain, self._spare_s = plan, complain, spare_s
        self._members: dict[int, Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._needed, self._again = time.monotonic(), -math.inf

    def models(self) -> list[str]:
        """Return the names of the models."""
        return list(next((member.models for member in self._ready()), ()))

    def reports(self) -> dict[str, Figures]:
        """Return the figures of the replicas, at most `TICK_S` old."""
        return {str(member.number): member.figures for member in self._ready()}

    async def admission(self, headers: Mapping[str, Sequence[str]]) -> Page | None:
        """Return the refusal of a stream, or the address of the replica with the most places."""
        refusal = await super().admission(headers)
        if refusal is not None:
            return refusal
        staying = [member for member in self._ready() if not member.leaving]
        while staying:
            member = min(staying, key=lambda each: each.taken(each.sent))
            staying.remove(member)
            before, member.sent = member.sent, member.sent + 1
            if await self._answers(member) and member.taken(before) < member.figures.places:
                page = text(HTTPStatus.TEMPORARY_REDIRECT, "a replica takes the stream")
                return page._replace(location=member.address)
            member.sent -= 1
        return text(HTTPStatus.SERVICE_UNAVAILABLE, "the server takes no more streams now")

    async def start(self) -> None:
        """Start the first replica.

        Raises
        ------
        RtsepError
            It can't be started.
        """
        try:
            await self._start(0)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, RtsepError) else error from None

    async def watch(self) -> None:
        """Look after the replicas until cancelled."""
        while True:
            ready = self._ready()
            await asyncio.gather(*(self._answers(member) for member in ready))
            for member in ready:
                member.sent, member.opened = 0, member.figures.opened
                if time.monotonic() - member.answered > LOST_S:
                    self._lose(member, "it does not answer")
            self._scale()
            await asyncio.sleep(TICK_S)

    async def close(self) -> None:
        """Hand all streams over and end the replicas."""
        await asyncio.gather(*(self._end(member) for member in self._ready()))

    def _ready(self) -> list[Member]:
        return [member for member in self._members.values() if member.address]

    async def _answers(self, member: Member) -> bool:
        """Ask a replica for its figures; return whether it answers."""
        try:
            member.figures = await asyncio.wait_for(member.actor.report.remote(), ANSWER_S)
        except (ActorDiedError, RayTaskError) as error:
            self._lose(member, str(error))
            return False
        except (RayError, TimeoutError):
            return False
        member.answered = time.monotonic()
        return True

    def _scale(self) -> None:
        """Start the replicas that are needed; end one that has not been needed for long."""
        plan, now = self._plan, time.monotonic()
        staying = [member for member in self._members.values() if not member.leaving]
        streams = sum(member.figures.streams for member in staying)
        low, high = plan.replicas
        wanted = min(max(math.ceil(streams / (FULL * plan.places)), low), high)
        free = (number for number in itertools.count() if number not in self._members)
        missing = max(0, wanted - len(staying)) if now > self._again else 0
        for number in itertools.islice(free, missing):
            self._do(self._start(number), f"replica {number} can't be started")
        if wanted >= len(staying) or not all(member.address for member in staying):
            self._needed = now
        elif now - self._needed > self._spare_s:
            emptiest = min(staying, key=lambda member: member.figures.streams)
            self._do(self._end(emptiest), f"replica {emptiest.number} does not end")
            self._needed = now

    def _do(self, work: Coroutine[Any, Any, None], failure: str) -> None:
        """Run a coroutine beside; complain if it fails."""

        async def done() -> None:
            try:
                await work
            except RayError as error:
                self._complain(f"{failure}: {error}")

        task = asyncio.ensure_future(done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, number: int) -> None:
        """Start a replica, on the machine that has the fewest."""
        actor = ray.remote(Actor).options(num_cpus=1, scheduling_strategy="SPREAD")
        member = self._members[number] = Member(number, actor.remote(self._plan, number))
        try:
            found = await member.actor.start.remote()
        except BaseException:
            self._remove(member)
            self._again = time.monotonic() + LOST_S
            raise
        member.address, member.node, member.models = found
        await self._answers(member)
        self._introduce()

    async def _end(self, member: Member) -> None:
        """Let a replica hand its streams over, and end it."""
        member.leaving = True
        self._introduce()
        with suppress(RayError, TimeoutError):
            await asyncio.wait_for(member.actor.drain.remote(), DRAIN_S)
        self._remove(member)

    def _lose(self, member: Member, why: str) -> None:
        """Forget a replica that has failed."""
        if self._members.get(member.number) is member and not member.leaving:
            self._complain(f"replica {member.number} is lost: {why}")
            self._remove(member)

    def _remove(self, member: Member) -> None:
        """End a replica at once, if it is there."""
        if self._members.get(member.number) is member:
            del self._members[member.number]
            ray.kill(member.actor)
            self._introduce()

    def _introduce(self) -> None:
        """Tell all replicas of the others that stay."""
        ready = self._ready()
        for member in ready:
            others = [o for o in ready if o is not member and not o.leaving]
            member.actor.know.remote([(other.actor, other.node) for other in others])
