"""Where snapshots of streams are kept, in case that their connection or their server ends."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import NamedTuple, Protocol

KEPT_S = 60.0
"""A snapshot is kept this long, in seconds; a running stream replaces it every second."""
MOST_BYTES = 1 << 30
"""Memory of all snapshots in one place; beyond it the oldest are dropped."""


class Keeper(Protocol):
    """Keeps the newest snapshot of each stream; `keep` and `drop` may be called in any thread."""

    def keep(self, stream: str, number: int, state: bytes) -> None:
        """Replace the snapshot of a stream by that after frame ``number``, without waiting."""

    def drop(self, stream: str) -> None:
        """Forget a stream that has ended, without waiting."""

    async def delivered(self, stream: str) -> None:
        """Wait until the last snapshot of a stream is where it is kept, if it gets there."""

    async def fetch(self, stream: str) -> bytes | None:
        """Return the newest snapshot of a stream, if there is one."""


class Kept(NamedTuple):
    """A snapshot."""

    number: int
    time: float
    state: bytes


class Memory:
    """Keeps snapshots in this process: a stream survives its connection, not its server."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # the oldest first
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, stream: str, number: int, state: bytes) -> None:
        """Replace the snapshot of a stream, unless it is newer."""
        with self._lock:
            before = self._kept.get(stream)
            if before is not None and before.number > number:
                return
            self._drop(stream)
            self._kept[stream] = Kept(number, time.monotonic(), state)
            self._bytes += len(state)
            while self._bytes > MOST_BYTES or self._old(next(iter(self._kept.values()))):
                self._drop(next(iter(self._kept)))

    def drop(self, stream: str) -> None:
        """Forget a stream."""
        with self._lock:
            self._drop(stream)

    def find(self, stream: str) -> Kept | None:
        """Return the snapshot of a stream, if there is one."""
        with self._lock:
            kept = self._kept.get(stream)
            return None if kept is None or self._old(kept) else kept

    async def delivered(self, stream: str) -> None:
        """Return at once."""

    async def fetch(self, stream: str) -> bytes | None:
        """Return the state of a stream, if there is one."""
        kept = self.find(stream)
        return None if kept is None else kept.state

    def _drop(self, stream: str) -> None:
        kept = self._kept.pop(stream, None)
        self._bytes -= 0 if kept is None else len(kept.state)

    def _old(self, kept: Kept) -> bool:
        return kept.time < time.monotonic() - KEPT_S
