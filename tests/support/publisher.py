"""A server on loopback that publishes files well, or badly in many ways."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Publisher:
    """Files by name, and how the next answers behave.

    Attributes
    ----------
    files
        Contents by name.
    faults
        For the next answers, in order: ``cut`` (half of the rest), ``html``, ``error``,
        ``endless``, ``slow``, ``silent``; none for a plain answer.
    requests
        Range header of each request so far, or an empty text.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.ranges = True
        self.address = ""

    def table(self, path: Path, **models: list[str]) -> Path:
        """Write a table of models with these files."""
        lines = []
        for name, files in models.items():
            lines += [f"[{name}]", 'purpose = "a test"', 'author = "Somebody"']
            lines += ['licence = "MIT"', "sample_rate = 16000", "latency_ms = 32"]
            for file in files:
                content = self.files[file]
                lines += [f"[[{name}.files]]", f'url = "{self.address}/{file}"']
                lines += [f'sha256 = "{hashlib.sha256(content).hexdigest()}"']
                lines += [f"bytes = {len(content)}"]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


@contextmanager
def publish() -> Iterator[Publisher]:
    """Serve until the end of the ``with`` block."""
    publisher = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            publisher.requests.append(asked)
            fault = publisher.faults.pop(0) if publisher.faults else ""
            content = publisher.files.get(self.path.strip("/"))
            if fault == "error" or content is None:
                self.send_error(404)
                return
            if fault == "html":
                self._head(200, 30, "text/html")
                self.wfile.write(b"<html>please sign in</html>   ")
                return
            start = 0
            if asked and publisher.ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            rest = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/*")
            if fault != "endless":
                self.send_header("Content-Length", str(len(rest)))
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            try:
                if fault == "cut":
                    self.wfile.write(rest[: len(rest) // 2])
                elif fault == "silent":
                    time.sleep(1.5)
                elif fault == "endless":
                    while True:
                        self.wfile.write(bytes(1 << 16))
                elif fault == "slow":
                    for at in range(len(rest)):
                        self.wfile.write(rest[at : at + 1])
                        self.wfile.flush()
                        time.sleep(0.02)
                else:
                    self.wfile.write(rest)
            except OSError:
                pass  # the client has gone

        def _head(self, status: int, length: int, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.send_header("Content-Type", kind)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    publisher.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
