"""The parts of the web panel: messages, who may come in, what a session's thread does."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import GuardError, ProtocolError
from rtsep.realtime.crossfade import CROSS_S, LISTEN_S
from rtsep.realtime.monitor import Scope
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.runtime.pipeline import LoadedModel
from rtsep.ui import protocol
from rtsep.ui.guard import Allowance, Guard, is_loopback, token_for
from rtsep.ui.protocol import Control, Hello, Record, SetControl, SwitchDevice, SwitchModel
from rtsep.ui.session_worker import BACKLOG_S, BrowserChain, Pool, Worker
from rtsep.ui.spectra import BANDS, COLUMNS_HZ, LEVELS_DB, Spectra, hertz, mel
from tests.support import models
from tests.support.command import refused
from tests.support.patience import PATIENCE_S

HELLO = {"type": "hello", "sample_rate": 48000, "channels": 1, "frame": 384, "format": "f32"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """The handmade model, and the shipped ones."""
    path = tmp_path_factory.mktemp("pool") / "tiny.onnx"
    return Pool(str(models.write(models.handmade(), path)))


# --- messages ---------------------------------------------------------------------------------


def test_a_hello_says_what_the_sound_is() -> None:
    assert protocol.parse_hello(json.dumps(HELLO)) == Hello(48000, 1, 384, "f32")
    named = {**HELLO, "format": "s16", "channels": 2, "model": "music"}
    hello = protocol.parse_hello(json.dumps(named))
    assert hello == Hello(48000, 2, 384, "s16", "music")
    assert hello.message_length == 8 + 2 * 2 * 384


@pytest.mark.parametrize(
    "change",
    [
        {"type": "gain"}, {"sample_rate": 47999}, {"sample_rate": 48000.0}, {"sample_rate": True},
        {"sample_rate": 10**400}, {"channels": 0}, {"channels": 3}, {"channels": "1"}, {"frame": 0},
        {"frame": -384}, {"frame": 10**6}, {"frame": None}, {"format": "f64"}, {"format": []},
        {"model": 1}, {"type": 7},
    ],
)  # fmt: skip
def test_a_hello_of_sound_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        protocol.parse_hello(json.dumps({**HELLO, **change}))


def test_commands() -> None:
    def parsed(**message: object) -> object:
        return protocol.parse_command(json.dumps(message))

    assert parsed(type="gain", source="a", db=-6) == Control("gain", "a", -6.0)
    assert parsed(type="mute", source="a", on=True) == Control("mute", "a", True)
    assert parsed(type="solo", source="a", on=False) == Control("solo", "a", False)
    assert parsed(type="bypass", on=True) == Control("bypass", "", True)
    assert parsed(type="control", name="stem", values=[1, 0.5]) == SetControl("stem", (1, 0.5))
    assert parsed(type="model", name="music") == SwitchModel("music")
    assert parsed(type="device", name="USB") == SwitchDevice("USB")
    assert parsed(type="record", on=True) == Record(True)
    for message in (
        {"type": "gain", "source": "a", "db": 24.1},
        {"type": "gain", "source": "a", "db": float("nan")},
        {"type": "gain", "source": "a", "db": 10**400},
        {"type": "gain", "source": "a", "db": True},
        {"type": "mute", "source": "a", "on": 1},
        {"type": "mute", "on": True},
        {"type": "control", "name": "stem", "values": "vocals"},
        {"type": "control", "name": "stem", "values": ["1"]},
        {"type": "control", "values": [1]},
        {"type": "model"},
        {"type": "model", "name": 1},
        {"type": "device", "name": None},
        {"type": "record", "on": 1},
        {"type": "hello"},
    ):
        with pytest.raises(ProtocolError):
            parsed(**message)


@given(st.text() | st.recursive(st.none() | st.text() | st.floats() | st.booleans(), st.lists))
def test_no_text_breaks_the_parser(content: object) -> None:
    nested = "[" * 4000
    for text in (str(content), json.dumps(content), json.dumps({"type": content}), nested):
        for parse in (protocol.parse_hello, protocol.parse_watch, protocol.parse_command):
            with pytest.raises(ProtocolError):
                parse(text)


@pytest.mark.parametrize(("name", "error"), [("f32", 0.0), ("s16", 0.5 / 32768)])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_survives_the_wire(name: Any, error: float, channels: int) -> None:
    hello = Hello(48000, channels, 384, name)
    sound = np.random.default_rng(0).uniform(-0.99, 0.99, (384, channels)).astype(np.float32)
    message = protocol.encode(7, sound, hello)
    assert len(message) == hello.message_length and protocol.frame_number(message, hello) == 7
    back = np.empty_like(sound)
    protocol.decode(message, hello, back)
    assert np.max(np.abs(back - sound)) <= error * 1.001
    loud = protocol.encode(0, sound * 1e6, hello)  # does not come round to the other sign
    protocol.decode(loud, hello, back)
    assert np.array_equal(np.sign(back), np.sign(sound))


@given(st.binary(max_size=3000))
def test_only_frames_are_sound(message: bytes) -> None:
    hello = Hello(48000, 1, 384, "f32")
    if len(message) != hello.message_length or message[0] != protocol.AUDIO:
        with pytest.raises(ProtocolError):
            protocol.frame_number(message, hello)


# --- who may come in --------------------------------------------------------------------------


def test_beyond_this_machine_a_token_is_needed() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert is_loopback(host) and token_for(host, None) is None
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", "127.0.0.1.example.org"):
        with pytest.raises(GuardError, match="--token auto"):
            token_for(host, None)
    tokens = {token_for("0.0.0.0", "auto") for _ in range(9)}
    assert len(tokens) == 9 and all(token and len(token) == 32 for token in tokens)
    assert token_for("127.0.0.1", "correct-horse-battery") == "correct-horse-battery"
    for weak in ("", "secret", "x" * 200, "a token with blanks", "ünicode-is-no-token"):
        with pytest.raises(GuardError, match="16 to 128"):
            token_for("127.0.0.1", weak)


def test_hosts_and_origins() -> None:
    near, far = Guard("127.0.0.1", None), Guard("0.0.0.0", "t" * 16)
    for header in ("127.0.0.1:7860", "localhost:9", "[::1]:7860", "localhost", "LOCALHOST:1"):
        assert near.knows_host(header) and far.knows_host(header)
    for header in (None, "", "evil.example:7860", "127.0.0.1.evil.example", "a@127.0.0.1",
                   "127.0.0.1:x", "127.0.0.1/evil", "[::1", "127.0.0.1,evil.example"):  # fmt: skip
        assert not near.knows_host(header) and not far.knows_host(header)
    assert far.knows_host("192.168.1.2:7860") and not near.knows_host("192.168.1.2:7860")
    host = "127.0.0.1:7860"
    assert near.knows_origin(f"http://{host}", host) and near.knows_origin(f"https://{host}", host)
    for origin in (None, "null", "http://evil.example", "http://127.0.0.1:1", f"ftp://{host}",
                   "http://127.0.0.1", f"http://{host}.evil.example", host):  # fmt: skip
        assert not near.knows_origin(origin, host)
    assert not near.knows_origin("http://", None)
    assert near.knows_token(None) and far.knows_token("t" * 16)
    for token in (None, "", "t" * 15, "t" * 17, "é"):
        assert not far.knows_token(token)


def test_an_allowance_is_used_up_and_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    allowance = Allowance(per_second=10, burst=5)
    assert [allowance.take() for _ in range(6)] == [True] * 5 + [False]
    now += 100
    assert [allowance.take() for _ in range(6)] == [True] * 5 + [False]


def test_the_command_refuses_what_would_let_others_in(tmp_path: Path) -> None:
    assert "--token auto" in refused("ui", "--host", "0.0.0.0")
    assert "16 to 128" in refused("ui", "--token", "abc")
    broken = tmp_path / "cert.pem"
    broken.write_text("no certificate")
    pytest.importorskip("websockets")
    assert str(broken) in refused("ui", "--certificate", broken)
    assert "cannot listen" in refused("ui", "--host", "192.0.2.1", "--token", "auto")
    assert "no-such-model" in refused("ui", "--port", 0, "--model", "no-such-model")


def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("rtsep.ui.server", "rtsep.ui.browser_session"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "websockets", None)
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    assert "pip install 'rtsep[ui]'" in refused("ui")


# --- a session's sound ------------------------------------------------------------------------


def sound(frames: int, hello: Hello) -> Any:
    noise = np.random.default_rng(1).standard_normal((frames, hello.frame, hello.channels)) / 9
    return noise.astype(np.float32)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 1), (44100, 2)])
def test_a_chain_is_engine_and_mixer(pool: Pool, rate: int, channels: int) -> None:
    hello = Hello(rate, channels, 384, "f32")
    frames = sound(40, hello)
    chain = BrowserChain(pool.default, pool, hello)
    assert chain.control(Control("gain", "noise", -6.0))
    assert chain.control(Control("mute", "noise", False))
    assert not chain.control(Control("gain", "drums", -6.0))
    chain.mixer.reset()
    heard = np.concatenate([chain.process(f).copy() for f in frames])
    chain.close()
    spec = chain.engine.spec
    step = make_step(models.bundle(), spec.streams(channels))
    engine = Engine(step, spec, channels, hello.frame, rate)
    stems = engine.process(np.concatenate(frames))
    wanted = np.moveaxis(stems, 1, 2) @ np.array([1.0, 10**-0.3])
    np.testing.assert_allclose(heard, wanted, atol=1e-6)


def test_a_session_leaves_no_control_to_the_next(tmp_path: Path) -> None:
    pool = Pool(str(models.write(models.controlled(), tmp_path / "mix.onnx")))
    chain = BrowserChain(pool.default, pool, Hello(16000, 1, 160, "f32"))
    chain.loaded.set_controls({"mix": "noise"})
    assert protocol.described(chain.mixer, chain.loaded.controls)["values"] == {"mix": (0.0, 1.0)}
    assert protocol.faders(chain.loaded) == [
        {"name": "mix", "labels": ("speech", "noise"), "low": 0.0, "high": 1.0}
    ]
    chain.close()
    again = BrowserChain(pool.default, pool, Hello(16000, 1, 160, "f32"))
    assert again.loaded is chain.loaded
    assert again.loaded.controls == {"mix": (1.0, 0.0)}
    again.close()


def test_a_model_of_two_channels_hears_one(pool: Pool) -> None:
    chain = BrowserChain("music", pool, Hello(44100, 1, 441, "f32"))
    out = chain.process(np.full((441, 1), 0.1, np.float32))
    assert out.shape == (441, 1) and np.all(np.isfinite(out))
    chain.close()
    assert chain.close() is None  # once


class Heard:
    """What a worker says."""

    def __init__(self, pool: Pool, hello: Hello) -> None:
        self.answers: dict[int, Any] = {}
        self.switched: list[tuple[BrowserChain, int]] = []
        self.hello = hello
        chain = BrowserChain(pool.default, pool, hello)
        self.worker = Worker(hello, chain, self.take, lambda *said: self.switched.append(said))

    def take(self, answer: bytes) -> None:
        out = np.empty((self.hello.frame, self.hello.channels), np.float32)
        protocol.decode(answer, self.hello, out)
        self.answers[protocol.frame_number(answer, self.hello)] = out

    def put(self, number: int, frame: Any) -> None:
        self.worker.put(number, protocol.encode(number, frame, self.hello))

    def wait(self, count: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while self.worker.times.count < count and self.worker.error is None:
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.fixture
def heard(pool: Pool) -> Any:
    heard = Heard(pool, Hello(16000, 1, 128, "f32"))
    heard.worker.start()
    yield heard
    heard.worker.stop()
    assert heard.worker.error is None


def test_frames_after_a_gap_go_unanswered_for_the_latency(heard: Heard) -> None:
    frames = sound(12, heard.hello)
    for number in (0, 1, 2, 7, 8, 9, 10, 11):
        heard.put(number, frames[number])
    heard.wait(8)
    stale = -(-heard.worker.chain.engine.latency_samples // 128)
    assert stale == 1 and heard.worker.lost == 4
    assert sorted(heard.answers) == [0, 1, 2, 8, 9, 10, 11]
    # What is answered is the sound of its number: the handmade model is a gain and a delay.
    late = heard.worker.chain.engine.latency_samples
    np.testing.assert_allclose(
        np.concatenate([heard.answers[n] for n in (9, 10, 11)])[late:],
        np.concatenate(frames[9:12])[:-late] * models.GAINS[0],
        atol=1e-6,
    )
    with pytest.raises(ProtocolError, match="increase"):
        heard.put(11, frames[0])


def test_a_backlog_is_dropped_at_once(pool: Pool) -> None:
    heard = Heard(pool, Hello(16000, 1, 128, "f32"))
    most = round(BACKLOG_S * 16000 / 128)
    frames = sound(2 * most, heard.hello)
    for number in range(most + 3):
        heard.put(number, frames[number])
    assert heard.worker.dropped == most
    heard.worker.start()
    heard.wait(3)
    heard.worker.stop()
    assert min(heard.answers) == most and heard.worker.answered == len(heard.answers)


def test_models_change_without_a_click(heard: Heard, pool: Pool) -> None:
    time_s = np.arange(128 * 200) / 16000
    tone = (0.5 * np.sin(2 * np.pi * 200 * time_s)).astype(np.float32).reshape(200, 128, 1)
    other = BrowserChain("chandna-speech", pool, heard.hello)
    for number, frame in enumerate(tone):
        if number == 50:
            heard.worker.control(Control("bypass", "", True))
        if number == 60:
            heard.worker.switch(other)
        heard.put(number, frame)
        heard.wait(number + 1)
    assert heard.worker.chain is other and other.mixer.bypass
    ((before, number),) = heard.switched
    before.close()
    taken = other.engine.latency_samples / 16000 + LISTEN_S + CROSS_S
    assert 60 + 125 * taken <= number <= 62 + 125 * taken
    out = np.concatenate([heard.answers[n] for n in range(200)])[:, 0]
    steps = np.abs(np.diff(out[128:]))
    slope = 0.5 * 2 * np.pi * 200 / 16000
    assert np.max(steps) < 1.5 * slope  # both are the late tone, a fade apart
    assert np.max(np.abs(out[-1600:])) > 0.45  # the original is heard, through either


def test_another_model_keeps_the_controls_of_its_sources(heard: Heard, pool: Pool) -> None:
    chain, same = heard.worker.chain, BrowserChain("chandna-speech", pool, heard.hello)
    for change in (
        Control("gain", "speech", -6.0),
        Control("mute", "speech", True),
        Control("solo", "noise", True),
        Control("mute", "noise", False),
        Control("bypass", "", True),
    ):
        assert chain.control(change)
    same.go_on_from(chain)
    assert protocol.described(same.mixer) == {
        "gains_db": [-6.0, 0.0], "muted": [True, False], "soloed": [False, True],
        "bypass": True, "values": {},
    }  # fmt: skip
    other = BrowserChain("dilated-speakers", pool, heard.hello)
    other.go_on_from(chain)
    assert protocol.described(other.mixer) == {
        "gains_db": [0.0, 0.0], "muted": [False, True], "soloed": [False, False],
        "bypass": True, "values": {},
    }  # fmt: skip


def test_a_fault_of_the_model_ends_the_worker_and_is_kept(pool: Pool) -> None:
    heard = Heard(pool, Hello(16000, 1, 128, "f32"))
    heard.worker.chain.engine.process = lambda *_: 1 / 0  # type: ignore
    heard.worker.start()
    heard.put(0, sound(1, heard.hello)[0])
    heard.wait(1)
    assert isinstance(heard.worker.error, ZeroDivisionError)
    heard.worker.stop()


def test_a_pool_loads_nothing_twice(pool: Pool) -> None:
    first = pool.take("chandna-speech", 1)
    first.step()
    pool.give("chandna-speech", first)
    assert pool.take("chandna-speech", 1) is first
    assert pool.take("chandna-speech", 1) is not first
    assert pool.names[0] == "tiny" and {"speech", "music"} < set(pool.names)
    with pytest.raises(ValueError, match="no such model"):
        pool.take("../tiny.onnx", 1)


def test_a_tone_is_drawn_where_and_as_loud_as_it_is() -> None:
    rate, hz, latency = 48000, 1000.0, 500
    scope = Scope(1, rate)
    spectra = Spectra(scope, 8000.0, latency)
    time_s = np.arange(rate // 2) / rate
    tone = (0.01 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)[:, None]
    late = np.concatenate([np.zeros((latency, 1), np.float32), tone])[: len(tone)]
    columns = []
    for first in range(0, len(tone), 384):
        part = slice(first, first + 384)
        scope.put(tone[part], late[part][:, None])
        columns.append(spectra.columns())
        if len(columns[-1]):
            assert 0.004 < min(spectra.peaks) <= max(spectra.peaks) < 0.0101
    found = np.concatenate(columns)
    assert found.shape == (round(COLUMNS_HZ / 2), 2, BANDS)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])  # aligned
    edges = hertz(np.linspace(*mel(np.array([60.0, 8000.0])), BANDS + 1))
    band = int(np.argmax(found[-1, 0]))
    assert edges[band - 1] <= hz <= edges[band + 2]
    level_db = LEVELS_DB[0] + found[-1, 0, band] / 255 * (LEVELS_DB[1] - LEVELS_DB[0])
    assert -47 < level_db < -39  # of -40 dB re full scale, the window's main lobe


def test_drawing_never_holds_the_sound_up() -> None:
    scope = Scope(1, 16000)
    spectra = Spectra(scope, 8000.0, 0)
    block = np.full((128, 1), np.nan, np.float32)
    for _ in range(1000):  # nobody draws
        scope.put(block, block[:, None])
    assert 0.3 * COLUMNS_HZ < len(spectra.columns()) < 1.1 * COLUMNS_HZ
    assert len(spectra.columns()) == 0


def test_a_pool_is_for_any_thread(pool: Pool) -> None:
    taken: list[LoadedModel] = []
    threads = [
        threading.Thread(target=lambda: taken.append(pool.take("tiny", 1))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(loaded.step) for loaded in taken}) == 8
