"""The view of a running stream, in a terminal made of software: each key does what it says."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions

from rtsep.cli.terminal.bindings import KEYS, Desk
from rtsep.cli.terminal.screen import Line, painter, plain
from rtsep.cli.terminal.view import View
from tests.support.audio import gaussian as noise
from tests.support.command import NO_CARD, stems
from tests.support.models import bundle
from tests.support.patience import PATIENCE_S
from tests.support.stream import Hand, stream

_FAULT = """
from rtsep.runtime import model_step
from rtsep.runtime.ort_step import OrtStep
model_step.TAPE_FRAMES = 0
call, calls = OrtStep.__call__, []
def fail(self):
    call(self)
    calls.append(0)
    if len(calls) > 200:
        raise ZeroDivisionError("a fault")
OrtStep.__call__ = fail
"""
"""A model whose program, in Python, has a fault that shows after seconds."""
ARROWS = {"up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D", "enter": "\r"}


class Terminal:
    """`rtsep run` in a pseudo-terminal, and what is on its screen."""

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        width: int = 100,
        height: int = 30,
        prelude: str = "",
    ) -> None:
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        self.said = b""
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(self.master)
        self._size(width, height)

        def take_over() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        environment = {**os.environ, "TERM": "xterm-256color", "XDG_CONFIG_HOME": str(folder)}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", prelude + NO_CARD, "run", *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=take_over,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._lock = threading.Lock()
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                content = os.read(self.master, 1 << 16)
            except OSError:
                return
            with self._lock:
                self.said += content
                self._stream.feed(content)

    def _size(self, width: int, height: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width: int, height: int) -> None:
        with self._lock:
            self.screen.resize(height, width)
            self._size(width, height)

    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    def press(self, *keys: str) -> None:
        for key in keys:
            os.write(self.master, ARROWS.get(key, key).encode())

    def wait(self, condition: Callable[[list[str]], object], seconds: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + seconds
        while not condition(self.lines()):
            assert time.monotonic() < deadline, "\n".join(self.lines())
            time.sleep(0.02)

    def see(self, text: str, *, gone: bool = False) -> None:
        """Wait until a text is on the screen, perhaps over two lines, or no longer."""
        self.wait(lambda lines: (text in "".join(lines)) is not gone)

    def end(self) -> str:
        """Wait for the end; return what is said after the view."""
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert termios.tcgetattr(self.master) == self.before
        view, _, rest = self.said.rpartition(b"\x1b[?1049l")
        assert b"\x1b[?1049h" in view and b"\x1b[?1049h" not in rest, "the screen was given back"
        assert self.said.rfind(b"\x1b[?25h") > self.said.rfind(b"\x1b[?25l"), "so was the cursor"
        return rest.decode()


def meter(lines: list[str], name: str) -> str:
    """The line of a source."""
    return next((line for line in lines if line[1:].startswith(name) and "░" in line), "")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def start(*arguments: object, **options: Any) -> Terminal:
        terminals.append(Terminal(tmp_path, *arguments, **options))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def test_each_key_does_what_the_help_says(
    tmp_path: Path, talk: Path, started: Callable[..., Terminal]
) -> None:
    terminal = started("-d", talk, "-m", "chandna-speech", "--json", "s.json")
    tried: set[str] = set()

    def press(label: str, *keys: str) -> None:
        tried.add(next(key.label for key in KEYS if label == key.label))
        terminal.press(*keys)

    def shows(source: str, *texts: str) -> None:
        terminal.wait(lambda lines: all(text in meter(lines, source) for text in texts))

    shows("speech", "▸", "+0")
    shows("noise", "-inf")
    terminal.wait(lambda lines: any("▓" in line for line in lines[8:]))  # something is heard

    press("?", "?")
    for key in KEYS:
        terminal.see(f"{key.label:8} {key.what}")
    press("?", "?")
    shows("speech", "+0")

    press("1-9 ↑ ↓", "2")
    shows("noise", "▸")
    press("← → - +", "right", "+")
    shows("noise", " -39")
    press("← → - +", "left", "-", "-")
    shows("noise", "-inf")
    press("0", "0")
    shows("noise", " +0")
    press("1-9 ↑ ↓", "up")
    shows("speech", "▸")
    press("m", "m")
    shows("speech", " M")
    press("m", "m")
    terminal.wait(lambda lines: " M" not in meter(lines, "speech"))
    press("s", "s")
    shows("speech", " S")
    press("s", "s")
    terminal.wait(lambda lines: " S" not in meter(lines, "speech"))
    press("b", "b")
    terminal.see("BYPASS")
    press("b", "b")
    terminal.see("BYPASS", gone=True)

    press("r", "r")
    terminal.see("● REC")
    press("c", "c")
    terminal.see("Esc cancels")
    lines = terminal.lines()
    models = lines[next(i for i, line in enumerate(lines) if "Esc cancels" in line) + 1 :]
    marked = next(i for i, line in enumerate(models) if line.startswith("▸"))
    wanted = next(i for i, line in enumerate(models) if line.endswith(" speech"))
    terminal.press(*["down"] * (wanted - marked), "enter")
    terminal.see("the model is speech now")
    terminal.wait(lambda lines: "speech on " in lines[0] and "chandna" not in lines[0])
    terminal.see("● REC")
    press("r", "r")
    terminal.see("● REC", gone=True)
    terminal.see("recorded")  # else what is said next may be hidden by this

    press("w", "w")
    terminal.see("saved.toml")
    (scene,) = tmp_path.rglob("saved.toml")
    assert 'model = "speech"' in scene.read_text()

    press("d", "d")
    terminal.see("2 demo")
    terminal.press("down", "enter")
    terminal.see("demo: no device")

    press("q", "q")
    said = terminal.end()
    assert terminal.process.returncode == 0
    assert tried == {key.label for key in KEYS}
    assert "s separated, RTF" in said and "the model is speech now" in said
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["model"] == "speech" and told["completed"]
    (folder,) = tmp_path.glob("rtsep-*")
    for take in (folder, folder / "2"):
        recorded = stems(take)
        assert set(recorded) == {"mixture", "speech", "noise"}
        assert len({len(stem) for stem in recorded.values()}) == 1 and len(recorded["speech"])


def test_any_size_of_terminal(talk: Path, started: Callable[..., Terminal]) -> None:
    terminal = started("-d", talk, "-m", "chandna-speech", width=20, height=12)

    for width, height in ((20, 12), (100, 40), (20, 6), (33, 9), (20, 24), (80, 24)):
        terminal.resize(width, height)
        terminal.wait(
            lambda lines, height=height: (
                len(lines) == height
                and lines[0].startswith("chandna-speech")
                and lines[-1].startswith("? help  q quit")
                and sum(line.startswith("RTF") for line in lines) == 1
                and sum("? help" in line for line in lines) == 1
            )
        )
    terminal.wait(lambda lines: meter(lines, "speech"))
    terminal.resize(3, 2)
    time.sleep(0.3)
    terminal.resize(40, 20)
    terminal.wait(lambda lines: meter(lines, "speech"))
    terminal.press("q")
    assert "s separated" in terminal.end()


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM", "a fault"])
def test_the_terminal_is_given_back(way: str, talk: Path, started: Callable[..., Terminal]) -> None:
    terminal = started(
        "-d", talk, "-m", "chandna-speech", prelude=_FAULT if way == "a fault" else ""
    )
    terminal.wait(lambda lines: meter(lines, "speech"))
    if way == "SIGTERM":
        terminal.process.send_signal(signal.SIGTERM)
    elif way == "Ctrl-C":
        terminal.press("\x03")
    said = terminal.end()
    assert "s separated" in said
    assert ("ZeroDivisionError" in said) is (way == "a fault") is (terminal.process.returncode == 1)


def look() -> tuple[View, Desk]:
    """A view of a stream by hand."""
    x = noise(64 * 200)
    live = stream(Hand(16000, 1, 1, 64, 64, x), (1, 0))
    for _ in range(150):
        live.device.tick(x[:0], np.zeros((64, 1), np.float32), 0.0)  # type: ignore[attr-defined]
        live.turn()
    control: Any = SimpleNamespace(
        live=live,
        busy="",
        inputs=("mic \x1b[2J",),
        loaded=SimpleNamespace(name="tiny", bundle=bundle(), controls={}),
    )
    control.look_for_inputs = lambda: None
    control.switch_model = control.switch_device = lambda name: None
    report: Any = SimpleNamespace(live=live, latency_line=lambda: "latency 1 ms = all of it")
    desk = Desk(control, lambda: "wrote it", lambda sentence: None)
    view = View(report, desk)
    for second in range(3):
        view.look(float(second))
    return view, desk


@given(st.integers(1, 200), st.integers(1, 60), st.sampled_from(["", "?", "c", "d"]))
def test_it_is_never_larger_than_the_terminal(width: int, height: int, key: str) -> None:
    view, desk = LOOK
    desk.helping, desk.choice = False, None
    desk.press(key)
    lines = view.lines(width, height, "a notice\x1b[2J")
    assert len(lines) <= height
    assert all(cell_len(plain(line)) <= width and plain(line).isprintable() for line in lines)


LOOK = look()


def test_a_long_notice_goes_on_in_the_next_line() -> None:
    view, _ = LOOK
    lines = [plain(line) for line in view.lines(30, 20, "wrote " + "a" * 50 + ".toml")]
    assert len(lines) == 20
    assert "".join(lines[-4:-1]).strip() == "wrote " + "a" * 50 + ".toml"


def test_a_terminal_that_shrinks_while_it_is_drawn() -> None:
    """The next picture is whole."""
    content = io.StringIO()
    console = Console(file=content, force_terminal=True, width=30, height=20)
    screen = pyte.Screen(20, 6)

    def draw(width: int, height: int) -> list[Line]:
        console.size = ConsoleDimensions(20, 6)
        return [[(f"{number} of {height} x {width}"[:width], "bold")] for number in range(height)]

    with painter(console) as paint:
        paint(draw)
        paint(draw)
        pyte.Stream(screen).feed(content.getvalue())
    assert [line.rstrip() for line in screen.display] == [f"{n} of 6 x 20" for n in range(6)]


def test_loud_bands_are_drawn_dark() -> None:
    view, _ = look()
    drawn = [plain(line) for line in view.lines(80, 40, "")]
    assert any("█" in line[-1:] or "▓" in line[-1:] for line in drawn)
