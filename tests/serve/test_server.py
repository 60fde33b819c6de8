"""A server of streams and its clients over loopback: what they get, and what others can't take."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rtsep
from rtsep.serve.batch import Batch
from rtsep.serve.host import Host
from rtsep.serve.keeper import Memory
from rtsep.ui.guard import Guard
from rtsep.ui.protocol import encode
from tests.support.patience import PATIENCE_S
from tests.support.serving import (
    HELLO,
    MODEL,
    Running,
    greeting,
    noise,
    running,
    socket,
)

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rtsep.serve.server import serve
from rtsep.ui.server import listen

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running((MODEL, "music"), places=3) as served:
        yield served


@pytest.fixture(autouse=True)
def all_places_come_back(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        served = request.getfixturevalue("server")
        wait_until(lambda: served.figures.streams == 0)


def wait_until(condition: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def remote(url: str, **options: Any) -> rtsep.RemoteSeparation:
    return rtsep.remote(url, patience_s=PATIENCE_S, **options)


def get(url: str, path: str, token: str | None = None) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def whole(sep: rtsep.RemoteSeparation, mixture: Any, packets: int = 1) -> dict[str, Any]:
    """A recording through a stream, aligned with it."""
    step = packets * sep.block
    parts = [sep.process(mixture[i : i + step]) for i in range(0, len(mixture), step)]
    parts.append(sep.flush())
    late = sep.latency.samples
    return {name: np.concatenate([part[name] for part in parts])[late:] for name in sep.sources}


def equal(stems: dict[str, Any], expected: dict[str, Any]) -> None:
    assert [*stems] == [*expected]
    for name, stem in expected.items():
        assert stems[name].shape == stem.shape and np.abs(stem).max() > 1e-3
        np.testing.assert_allclose(stems[name], stem, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "rate", "channels", "block_ms"),
    [(None, 16000, 1, 20), (None, 48000, 2, 10), ("music", 44100, 2, 20)],
)
def test_remote_equals_separate(
    server: Running, model: str | None, rate: int, channels: int, block_ms: int
) -> None:
    mixture = noise(0.6, rate, channels)
    mixture = mixture[:, 0] if channels == 1 else mixture
    block = block_ms * rate // 1000
    with remote(server.url, model=model, channels=channels, sample_rate=rate, block=block) as sep:
        local = rtsep.load(model or MODEL, channels=channels, sample_rate=rate, block=block)
        assert sep.sources == local.sources and str(sep.latency) == str(local.latency)
        expected = rtsep.separate(mixture, rate, model or MODEL)
        equal(whole(sep, mixture), expected)
        equal(whole(sep, mixture, packets=3), expected)  # flush has reset the stream
        sep.process(mixture[:block])
        sep.reset()
        equal(whole(sep, mixture, packets=30), expected)
        assert not sep.cuts and not sep.reconnects


def test_stream_is_separated_beside_the_event_loop(server: Running) -> None:
    mixture = noise(0.2)[:, 0]

    async def blocks() -> Any:
        for block in mixture.reshape(-1, HELLO.frame):
            yield block

    async def main(sep: rtsep.RemoteSeparation) -> list[Any]:
        return [stems["speech"] async for stems in sep.stream(blocks())]

    with remote(server.url) as sep:
        speech = np.concatenate(asyncio.run(main(sep)))[sep.latency.samples :]
    np.testing.assert_allclose(speech, rtsep.separate(mixture, 16000, MODEL)["speech"], atol=1e-5)


def test_blocks_that_do_not_fit_are_refused_here(server: Running) -> None:
    with remote(server.url) as sep:
        with pytest.raises(rtsep.SoundError, match="multiple of the declared block, 320"):
            sep.process(np.zeros(321))
        assert len(sep.process(np.zeros(640))["speech"]) == 640


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "speech"}, f"there are: {MODEL}, music"),
        ({"channels": 3}, "channels must be 1 or 2"),
        ({"sample_rate": 16001}, "sample_rate must be one of"),
        ({"block": 100}, "10 to 20 ms"),
    ],
)
def test_what_the_server_can_not_do_is_one_sentence(
    server: Running, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(rtsep.RemoteError, match=reason) as caught:
        remote(server.url, **options)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    for url in ("http://127.0.0.1:9", "127.0.0.1:7870"):
        with pytest.raises(rtsep.RemoteError, match=r"address|can't go on"):
            rtsep.remote(url, give_up_s=0.0)


def test_a_lost_connection_goes_on_without_a_gap(server: Running) -> None:
    mixture = noise(1.0)[:, 0]
    expected = rtsep.separate(mixture, 16000, MODEL)["speech"]
    with remote(server.url) as sep:
        parts = []
        for number, block in enumerate(mixture.reshape(-1, sep.block)):
            if number in (9, 30):
                sep._socket.socket.close()
                wait_until(lambda: server.figures.streams == 0)
            parts.append(sep.process(block)["speech"])
        assert sep.reconnects == 2 and not sep.cuts
        speech = np.concatenate([*parts, sep.flush()["speech"]])[sep.latency.samples :]
    np.testing.assert_allclose(speech, expected, atol=1e-5)


def test_without_a_snapshot_a_stream_starts_anew_and_says_so() -> None:
    keeper = Memory()
    mixture = noise(0.4)[:, 0]
    with running(keeper=keeper) as server, remote(server.url) as sep:
        sep.process(mixture[:3200])
        assert sep._stream is not None
        sep._socket.socket.close()
        wait_until(lambda: keeper.find(sep._stream or "") is not None)
        keeper.drop(sep._stream)
        late = sep.process(mixture[3200:])["speech"][sep.latency.samples :]
        assert sep.cuts == [(0, 3200)]
    expected = rtsep.separate(mixture[3200:], 16000, MODEL)["speech"]
    np.testing.assert_allclose(late, expected[: len(late)], atol=1e-5)


def test_a_stream_is_in_one_connection_only(server: Running) -> None:
    with socket(server.port) as old:
        old.send(greeting())
        ready = json.loads(old.recv())
        with socket(server.port) as new:
            new.send(greeting(stream=ready["stream"]))
            assert json.loads(new.recv(PATIENCE_S))["stream"] == ready["stream"]
            with pytest.raises(ConnectionClosed) as caught:
                old.recv(PATIENCE_S)
            assert caught.value.rcvd and "another connection" in caught.value.rcvd.reason
            new.send('{"type": "end"}')


def test_a_stream_that_its_client_ends_did_not_fail(server: Running) -> None:
    with socket(server.port) as connection:
        connection.send(greeting())
        connection.recv(PATIENCE_S)
        connection.send('{"type": "end"}')
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(PATIENCE_S)
    assert caught.value.rcvd and caught.value.rcvd.code == 1000


def test_the_mix_follows_the_gains_of_its_stream(server: Running) -> None:
    mixture = noise(1.0)
    stems = rtsep.separate(mixture[:, 0], 16000, MODEL)
    with socket(server.port) as one, socket(server.port) as other:
        for connection in (one, other):
            connection.send(greeting())
            late = json.loads(connection.recv())["latency_samples"]
        one.send(json.dumps({"type": "mute", "source": "noise", "on": False}))
        one.send(json.dumps({"type": "gain", "source": "noise", "db": -20.0}))
        one.send(json.dumps({"type": "gain", "source": "drums", "db": 0.0}))
        out: list[list[Any]] = [[], []]
        for number, frame in enumerate(mixture.reshape(-1, HELLO.frame, 1)):
            for connection, part in zip((one, other), out, strict=True):
                connection.send(encode(number, frame, HELLO))
                while isinstance(reply := connection.recv(PATIENCE_S), str):
                    assert "no such source" in reply
                part.append(np.frombuffer(reply, "<f4", offset=8))
        for connection in (one, other):
            connection.send('{"type": "end"}')
    mixed, speech = (np.concatenate(part)[late:] for part in out)
    count = len(speech)
    np.testing.assert_allclose(speech, stems["speech"][:count], atol=1e-5)
    expected = (stems["speech"] + 0.1 * stems["noise"])[:count]
    np.testing.assert_allclose(mixed[4000:], expected[4000:], atol=1e-5)


def test_who_finds_no_place_may_try_again(server: Running) -> None:
    refused = server.figures.refused
    full = [remote(server.url) for _ in range(3)]
    with pytest.raises(rtsep.RemoteError, match="no more streams now"):
        rtsep.remote(server.url, give_up_s=0.2)
    assert server.figures.refused > refused
    threading.Timer(0.2, full[0].close).start()
    with remote(server.url) as sep:
        sep.process(np.zeros(320))
    for other in full[1:]:
        other.close()


def test_tokens_are_needed_where_there_is_one() -> None:
    with running(token=TOKEN) as server:
        for url, token in ((server.url, TOKEN), (f"{server.url}/#token={TOKEN}", None)):
            with remote(url, token=token) as sep:
                sep.process(np.zeros(320))
        for wrong in (None, TOKEN[:-1]):
            with pytest.raises(rtsep.RemoteError, match="token"):
                remote(server.url, token=wrong)
            for path in ("/metrics", "/models"):
                assert get(server.url, path, wrong)[0] == 401
        assert get(server.url, "/metrics", TOKEN)[0] == 200
        assert get(server.url, "/health")[0] == 200


def test_pages_of_other_sites_can_not_use_a_server_without_token(server: Running) -> None:
    for headers in ({"origin": "http://evil.example"}, {"additional_headers": {"Host": "evil.x"}}):
        with pytest.raises(InvalidStatus), socket(server.port, **headers):
            pass
    with socket(server.port, origin=f"http://127.0.0.1:{server.port}"):
        pass


def test_figures_are_those_of_prometheus(server: Running) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def read() -> dict[str, float]:
        text = get(server.url, "/metrics")[1]
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return {s.name + s.labels.get("quantile", ""): s.value for s in samples}

    before = read()
    with remote(server.url) as sep:
        sep.process(noise(0.4)[:, 0])
        during = read()
        assert during["rtsep_streams"] == 1 and during["rtsep_places"] == 3
    assert during["rtsep_frames_total"] - before["rtsep_frames_total"] == 20
    assert 0 < during["rtsep_hop_seconds0.5"] <= during["rtsep_hop_seconds0.99"]
    assert json.loads(get(server.url, "/models")[1])["models"] == [MODEL, "music"]
    assert get(server.url, "/elsewhere")[0] == 404


def test_draining_hands_streams_over_without_a_gap() -> None:
    """Two servers that share what they keep, as in a cluster."""
    keeper = Memory()
    mixture = noise(1.0)[:, 0]
    expected = rtsep.separate(mixture, 16000, MODEL)["speech"]
    with running(keeper=keeper) as old, running(keeper=keeper) as new:
        with remote(old.url) as sep:
            parts = []
            for number, block in enumerate(mixture.reshape(-1, 10 * sep.block)):
                if number == 2:
                    sep._url = sep._url.replace(str(old.port), str(new.port))  # as a proxy would
                    old.drain()
                    assert old.figures.streams == 0
                    assert get(old.url, "/health") == (503, "the server takes no streams\n")
                parts.append(sep.process(block)["speech"])
            assert (sep.reconnects, sep.cuts) == (1, [])
            assert (new.figures.streams, new.figures.resumed) == (1, 1)
            speech = np.concatenate([*parts, sep.flush()["speech"]])[sep.latency.samples :]
        with pytest.raises(rtsep.RemoteError, match="no more streams"):
            rtsep.remote(old.url, give_up_s=0.0)
    np.testing.assert_allclose(speech, expected, atol=1e-5)


def test_a_fault_of_the_model_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: Batch) -> None:
        raise ZeroDivisionError

    def client() -> None:
        with (
            pytest.raises(rtsep.RemoteError),
            rtsep.remote(url, patience_s=PATIENCE_S, give_up_s=0.0) as sep,
        ):
            sep.process(np.zeros(3200))
        refused.set()

    monkeypatch.setattr(Batch, "run", fail)
    host, refused = Host(Guard("127.0.0.1", None), [MODEL], 1, Memory(), print), threading.Event()
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=client)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(serve(host, listener, None, thread.start, asyncio.Event()))
    thread.join(PATIENCE_S)
    assert refused.is_set()
