from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import random_cases
from tests.support.jack import missing, start_server, stop_server
from tests.support.paths import DEMO

pytest_plugins = ["tests.support.cpu"]
# One thread for torch, in this process and those it starts: two threads do not speed up small
# networks and wait for each other on a busy machine. Numpy and torch are imported after this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Streams remember what they needed; those of tests neither read nor change what the user's did.
_STATE = tempfile.TemporaryDirectory()
os.environ["XDG_STATE_HOME"] = _STATE.name
# A shell starts background jobs with SIGINT ignored, and children inherit that; tests send SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak",
        action="store_true",
        help="also run the tests of many minutes, and try twenty times as many random cases",
    )


def pytest_configure(config: pytest.Config) -> None:
    random_cases.begin(soak=config.getoption("soak"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of many minutes, which `make soak` runs."""
    if not config.getoption("soak"):
        left_out = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def jack() -> Iterator[str]:
    """Run a JACK server with the dummy driver; the value is its name as a PortAudio device.

    48 kHz, periods of 128 samples, two inputs and two outputs. The server has a name of its own,
    so it disturbs no other; PortAudio lists devices once, so it is initialised anew around it.
    """
    reason = missing()
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


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the demo recording, eight times over, and return its path."""
    import numpy as np
    import soundfile

    sound, rate = soundfile.read(DEMO, dtype="float32")
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.tile(sound, 8), rate)
    return path
