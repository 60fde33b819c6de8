"""The web panel's server as a process: what it serves, and whom it leaves outside."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from rtsep.ui import protocol
from rtsep.ui.session_worker import BrowserChain, Pool
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE_S, until
from tests.support.ui_client import HELLO, greeting, noise, session
from tests.support.ui_server import MODEL, REFUSED, running

pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosed, InvalidStatus

TOKEN, SESSIONS = "correct-horse-battery", 3


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running("--token", TOKEN, "--sessions", str(SESSIONS)) as url:
        host, _, token = url.removeprefix("http://").partition("/#token=")
        assert token == TOKEN
        yield host


def get(address: str, path: str, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def places(address: str) -> int:
    status, _, body = get(address, "/models", Authorization=f"Bearer {TOKEN}")
    assert status == 200
    return int(json.loads(body)["places"])


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(address: str) -> None:
    seen, left = set(), {"/", "/static/worklet.js", "/static/socket.js", "/demo.flac"}
    while left:
        path = left.pop()
        seen.add(path)
        status, headers, body = get(address, path)
        assert status == 200 and body, path
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        if headers["Content-Type"].startswith("text/"):
            text = body.decode()
            assert not re.search(r"(src|href|url\(|from)\W{1,3}(https?:)?//", text)
            assert "javascript" in headers["Content-Type"] or path[-3:] != ".js"
            left |= set(re.findall(r"\"(/static/[\w.]+)\"", text)) - seen
    assert len(seen) >= 10
    for path in ("/static/../server.py", "/static/", "/../../etc/passwd", "//etc/passwd", "/x"):
        assert get(address, path)[0] == 404


def test_names_of_others_and_wrong_tokens_are_refused(address: str) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:80", "a@127.0.0.1"):
        assert get(address, "/", Host=host)[0] == 421
    for wrong in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer correct-horse"}):
        assert get(address, "/models", **wrong)[0] == 401
    status, _, body = get(address, "/models", Authorization=f"Bearer {TOKEN}")
    told = json.loads(body)
    assert status == 200 and told["models"][0] == MODEL and "speech" in told["models"]


def refused(address: str, **change: Any) -> int:
    """Status with which a session is refused."""
    from websockets.sync.client import connect

    options: dict[str, Any] = {
        "origin": f"http://{address}",
        "subprotocols": [protocol.SUBPROTOCOL, TOKEN],
        **change,
    }
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{address}/session", **options).close()
    return int(caught.value.response.status_code)


def ended(address: str, *messages: str | bytes) -> tuple[int, str]:
    """Code and reason with which a session ends that sends these messages."""
    with session(address, TOKEN) as one:
        with suppress(ConnectionClosed):
            for message in messages:
                one.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                one.recv(PATIENCE_S)
    received = caught.value.rcvd
    assert received is not None
    return received.code, received.reason


def frame(number: int = 0, kind: int = protocol.AUDIO, length: int = HELLO.frame) -> bytes:
    return bytes([kind, 0, 0, 0]) + number.to_bytes(4, "little") + bytes(4 * length)


MALFORMED: list[list[str | bytes]] = [
    ["no JSON"],
    [b"\0" * 100],
    ["[]"],
    ["[" * 4000],
    [greeting(sample_rate=1)],
    [greeting(frame=1 << 30)],
    [greeting(model="../../etc/passwd")],
    [greeting(), greeting()],
    [greeting(), b""],
    [greeting(), frame(length=383)],
    [greeting(), frame(length=4000)],
    [greeting(), frame(kind=2)],
    [greeting(), frame(7), frame(7)],
    [greeting(), '{"type": "gain", "source": "speech", "db": 1e999}'],
    [greeting(), '{"type": "mute", "source": ["speech"], "on": true}'],
    [greeting(), "x" * 5000],
    ['{"type": "watch"}'],
    [greeting(), '{"type": "record", "on": true}'],
    [greeting(), '{"type": "device", "name": "demo"}'],
    [greeting(), *['{"type": "bypass", "on": true}'] * 1000],
    [greeting(), *[frame(number) for number in range(1000)]],
]


@pytest.mark.device
def test_strangers_are_left_outside_and_a_session_does_not_notice(address: str) -> None:
    """Must hold: whatever others send, the sound of a session is what it would be without them."""
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ui_client", address, TOKEN],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdout is not None and client.stdout.readline() == "ready\n"
        attack(address)
        out, _ = client.communicate(timeout=PATIENCE_S)  # which ends its input
    finally:
        client.kill()
        client.wait()
    told = json.loads(out)
    print(told)
    assert told["frames"] and told["pictures"]
    status = told["status"]
    # Every sample is what the same model, engine and mixer give alone, unless the machine was late.
    if not (told["unanswered"] or status["dropped"] or status["lost"] or status["undelivered"]):
        chain = BrowserChain(MODEL, Pool(MODEL), HELLO)
        wanted = hashlib.sha256()
        for number, sound in enumerate(noise(told["frames"])):
            wanted.update(protocol.encode(number, chain.process(sound), HELLO))
        assert told["sound"] == wanted.hexdigest()
    # And the places of all that came and went are free again.
    until(lambda: places(address) == SESSIONS)


def attack(address: str) -> None:
    assert refused(address, subprotocols=[protocol.SUBPROTOCOL]) == 401
    assert refused(address, subprotocols=[protocol.SUBPROTOCOL, "wrong-" + TOKEN]) == 401
    for origin in (None, "null", "http://evil.example", f"http://{address}.evil.example"):
        assert refused(address, origin=origin) == 403
    assert ended(address, greeting(), bytes(10_000_000))[0] == 1009
    assert ended(address, bytes(10_000_000))[0] == 1009
    for messages in MALFORMED:
        code, reason = ended(address, *messages)
        assert code == 1008 and reason, messages
    with session(address, TOKEN) as one:  # text that is none
        one.socket.sendall(b"\x81\x84\0\0\0\0\xff\xfe\xfd\xfc")
        with pytest.raises(ConnectionClosed):
            one.recv(PATIENCE_S)
    host, _, port = address.partition(":")
    for garbage in (b"\0" * 5000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000, b"POST /session"):
        with socket.create_connection((host, int(port))) as raw, suppress(OSError):
            raw.sendall(garbage)
    # 200 sessions at once, then 200 connections that say nothing.
    with ExitStack() as stack:
        opened = 0
        for _ in range(200):
            with suppress(*REFUSED):
                stack.enter_context(session(address, TOKEN))
                opened += 1
        assert opened == SESSIONS - 1
    with ExitStack() as stack:
        for _ in range(200):
            with suppress(OSError):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=1))


def test_what_a_session_asks_for_it_gets_or_is_told_why_not(address: str) -> None:
    with session(address, TOKEN) as one:
        one.send(greeting())
        assert json.loads(one.recv())["type"] == "ready"
        one.send('{"type": "model", "name": "no such model"}')
        one.send('{"type": "gain", "source": "drums", "db": 0}')
        said = []
        while len(said) < 2:
            message = json.loads(one.recv(PATIENCE_S))
            if message["type"] == "problem":
                said.append(message["text"])
        assert any("no such model" in text for text in said)
        assert any("no such source" in text for text in said)
        one.send('{"type": "model", "name": "music"}')
        number, began = 0, time.monotonic()
        ready: dict[str, Any] = {}
        while not ready:  # it is faded in while sound comes, no faster than a microphone's
            one.send(frame(number))
            number += 1
            due = began + number * HELLO.frame / HELLO.sample_rate
            with suppress(TimeoutError):
                while (left := due - time.monotonic()) > 0:
                    message = one.recv(left)
                    if isinstance(message, str) and json.loads(message)["type"] == "ready":
                        ready = json.loads(message)
        assert ready["number"] <= number
        assert ready["sources"] == ["vocals", "drums", "bass", "other"]
        assert ready["controls"]["muted"] == [False, True, True, True]


def test_bound_elsewhere_it_asks_for_a_token_of_its_own() -> None:
    with running("--host", "0.0.0.0", "--token", "auto", "--sessions", "1") as url:
        address, _, token = url.removeprefix("http://").partition("/#token=")
        assert re.fullmatch(r"[\w-]{32}", token)
        address = f"127.0.0.1:{address.rpartition(':')[2]}"
        assert get(address, "/models")[0] == 401
        assert get(address, "/models", Authorization=f"Bearer {token}")[0] == 200
        with session(address, token) as one:
            one.send(greeting())
            assert json.loads(one.recv())["model"] == MODEL


async def first_answer(address: str, tls: ssl.SSLContext) -> Any:
    """Return what a session on TLS says first.

    A client with threads would read and write Python's TLS socket at once, which is not safe.
    """
    from websockets.asyncio.client import connect
    from websockets.typing import Origin, Subprotocol

    names = [Subprotocol(protocol.SUBPROTOCOL), Subprotocol(TOKEN)]
    uri, origin = f"wss://{address}/session", Origin(f"https://{address}")
    async with connect(uri, ssl=tls, origin=origin, subprotocols=names, compression=None) as one:
        await one.send(greeting())
        return json.loads(await one.recv())


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_with_a_certificate_it_speaks_https(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=rtsep "
        f"-keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with running("--certificate", str(certificate), "--key", str(key), "--sessions", "1") as url:
        assert url.startswith("https://127.0.0.1:")
        address = url.removeprefix("https://").rstrip("/")
        connection = http.client.HTTPSConnection(address, timeout=PATIENCE_S, context=context)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and b"<title>rtsep</title>" in answer.read()
        connection.close()
        assert asyncio.run(first_answer(address, context))["type"] == "ready"
