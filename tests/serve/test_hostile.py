"""Clients that break the rules are closed; those beside them lose no packet."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from typing import Any

import numpy as np
import pytest

import rtsep
from rtsep.ui.protocol import SUBPROTOCOL, Hello, encode
from tests.support.patience import PATIENCE_S
from tests.support.serving import HELLO, MODEL, Running, greeting, noise, running

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

WELL_BEHAVED, HOSTILE = 20, 200
AHEAD = 3
"""Packets that a well-behaved client sends before it has the reply to the first of them."""


def session(server: Running, **options: Any) -> Any:
    return connect(
        f"ws://127.0.0.1:{server.port}/session",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        open_timeout=PATIENCE_S,
        **options,
    )


async def well_behaved(
    server: Running, mixture: Any, expected: Any, begun: asyncio.Semaphore
) -> None:
    """Send as replies come; compare them with an offline run."""
    frames = mixture.reshape(-1, HELLO.frame, 1)
    async with session(server) as connection:
        await connection.send(greeting())
        late = json.loads(await connection.recv())["latency_samples"]
        begun.release()
        sent, parts = 0, []
        while len(parts) < len(frames):
            while sent < min(len(frames), len(parts) + AHEAD):
                await connection.send(encode(sent, frames[sent], HELLO))
                sent += 1
            reply = await connection.recv()
            assert isinstance(reply, bytes), reply
            assert int.from_bytes(reply[4:8], "little") == len(parts)
            parts.append(np.frombuffer(reply, "<f4", offset=8))
        await connection.send('{"type": "end"}')
    speech = np.concatenate(parts)[late:]
    np.testing.assert_allclose(speech, expected[: len(speech)], atol=1e-5)


async def hostile(server: Running, number: int) -> tuple[str, str, int]:
    """Do one of several bad things until the server closes the connection.

    The result is what was done, what was told before the end, and the code of the end.
    """
    kinds = ("nothing", "garbage", "garbage in place of sound", "half packets", "too fast")
    kind, told = kinds[number % len(kinds)], ""
    random = np.random.default_rng(number)
    async with session(server) as connection:
        try:
            if kind == "garbage":
                rubbish = random.bytes(int(random.integers(1, 5000)))
                await connection.send(rubbish if number % 2 else rubbish.decode("latin-1"))
            elif kind != "nothing":
                await connection.send(greeting())
                if kind == "garbage in place of sound":
                    await connection.send(random.bytes(HELLO.message_length))
                elif kind == "half packets":
                    await connection.send(encode(0, np.zeros((320, 1), np.float32), HELLO)[:-640])
                else:
                    for frame in range(1000):  # of 20 ms, at once
                        sound = np.zeros((320, 1), np.float32)
                        await connection.send(encode(frame, sound, HELLO))
            while True:
                reply = await connection.recv()
                if isinstance(reply, str) and json.loads(reply)["type"] == "problem":
                    told += json.loads(reply)["text"]
        except ConnectionClosed as error:
            return kind, told, 0 if error.rcvd is None else error.rcvd.code


async def attack(server: Running, sounds: list[Any]) -> list[tuple[str, str, int]]:
    begun = asyncio.Semaphore(0)
    async with asyncio.timeout(5 * PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(WELL_BEHAVED):
            mixture, expected = sounds[number % len(sounds)]
            group.create_task(well_behaved(server, mixture, expected, begun))
        for _ in range(WELL_BEHAVED):
            await begun.acquire()
        ends = [group.create_task(hostile(server, number)) for number in range(HOSTILE)]
    return [end.result() for end in ends]


def test_hostile_clients_are_closed_and_disturb_nobody() -> None:
    mixtures = [noise(1.5, seed=seed)[:, 0] for seed in range(4)]
    sounds = [(sound, rtsep.separate(sound, 16000, MODEL)["speech"]) for sound in mixtures]
    with running(places=WELL_BEHAVED + 12) as server:
        ends = asyncio.run(attack(server, sounds))
        figures = server.figures
        assert figures.streams == 0 and figures.closed > 0
        assert figures.frames >= WELL_BEHAVED * 75
    closed = [(kind, code) for kind, _, code in ends]
    assert {code for _, code in closed} <= {0, 1008, 1013}  # 0: reset while it was sending
    assert {("nothing", 1008), ("garbage", 1008), ("half packets", 1008)} <= {*closed}
    assert ("garbage in place of sound", 1008) in closed
    fast = [told for kind, told, code in ends if kind == "too fast" and code == 1008]
    assert any("too fast: at most 50 frames" in told for told in fast)


def test_who_does_not_read_is_closed_and_disturbs_nobody() -> None:
    """Replies of 28 KiB, so that the system's buffers are soon full."""
    hello = Hello(44100, 2, 882, "f32", "music")
    silence = np.zeros((hello.frame, 2), np.float32)
    mixture = noise(2.0)[:, 0]

    async def deaf(server: Running) -> None:
        plain = sockets.socket()
        plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 1 << 15)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
        async with session(server, sock=plain, max_queue=1, close_timeout=0.1) as connection:
            text = greeting(sample_rate=44100, channels=2, frame=882, model="music", stems=True)
            await connection.send(text)
            with pytest.raises(ConnectionClosed):
                for number in range(1 << 20):
                    await connection.send(encode(number, silence, hello))
                    await asyncio.sleep(0.012)  # no faster than the server separates it

    async def both(server: Running, sep: rtsep.RemoteSeparation) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(deaf(server))
            well = group.create_task(asyncio.to_thread(sep.process, mixture))
        return well.result()["speech"][sep.latency.samples :]

    with (
        running((MODEL, "music")) as server,
        rtsep.remote(server.url, patience_s=PATIENCE_S) as sep,
    ):
        speech = asyncio.run(both(server, sep))
        assert server.figures.closed == 1 and sep.reconnects == 0
    expected = rtsep.separate(mixture, 16000, MODEL)["speech"][: len(speech)]
    np.testing.assert_allclose(speech, expected, atol=1e-5)
