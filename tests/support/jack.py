"""A virtual sound card: a JACK server with the dummy driver."""

from __future__ import annotations

import ctypes.util
import shutil
import subprocess
import sys
import time
from typing import Any

from tests.support.patience import PATIENCE_S

JACK_RATE, JACK_BLOCK = 48_000, 128


def missing() -> str | None:
    """Say what this machine lacks for a virtual sound card."""
    if not shutil.which("jackd"):
        return "jackd is not installed (Debian, Ubuntu: apt install jackd2)"
    if not ctypes.util.find_library("portaudio"):
        return "PortAudio is not installed (Debian, Ubuntu: apt install libportaudio2)"
    if not ctypes.util.find_library("jack"):
        return "the JACK library is not installed (Debian, Ubuntu: apt install libjack-jackd2-0)"
    return None


# In a process of its own: the JACK library crashes where it meets a second server.
_PROBE = """
import sys, time, jack
while True:
    try:
        jack.Client("probe", no_start_server=True, servername=sys.argv[1])
        break
    except jack.JackOpenError:
        time.sleep(0.1)
"""


def start_server(name: str, options: list[str]) -> subprocess.Popen[bytes] | None:
    """Start a JACK server and wait until it answers; None if it does not."""
    driver = f"-d dummy -r {JACK_RATE} -p {JACK_BLOCK} -C 2 -P 2".split()
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(
        ["jackd", "-n", name, *options, *driver], stdin=subprocess.DEVNULL, **quiet
    )
    with subprocess.Popen([sys.executable, "-c", _PROBE, name], **quiet) as probe:
        end = time.monotonic() + PATIENCE_S
        while probe.poll() is None and server.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        probe.kill()
    if probe.returncode == 0:
        return server
    stop_server(server)
    return None


def stop_server(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
