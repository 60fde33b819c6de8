"""The front of a cluster, with replicas that only report."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'rtsep[serve]'")
pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")
from ray.exceptions import ActorUnavailableError

from rtsep.serve.actor import Plan
from rtsep.serve.front import Front, Member
from rtsep.serve.replica import Figures

HEADERS = {"host": ["127.0.0.1"]}


class Replica:
    """The handle of an actor that has some streams, or does not answer."""

    def __init__(self, figures: Figures | None) -> None:
        self._figures, self.report = figures, self

    async def remote(self) -> Figures:
        await asyncio.sleep(0)
        if self._figures is None:
            raise ActorUnavailableError("its machine is lost", b"0" * 16)
        return self._figures


def sent(streams: int, **replicas: Figures | None) -> Counter[Any]:
    """Where so many streams go that come at once."""

    async def main() -> list[Any]:
        front = Front(Plan("127.0.0.1", 0), print)
        for number, (name, figures) in enumerate(replicas.items()):
            known = figures or Figures(places=4)
            member = Member(number, Replica(figures), address=name, figures=known)
            front._members[number], member.opened = member, known.opened
        return await asyncio.gather(*(front.admission(HEADERS) for _ in range(streams)))

    pages = asyncio.run(main())
    assert all(page.status == (307 if page.location else 503) for page in pages)
    return Counter(page.location for page in pages)


def test_streams_that_come_at_once_are_shared_out() -> None:
    assert sent(6, a=Figures(places=4), b=Figures(places=4)) == {"a": 3, "b": 3}
    assert sent(9, a=Figures(places=4), b=Figures(places=4)) == {"a": 4, "b": 4, None: 1}
    busy = Figures(places=4, streams=3, opened=9)
    assert sent(4, a=busy, b=Figures(places=4)) == {"a": 1, "b": 3}


def test_replicas_that_are_full_or_silent_are_passed_over() -> None:
    assert sent(2, a=None, b=Figures(places=4)) == {"b": 2}
    assert sent(1, a=Figures(places=1, streams=1), b=None) == {None: 1}
    assert sent(1) == {None: 1}


def test_a_page_of_another_site_is_refused_before() -> None:
    front = Front(Plan("127.0.0.1", 0), print)
    page = asyncio.run(front.admission({**HEADERS, "origin": ["http://evil.example"]}))
    assert page is not None and page.status == 403
