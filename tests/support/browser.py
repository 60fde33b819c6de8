"""A headless Chromium, moved as a user moves it: mouse and keys by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE_S

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str:
    """The browser; without it, the test is skipped, except in CI."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    pytest.importorskip("websockets")
    if found is None:
        reason = "chromium is not installed (Debian, Ubuntu: apt install chromium)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return found


class Page:
    """The one page of a browser."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._calls = socket, 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; what the page complains of meanwhile is kept."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE_S))
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(str(message["params"]["exceptionDetails"]))
            elif message.get("method") == "Log.entryAdded":
                if message["params"]["entry"]["level"] == "error":
                    self.problems.append(str(message["params"]["entry"]))
            elif message.get("id") == self._calls:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def open(self, address: str, width: int = 1200, height: int = 900) -> None:
        self.size(width, height)
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.ask(f"document.querySelector({selector!r}).textContent"))

    def wait(self, expression: str, seconds: float = PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < end, f"{expression} is still false: {self.text('body')}"
            time.sleep(0.1)

    def click(self, selector: str, across: float = 0.5) -> None:
        """Press the mouse on an element, that far across it."""
        box = self.ask(
            f"(() => {{ const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center'}); return e.getBoundingClientRect().toJSON(); })()"
        )
        x, y = box["x"] + across * box["width"], box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, key: str, code: str, number: int, modifiers: int = 0) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=code,
                windowsVirtualKeyCode=number,
                modifiers=modifiers,
            )

    def screenshot(self, selector: str | None = None) -> bytes:
        """A PNG of what is seen, or of one element."""
        clip = {}
        if selector is not None:
            box = self.ask(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
            clip["clip"] = {**{k: box[k] for k in ("x", "y", "width", "height")}, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", **clip)["data"])

    def save_downloads(self, folder: Path) -> None:
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))


@contextmanager
def chromium(folder: Path, microphone: Path) -> Iterator[Page]:
    """Run a browser whose microphone hears a file, over and over."""
    from websockets.sync.client import connect

    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder / 'profile'}",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--autoplay-policy=no-user-gesture-required",
        "about:blank",
    ]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program(), *options], **quiet)
    try:
        known = folder / "profile" / "DevToolsActivePort"
        for _ in range(600):
            if known.exists() and known.read_text().count("\n") >= 1:
                break
            assert process.poll() is None, "chromium does not start"
            time.sleep(0.1)
        port = int(known.read_text().splitlines()[0])
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_S
        ) as answer:
            (target,) = (t for t in json.load(answer) if t["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None, ping_interval=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
