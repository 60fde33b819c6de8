"""Run the checks in a child process, which a crash or an endless call can't take down with it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60.0
"""Longest time of a check, per level of strictness."""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes
    ----------
    name
        Name of the check.
    passed
        Whether the bundle passed.
    text
        Its figure, or the reason.
    """

    name: str
    passed: bool
    text: str


def validate(
    path: Path, strictness: int = 5, seed: int = 0, limit_s: float = LIMIT_S
) -> Iterator[Finding]:
    """Check a bundle in a child process; yield the result of each check when it is done.

    Parameters
    ----------
    path
        The bundle.
    strictness
        1 to 10: more sound and more cases.
    seed
        Seed of the noise.
    limit_s
        Longest time of a check, in seconds per level of strictness.
    """
    command = [sys.executable, "-m", "rtsep.conformance", str(path), str(strictness), str(seed)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    )
    assert child.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    current = "loading"
    try:
        while True:
            try:
                line = lines.get(timeout=limit_s * strictness)
            except queue.Empty:
                yield Finding(current, False, f"not done after {limit_s * strictness:.0f} s")
                return
            if line is None:
                break
            said = json.loads(line)
            if "begin" in said:
                current = said["begin"]
            else:
                yield Finding(said["name"], said["passed"], said["text"])
        if child.wait() != 0:
            yield Finding(current, False, f"the process ended with code {child.returncode}")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
