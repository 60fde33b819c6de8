"""Separate a stream on another machine, with the calls of `rtsep.load`."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import ExitStack, suppress
from typing import Any, NoReturn, Self, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import ArrayLike

from rtsep.api import Stems, named, sound
from rtsep.errors import ExtraError, RemoteError, SoundError
from rtsep.latency import StreamLatency
from rtsep.serve.protocol import FRAME_S
from rtsep.spec import Float32
from rtsep.ui.protocol import SUBPROTOCOL, Hello, decode, encode

PAUSE_S = 0.1
"""Time between two attempts to reach the server, in seconds."""
_POLICY, _NO_REASON = 1008, "the connection was closed"
_FINAL = 401, 403, 404
"""Status of refusals that another attempt does not change."""


class RemoteSeparation:
    """Separates one stream on a server, block by block, with constant latency; created by `remote`.

    If the connection or the server is lost, the stream goes on where the server's address leads
    then, from the newest snapshot of its state; blocks without a reply are sent again. Not
    thread-safe. Use it as a context manager, or `close` it.

    Attributes
    ----------
    sources, sample_rate, channels, block, latency
        As in `rtsep.Separation`.
    reconnects
        How often the stream went on in another connection.
    cuts
        For each of these, what the model has forgotten of the stream, as the numbers of its first
        sample and of the one after its last, (m, n) with m < n; or repeated, (m, n) with m > n. The
        stems are those of the mixture with samples m to n cut out, or n to m twice. Empty if the
        state was complete.
    """

    def __init__(
        self,
        url: str,
        model: str | None,
        channels: int,
        sample_rate: int,
        block: int | None,
        token: str | None,
        patience_s: float,
        give_up_s: float,
    ) -> None:
        self._url, self._token = _session(url, token)
        self.channels, self.sample_rate = channels, sample_rate
        self.block = round(FRAME_S[1] * sample_rate) if block is None else block
        self._hello = Hello(sample_rate, channels, self.block, "f32", model)
        self._patience_s, self._give_up_s = patience_s, give_up_s
        self.reconnects = 0
        self.cuts: list[tuple[int, int]] = []
        self._stream: str | None = None
        self._next = self._begun = 0  # numbers of the next frame, and of the first since a reset
        self._unanswered: deque[tuple[int, bytes]] = deque()
        self._flat = channels == 1
        self._connection, self._socket = ExitStack(), cast(Any, None)
        ready = self._connect()
        self.sources = tuple(ready["sources"])
        self.latency = StreamLatency(sample_rate, ready["latency_terms"])

    def process(self, block: ArrayLike) -> Stems:
        """Separate the next samples; as `rtsep.Separation.process`.

        Raises
        ------
        SoundError
            The block has an invalid type, shape or length; the stream is unchanged.
        RemoteError
            The server ends the stream, or can't be reached for ``give_up_s``.
        """
        mixture = sound(block, self.channels)
        if len(mixture) % self.block:
            raise SoundError(
                f"{len(mixture)} samples are not a multiple of the declared block, {self.block}"
            )
        self._flat = np.ndim(block) == 1
        return named(self._separate(mixture), self.sources, self._flat)

    def flush(self) -> Stems:
        """Return the last ``latency.samples`` samples and reset the stream."""
        late = self.latency.samples
        blocks = -(-late // self.block)
        stems = self._separate(np.zeros((blocks * self.block, self.channels), np.float32))
        self.reset()
        return named(stems[:late], self.sources, self._flat)

    def reset(self) -> None:
        """Reset the state: the next block starts a new stream."""
        self._begun = self._next
        try:
            self._say("reset")
        except self._lost:
            self._reconnect()

    async def stream(self, blocks: AsyncIterable[ArrayLike]) -> AsyncIterator[Stems]:
        """Separate blocks in a thread; as `rtsep.Separation.stream`."""
        async for block in blocks:
            yield await asyncio.to_thread(self.process, block)
        yield await asyncio.to_thread(self.flush)

    def close(self) -> None:
        """End the stream."""
        with suppress(*self._lost):
            self._say("end")
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """End the stream."""
        self.close()

    def _separate(self, mixture: Float32) -> Float32:
        """Send samples, a multiple of the block; return the stems (n, sources, channels)."""
        stems = np.empty((len(mixture), len(self.sources), self.channels), np.float32)
        frames = len(mixture) // self.block
        first = self._next
        while (done := self._next - len(self._unanswered) - first) < frames:
            try:
                while self._next - first < frames and len(self._unanswered) < self._window:
                    start = (self._next - first) * self.block
                    block = mixture[start : start + self.block]
                    message = encode(self._next, block, self._hello)
                    self._unanswered.append((self._next, message))
                    self._next += 1
                    self._socket.send(message)
                reply = self._socket.recv(self._patience_s)
            except self._lost:
                self._reconnect()
                continue
            if isinstance(reply, bytes):
                decode(reply, self._hello, stems[done * self.block : (done + 1) * self.block])
                self._unanswered.popleft()
        return stems

    def _reconnect(self) -> None:
        """Go on in another connection."""
        while True:
            after = int(self._connect()["after"])
            self.reconnects += 1
            number = self._next - len(self._unanswered)
            try:
                if after < self._begun and self._begun:  # the state may be from before the reset
                    self._say("reset")
                    after = self._begun - 1
                if after + 1 != number:
                    self.cuts.append(((after + 1) * self.block, number * self.block))
                for _, message in self._unanswered:
                    self._socket.send(message)
            except self._lost:
                continue
            return

    def _connect(self) -> dict[str, Any]:
        """Connect, begin or go on with the stream, and return what the server says of it."""
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

        self._lost = (ConnectionClosed, OSError, TimeoutError, EOFError)
        hello = self._hello
        greeting: dict[str, object] = {
            **{"type": "hello", "sample_rate": hello.sample_rate, "channels": hello.channels},
            **{"frame": hello.frame, "format": hello.sample_format, "model": hello.model},
            **{"stems": True, "next": self._next - len(self._unanswered)},
        }
        greeting["stream"] = self._stream
        end, why = time.monotonic() + self._give_up_s, _NO_REASON
        while True:
            try:
                self._open()
                self._socket.send(json.dumps(greeting))
                ready: dict[str, Any] = json.loads(self._socket.recv(self._patience_s))
                self._stream, self._window = ready["stream"], int(ready["window"])
                return ready
            except InvalidStatus as error:
                why = error.response.body.decode(errors="replace").strip() or str(error)
                if error.response.status_code in _FINAL:
                    self._fail(why)
            except ConnectionClosed as error:
                why = error.rcvd.reason if error.rcvd is not None else _NO_REASON
                if error.rcvd is not None and error.rcvd.code == _POLICY:
                    self._fail(why)
            except (InvalidHandshake, OSError, TimeoutError, EOFError) as error:
                why = str(error) or "no answer came in time"
            if time.monotonic() > end:
                self._fail(why)
            time.sleep(PAUSE_S)

    def _open(self) -> None:
        """Open another connection."""
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        self._connection.close()
        offered = [SUBPROTOCOL, *([] if self._token is None else [self._token])]
        self._socket = self._connection.enter_context(
            connect(
                self._url,
                subprotocols=[Subprotocol(name) for name in offered],
                compression=None,
                max_size=None,
                open_timeout=self._patience_s,
                close_timeout=0.1,
            )
        )

    def _fail(self, why: str) -> NoReturn:
        raise RemoteError(f"the stream can't go on at {self._url}: {why}") from None

    def _say(self, kind: str) -> None:
        self._socket.send(json.dumps({"type": kind}))


def _session(url: str, token: str | None) -> tuple[str, str | None]:
    """Return the address of the WebSocket, and the token that may stand in the printed address."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise RemoteError(f"the address of a server is http://HOST:PORT, not {url!r}")
    named = parse_qs(parts.fragment).get("token", [None])
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/session", token or named[0]


