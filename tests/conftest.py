from __future__ import annotations

import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# One thread for torch, here and in what tests start: small networks gain nothing from two, and two
# wait for each other where other programs keep a core busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing timed is a pass or a fail.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
# What a shell starts in the background ignores Ctrl-C, and so do its children; tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

JACK_RATE, JACK_BLOCK = 48_000, 128


def _missing() -> str | None:
    """Say what this machine lacks for a virtual sound card."""
    if not shutil.which("jackd"):
        return "jackd is not installed (Debian, Ubuntu: apt install jackd2)"
    if not ctypes.util.find_library("portaudio"):
        return "PortAudio is not installed (Debian, Ubuntu: apt install libportaudio2)"
    if not ctypes.util.find_library("jack"):
        return "the JACK library is not installed (Debian, Ubuntu: apt install libjack-jackd2-0)"
    return None


# In a process of its own: the JACK library crashes where it meets a second server.
_PROBE = "import sys, jack; jack.Client('probe', no_start_server=True, servername=sys.argv[1])"


def start_server(name: str, options: list[str]) -> subprocess.Popen[bytes] | None:
    """Start a JACK server and wait until it answers; None if it does not."""
    driver = f"-d dummy -r {JACK_RATE} -p {JACK_BLOCK} -C 2 -P 2".split()
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(
        ["jackd", "-n", name, *options, *driver], stdin=subprocess.DEVNULL, **quiet
    )
    for _ in range(50):
        time.sleep(0.1)
        if server.poll() is not None:
            return None
        if subprocess.run([sys.executable, "-c", _PROBE, name], check=False, **quiet).returncode:
            continue
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


@pytest.fixture(scope="session")
def jack() -> Iterator[str]:
    """Run a JACK server with the dummy driver; the value is its name as a PortAudio device.

    48 kHz, periods of 128 samples, two inputs and two outputs. The server has a name of its own,
    so it disturbs no other; PortAudio lists devices once, so it is initialised anew around it.
    """
    reason = _missing()
    name = f"rtsep-test-{os.getpid()}"
    before = {key: os.environ.get(key) for key in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER")}
    os.environ.update(JACK_DEFAULT_SERVER=name, JACK_NO_START_SERVER="1")
    server = None
    if reason is None:
        server = start_server(name, ["-R", "-P", "60"]) or start_server(name, ["-r"])
        if server is None:
            reason = "jackd does not start, neither with -R nor without"
    try:
        if reason is None:
            _reinitialize()
            yield "system, JACK Audio Connection Kit"
        elif os.environ.get("CI") == "true":
            pytest.fail(reason)
        else:
            pytest.skip(reason)
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
        if server is not None:
            sys.modules["sounddevice"]._terminate()
            stop_server(server)
            sys.modules["sounddevice"]._initialize()


def _reinitialize() -> None:
    """Make PortAudio list the devices again."""
    if "sounddevice" in sys.modules:
        sounddevice = sys.modules["sounddevice"]
        sounddevice._terminate()
        sounddevice._initialize()
    else:
        import sounddevice
