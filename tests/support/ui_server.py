"""`rtsep ui` as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE_S

websockets = pytest.importorskip("websockets.exceptions")
MODEL = "chandna-speech"
REFUSED = (
    websockets.InvalidStatus,
    websockets.InvalidMessage,
    ConnectionError,
    TimeoutError,
    EOFError,
)
"""What a client that is not let in gets."""


class Address(str):
    """What was printed, and who printed it."""

    process: subprocess.Popen[str]


@contextmanager
def running(*options: str) -> Iterator[Address]:
    """`rtsep ui` on a free port; the value is its address as printed."""
    command = [sys.executable, "-m", "rtsep", "ui", "--port", "0", "--model", MODEL, *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+", line)
        assert found, line + process.communicate(timeout=PATIENCE_S)[1]
        address = Address(found[0])
        address.process = process
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, err) == (0, "")
