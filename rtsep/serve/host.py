"""A server with the streams of one replica, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rtsep.runtime.engine import DEFAULT, StemOptions
from rtsep.serve.keeper import Keeper
from rtsep.serve.replica import Figures, Replica
from rtsep.serve.session import RESTART, Session
from rtsep.serve.site import Site
from rtsep.serve.stream import Stream
from rtsep.ui.connection import Socket
from rtsep.ui.guard import Guard


class Host(Site):
    """A replica, its sessions and its pages.

    Parameters
    ----------
    guard
        Checks requests.
    models, places, keeper, options
        As in `rtsep.serve.replica.Replica`.
    complain
        Function that receives a message when a session fails by a fault of the server.

    Attributes
    ----------
    replica
        The replica.
    """

    def __init__(
        self,
        guard: Guard,
        models: Sequence[str | None],
        places: int,
        keeper: Keeper,
        complain: Callable[[str], None],
        options: StemOptions = DEFAULT,
    ) -> None:
        super().__init__(guard)
        self._complain = complain
        self._sessions: dict[str, Session] = {}
        self.replica = Replica(models, places, keeper, self._answer, options)

    def _answer(self, stream: Stream, reply: bytes) -> None:
        session = self._sessions.get(stream.name)
        if session is not None:
            session.reply(reply)

    def models(self) -> list[str]:
        """Return the names of the models."""
        return list(self.replica.batches)

    def reports(self) -> dict[str, Figures]:
        """Return the figures of the replica."""
        return {"0": self.replica.report()}

    async def serve(self, socket: Socket) -> None:
        """Serve an admitted WebSocket until it is closed."""
        try:
            await Session(socket, self.replica, self._sessions).run()
        except Exception as error:
            self._complain(f"a session failed: {type(error).__name__}: {error}")

    async def drain(self) -> None:
        """Take no more streams and hand the old ones over, after what has arrived of them."""
        self.replica.figures.draining = True
        reason = "the server ends: the stream can go on elsewhere"
        await asyncio.gather(*(s.leave(RESTART, reason) for s in list(self._sessions.values())))