def remote(
    url: str,
    model: str | None = None,
    *,
    channels: int = 1,
    sample_rate: int = 16000,
    block: int | None = None,
    token: str | None = None,
    patience_s: float = 2.5,
    give_up_s: float = 10.0,
) -> RemoteSeparation:
    """Separate one stream on a server that runs `rtsep serve`.

    Parameters
    ----------
    url
        Address that the server printed, with or without the token.
    model
        Name of a model of the server; by default its first.
    channels
        Channels of the blocks, 1 or 2. A model of one channel processes each separately.
    sample_rate
        Sample rate of the blocks in Hz.
    block
        Samples per packet, 10 to 20 ms; the length of every block is a multiple of this. 20 ms by
        default.
    token
        The server's token, if it is not part of ``url``.
    patience_s
        A server that does not reply for this time is lost, in seconds.
    give_up_s
        Time in which a lost server must be reached again, in seconds.

    Raises
    ------
    RemoteError
        The server can't be reached, refuses the token, or has no such model.
    ExtraError
        The package websockets is not installed.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> with rtsep.remote("http://127.0.0.1:7870", sample_rate=48000) as sep:  # doctest: +SKIP
    ...     speech = sep.process(np.zeros(960))["speech"]
    """
    try:
        import websockets  # noqa: F401
    except ModuleNotFoundError:
        raise ExtraError(
            "rtsep.remote needs websockets: install it with pip install 'rtsep[ui]'"
        ) from None
    return RemoteSeparation(
        *(url, model, channels, sample_rate, block, token, patience_s, give_up_s)
    )
