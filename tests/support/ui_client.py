"""A browser session without a browser: `python -m tests.support.ui_client`.

Sends noise at real-time pace until its input ends, and prints statistics of the replies as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from typing import Any

import numpy as np

from rtsep.ui import protocol
from rtsep.ui.protocol import Hello
from tests.support.patience import PATIENCE_S

HELLO = Hello(48000, 1, 384, "f32")
DELAY_S = 0.25
"""What comes later than this cannot be played: an xrun."""
MOST_S = 60.0
"""Longest session."""


def noise(frames: int) -> Any:
    """The first frames of a sound without end."""
    sound = np.random.default_rng(5).standard_normal((frames, HELLO.frame, 1), np.float32)
    return sound / 10


def greeting(**change: object) -> str:
    hello = {"sample_rate": HELLO.sample_rate, "channels": HELLO.channels, "frame": HELLO.frame,
             "format": HELLO.sample_format, "model": HELLO.model}  # fmt: skip
    return json.dumps({"type": "hello", **hello, **change})


def session(address: str, token: str) -> Any:
    """Connect as the page does."""
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    return connect(
        f"ws://{address}/session",
        origin=f"http://{address}",  # type: ignore[arg-type]
        subprotocols=[Subprotocol(protocol.SUBPROTOCOL), Subprotocol(token)],
        compression=None,
        max_size=None,
    )


def main(address: str, token: str) -> None:
    """Hold a session; "ready" is printed when it has begun."""
    frames = noise(round(MOST_S * HELLO.sample_rate / HELLO.frame))
    sent, waited, digest = np.zeros(len(frames)), np.full(len(frames), np.inf), hashlib.sha256()
    count, over = 0, threading.Event()
    status: dict[str, Any] = {}
    pictures = 0
    with session(address, token) as socket:
        socket.send(greeting())
        ready = json.loads(socket.recv())
        assert ready["type"] == "ready", ready
        print("ready", flush=True)

        def listen() -> None:
            sys.stdin.read()
            over.set()

        def send() -> None:
            nonlocal count
            start = time.monotonic()
            for number, frame in enumerate(frames):
                if over.is_set():
                    break
                time.sleep(max(0.0, start + number * HELLO.frame / 48000 - time.monotonic()))
                sent[number] = time.monotonic()
                socket.send(protocol.encode(number, frame, HELLO))
                count = number + 1
            over.set()

        threading.Thread(target=listen, daemon=True).start()
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and (sender.is_alive() or np.isinf(waited[count - 1])):
            message = socket.recv(PATIENCE_S)
            if isinstance(message, str):
                status = json.loads(message)
            elif message[0] == protocol.AUDIO:
                number = protocol.frame_number(message, HELLO)
                waited[number] = time.monotonic() - sent[number]
                digest.update(message)
            else:
                pictures += 1
        sender.join()
    waited = waited[:count]
    print(
        json.dumps(
            {
                "frames": count,
                "xruns": int(np.sum(waited > DELAY_S)),
                "unanswered": int(np.sum(np.isinf(waited))),
                "median_ms": 1000 * float(np.median(waited)),
                "max_ms": 1000 * float(np.max(waited)),
                "sound": digest.hexdigest(),
                "pictures": pictures,
                "status": status,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
