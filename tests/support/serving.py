"""A server of streams in a thread of this process, and clients of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rtsep.serve.host import Host
from rtsep.serve.keeper import Memory
from rtsep.ui.guard import Guard
from rtsep.ui.protocol import SUBPROTOCOL, Hello
from tests.support.patience import PATIENCE_S

MODEL = "chandna-speech"
HELLO = Hello(16000, 1, 320, "f32")
"""The packets of most tests: 20 ms."""


class Running:
    """A server, to be used from another thread."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.host, self.loop = host, loop
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def drain(self) -> None:
        asyncio.run_coroutine_threadsafe(self.host.drain(), self.loop).result(PATIENCE_S)

    @property
    def figures(self) -> Any:
        return self.host.replica.report()


@contextmanager
def running(
    models: tuple[str, ...] = (MODEL,),
    places: int = 4,
    keeper: Memory | None = None,
    token: str | None = None,
) -> Iterator[Running]:
    """A server on a free port of this machine."""
    from rtsep.serve.server import serve
    from rtsep.ui.server import listen

    failed: list[str] = []
    host = Host(Guard("127.0.0.1", token), models, places, keeper or Memory(), failed.append)
    loop, ended, begun = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    with listen("127.0.0.1", 0) as listener:

        def answer() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve(host, listener, None, begun.set, ended))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert begun.wait(PATIENCE_S)
        try:
            yield Running(host, loop, listener.getsockname()[1])
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert host.replica.error is None and not failed


def socket(port: int, token: str | None = None, **options: Any) -> Any:
    """A WebSocket to the server."""
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    offered = [SUBPROTOCOL] if token is None else [SUBPROTOCOL, token]
    return connect(
        f"ws://127.0.0.1:{port}/session",
        subprotocols=[Subprotocol(name) for name in offered],
        compression=None,
        **options,
    )


def greeting(**change: object) -> str:
    hello = {"sample_rate": HELLO.sample_rate, "channels": HELLO.channels, "frame": HELLO.frame}
    return json.dumps({"type": "hello", **hello, "format": HELLO.sample_format, **change})


def noise(seconds: float, rate: int = 16000, channels: int = 1, seed: int = 0) -> Any:
    """(n, channels) of whole packets."""
    packets = round(seconds * 50)
    shape = packets * rate // 50, channels
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)
