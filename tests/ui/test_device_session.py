"""`rtsep ui --device`: this machine's own stream, shown and changed in browsers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.support import models
from tests.support.browser import chromium, program
from tests.support.command import NO_CARD, refused, rtsep, stems
from tests.support.patience import PATIENCE_S
from tests.support.ui_client import greeting, session
from tests.support.ui_server import REFUSED, Address

pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosed

TOKEN = "correct-horse-battery"
HOP_RATE_HZ = 16000


@contextmanager
def running(folder: Path, *options: object) -> Iterator[Address]:
    """`rtsep ui` on a free port, without a sound card; ended by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-c", NO_CARD, "ui", "--port", "0", *map(str, options)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        while "open http" not in (line := process.stdout.readline()):
            assert line, process.communicate(timeout=PATIENCE_S)[1]
        address = Address(re.search(r"http://\S+", line)[0])  # type: ignore[index]
        address.process = process
        yield address
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, "")
    assert "s separated, RTF" in out


class Watcher:
    """One who looks on: what was said last of each kind, and all pictures."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.said: dict[str, Any] = {}
        self.pictures: list[bytes] = []
        socket.send('{"type": "watch"}')
        threading.Thread(target=self._read, daemon=True).start()
        self.until(lambda: "status" in self.said)

    def _read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = self.socket.recv()
                if isinstance(message, bytes):
                    self.pictures.append(message)
                else:
                    told = json.loads(message)
                    self.said[told["type"]] = told

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def ask(self, **command: object) -> None:
        self.said.pop("problem", None)
        self.socket.send(json.dumps(command))

    def refused(self, **command: object) -> str:
        self.ask(**command)
        self.until(lambda: "problem" in self.said)
        return str(self.said["problem"]["text"])


def joined(address: str, stack: ExitStack) -> Watcher:
    host, _, token = address.removeprefix("http://").partition("/#token=")
    assert token == TOKEN
    return Watcher(stack.enter_context(session(host, TOKEN)))


def test_whoever_looks_on_sees_and_turns_the_same_knobs(tmp_path: Path, talk: Path) -> None:
    options = ("--device", talk, "--model", "chandna-speech", "--token", TOKEN, "--sessions", 3)
    with running(tmp_path, *options) as address, ExitStack() as stack:
        one, other = joined(address, stack), joined(address, stack)
        ready, status = one.said["ready"], one.said["status"]
        assert ready["model"] == status["model"] == "chandna-speech"
        assert ready["sources"] == ["speech", "noise"]
        assert ready["controls"] == {
            "gains_db": [0.0, -60.0], "muted": [False, False], "soloed": [False, False],
            "bypass": False, "values": {},
        }  # fmt: skip
        assert ready["faders"] == []
        assert status["sample_rate"] == HOP_RATE_HZ and status["latency_ms"]["overlap"] > 0

        # Pictures come, and move.
        one.until(lambda: len(one.pictures) >= 45)
        assert len(set(one.pictures)) > 40
        count, signals = one.pictures[-1][8:10]
        levels = np.frombuffer(one.pictures[-1], np.uint8, offset=12 + signals)
        assert signals == 3 and len(levels) == count * signals * ready["bands"]

        # What one turns, the other sees.
        one.ask(type="gain", source="noise", db=-6)
        one.ask(type="mute", source="speech", on=True)
        one.ask(type="solo", source="noise", on=True)
        one.ask(type="bypass", on=True)
        wanted = {
            "gains_db": [0.0, -6.0], "muted": [True, False], "soloed": [False, True],
            "bypass": True, "values": {}, "type": "controls",
        }  # fmt: skip
        other.until(lambda: other.said.get("controls") == wanted)

        # A page is told the controls after its command, also if they are what they were before it.
        one.until(lambda: one.said.get("controls") == wanted)
        del one.said["controls"]
        one.ask(type="bypass", on=False)
        one.ask(type="bypass", on=True)
        one.until(lambda: one.said.get("controls") == wanted)

        one.ask(type="record", on=True)
        other.until(lambda: other.said["status"]["recording"])
        assert "recording to" in other.said["notice"]["text"]
        other.ask(type="model", name="speakers")
        one.until(lambda: one.said["ready"]["model"] == "speakers")
        assert one.said["ready"]["sources"] == ["speaker1", "speaker2", "noise"]
        one.until(lambda: one.said.get("notice", {}).get("text") == "the model is speakers now")
        one.until(lambda: not one.said["status"]["busy"])
        one.ask(type="record", on=False)
        other.until(lambda: not other.said["status"]["recording"])

        assert "no such model" in one.refused(type="model", name="/etc/passwd")
        assert "no such device" in one.refused(type="device", name=str(talk))
        assert "no such source" in one.refused(type="mute", source="drums", on=True)
        assert "the model has none" in one.refused(type="control", name="stem", values=[1])
        one.ask(type="device", name="demo")
        other.until(lambda: "demo" in other.said.get("notice", {}).get("text", ""))

        # A third place is all there is, and what breaks the rules ends itself only.
        host = address.removeprefix("http://").partition("/")[0]
        for message in (greeting(), b"\0" * 100, '{"type": "gain"}'):
            with session(host, TOKEN) as bad, pytest.raises(ConnectionClosed) as caught:
                if message != greeting():
                    bad.send('{"type": "watch"}')
                bad.send(message)
                while True:
                    bad.recv(PATIENCE_S)
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008
        joined(address, stack)
        with pytest.raises(REFUSED):
            session(host, TOKEN).__enter__()
        one.until(lambda: one.said["status"]["separated_seconds"] > 1)
    (folder,) = tmp_path.glob("rtsep-*")
    assert set(stems(folder)) == {"mixture", "speech", "noise"}
    assert set(stems(folder / "2")) == {"mixture", "speaker1", "speaker2", "noise"}


def test_the_end_of_the_stream_is_the_end_of_the_panel(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(16000, np.float32), 16000)
    done = subprocess.run(
        [sys.executable, "-c", NO_CARD, "ui", "--port", "0", "--device", "short.wav"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0 and " s separated, RTF" in done.stdout, done.stderr


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    for option, value in (
        *(("--output", 0), ("--channels", 2), ("--block", 64), ("--buffer", 5)),
        *(("--on-late", "mute"), ("--scene", "call"), ("-l", "speech"), ("-r", tmp_path / "r")),
    ):
        assert "needs --device" in (sentence := refused("ui", "--port", 0, option, value))
        assert option in sentence
    assert "--no-reconnect needs --device" in refused("ui", "--port", 0, "--no-reconnect")
    nothing = rtsep("ui", "--port", 0, "--device", tmp_path / "no-such.wav")
    assert nothing.exit_code == 2 and "no-such.wav" in nothing.stderr


@pytest.mark.device
def test_a_browser_shows_the_stream_and_turns_its_knobs(
    tmp_path: Path,
    talk: Path,
) -> None:
    program()
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(16000), 16000)
    model = models.write(models.controlled(), tmp_path / "mix.onnx")
    options = ("--device", talk, "--model", model, "--control", "mix=0.5,0.5", "--token", TOKEN)
    fixed = ("--buffer", 20)  # no notice of another headroom hides what is waited for
    with (
        running(tmp_path, *options, *fixed) as address,
        ExitStack() as stack,
        chromium(tmp_path, silence) as page,
    ):
        watcher = joined(address, stack)
        page.open(address)
        page.wait("document.querySelector('#state').textContent === 'live'")
        names = "[...document.querySelectorAll('.strip .name')].map((e) => e.textContent)"
        assert page.ask(names) == ["mixture", "speech", "noise"]
        assert page.ask("document.querySelector('#start').hidden")
        page.wait("document.querySelector('#latency').textContent.includes('ms')")

        first = [page.screenshot(f".strip:nth-child({i}) .view") for i in (1, 2, 3)]
        page.click(".strip:nth-child(2) input", across=0.6)
        watcher.until(lambda: -20 < watcher.said.get("controls", {}).get("gains_db", [0])[0] < -12)
        second = [page.screenshot(f".strip:nth-child({i}) .view") for i in (1, 2, 3)]
        assert all(a != b for a, b in zip(first, second, strict=True)), "a spectrogram stands still"

        assert page.ask("document.querySelectorAll('#faders input').length") == 2
        page.wait("document.querySelector('#faders output').textContent === '0.50'")
        page.click("#faders label:nth-child(2) input", across=0.9)
        watcher.until(lambda: watcher.said["controls"]["values"]["mix"][1] > 0.8)
        watcher.ask(type="control", name="mix", values=[0.25, 1])
        page.wait("document.querySelector('#faders output').textContent === '0.25'")

        # What somebody else turns is seen here.
        watcher.ask(type="mute", source="noise", on=True)
        watcher.ask(type="gain", source="noise", db=-12)
        strip = "document.querySelector('.strip:nth-child(3)')"
        page.wait(f"{strip}.querySelector('.mute').ariaPressed === 'true'")
        page.wait(f"{strip}.querySelector('input').value === '-12'")
        page.ask("document.activeElement.blur()")
        page.key("b", "KeyB", 66)
        watcher.until(lambda: watcher.said["controls"]["bypass"])
        watcher.ask(type="bypass", on=False)
        page.wait("document.querySelector('#separated').ariaPressed === 'true'")

        page.click("#record")
        page.wait("document.querySelector('#recordtext').textContent === 'Stop'")
        (tmp_path / "station.png").write_bytes(page.screenshot())
        page.click("#record")
        page.wait("document.querySelector('#recordtext').textContent === 'Record'")
        page.wait("document.querySelector('#notice').textContent.startsWith('recorded')")
        page.ask(
            "(() => { const m = document.querySelector('#model'); m.value = 'speakers';"
            "m.dispatchEvent(new Event('change')); })()"
        )
        page.wait("document.querySelector('.strip:nth-child(2) .name').textContent === 'speaker1'")
        page.wait("!document.querySelector('#model').disabled")
        assert page.problems == []
    (folder,) = tmp_path.glob("rtsep-*")
    assert set(stems(folder)) == {"mixture", "speech", "noise"}
