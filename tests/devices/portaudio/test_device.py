"""The sound card's own process: what goes through it, its loss, its return, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsep.devices.portaudio import device as portaudio_device
from rtsep.devices.portaudio.client import Process
from rtsep.devices.portaudio.device import Hosted
from rtsep.devices.portaudio.shared_memory import Shared, attach
from rtsep.errors import DeviceError, LostError
from tests.support.jack import JACK_BLOCK, JACK_RATE, start_server, stop_server

CARD = "system, JACK Audio Connection Kit"


def until(true: Any, seconds: float = 20.0) -> bool:
    """Wait until something is true; tell whether it is."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


def test_shared_memory_is_zeros_and_has_no_name() -> None:
    memory = Shared()
    for size in (5000, 9000):
        cells = np.frombuffer(memory.allocate(size), np.uint8)
        assert len(cells) == size and not cells.any()
        cells[:] = 7
        np.testing.assert_array_equal(np.frombuffer(attach(memory.key, size), np.uint8), cells)


def test_what_the_process_cannot_do_is_a_sentence() -> None:
    process = Process()
    try:
        with pytest.raises(DeviceError, match="no such thing"):
            process.find("no such thing", "input")
        assert process.alive
        process.kill()
        with pytest.raises(LostError):
            process.find(None, "input")
    finally:
        process.close()
        process.close()
    assert not process.alive


PARENT = """
import sys, time
from rtsep.devices.portaudio.client import Process
process = Process()
try:
    process.find("no such thing", "input")
except ValueError:
    pass
print(process._child.pid, flush=True)
time.sleep(60)
"""


def test_the_process_ends_with_its_parent_even_if_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, signal.SIGINT)  # is for the parent
        os.kill(child, signal.SIGTERM)
        assert Path(f"/proc/{child}").exists() or sys.platform != "linux"
        parent.kill()

    def gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{child}/stat")
        return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"

    assert until(gone)


@pytest.mark.device
@pytest.mark.parametrize("own_clock", [0, JACK_RATE])
def test_a_source_goes_through_the_process(
    jack: str, own_clock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one clock and, as if the microphone were another device, with two."""
    monkeypatch.setattr(portaudio_device, "_own_clock", lambda *_: own_clock)
    process = Process()
    card = process.find(jack, "input")
    device = Hosted(process, card, card, JACK_RATE, 1, 2, JACK_BLOCK, 8 * JACK_BLOCK)
    assert ("two clocks" in device.latency_terms()) == bool(own_clock)
    with device:
        assert until(lambda: device.stats().callbacks > 750)
        assert device.active
        assert device.input.written == pytest.approx(device.stats().callbacks * JACK_BLOCK, abs=999)
        if own_clock:
            assert abs(device.correction) < 1e-3
            assert device._control["feeding"]
    assert not device.active


@contextmanager
def killed_after(process: subprocess.Popen[str], seconds: float = 120.0) -> Iterator[None]:
    """Let no test wait for ever for a line."""
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Return the first line with these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"it ended and never said {words!r}")


@contextmanager
def server(name: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A JACK server that a test may kill and start again; its processes, the newest last."""
    running = []
    first = start_server(name, ["-r"])
    assert first is not None
    running.append(first)
    try:
        yield running
    finally:
        if running[-1].poll() is not None:
            # JACK's registry in shared memory has eight places: a server that was killed keeps its
            # own until it is started again under its name, and ends in order.
            restart(running, name)
        for each in running:
            stop_server(each)


def restart(running: list[subprocess.Popen[bytes]], name: str) -> float:
    """Start the server again; return the time since when it answers."""
    again = start_server(name, ["-r"])
    assert again is not None
    running.append(again)
    return time.monotonic()


def time_to_look(name: str) -> float:
    """How long a new process takes here to look for devices, in seconds."""
    code = "from rtsep.devices import callback, portaudio as p; p.refresh(); p.find(None, 'input')"
    start = time.monotonic()
    environment = {**os.environ, "JACK_DEFAULT_SERVER": name}
    subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - start


@pytest.mark.device
def test_a_server_that_died_is_waited_for(jack: str, tmp_path: Path) -> None:
    name = f"rtsep-test-back-{os.getpid()}"
    environment = {**os.environ, "JACK_DEFAULT_SERVER": name}
    command = [sys.executable, "-u", "-m", "rtsep", "run", "--device", CARD]
    command += ["--record", str(tmp_path / "r"), "--json", str(tmp_path / "s.json")]
    with server(name) as running:
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        with killed_after(run):
            read_until(run, "RTF")
            running[-1].kill()
            running[-1].wait()
            read_until(run, "has gone")
            time.sleep(1.0)
            back = restart(running, name)
            read_until(run, "is back")
            took = time.monotonic() - back
            read_until(run, "RTF")
            run.send_signal(signal.SIGINT)
            rest, _ = run.communicate()
        pace = time_to_look(name)
    assert run.returncode == 0
    assert took <= max(2.0, 3 * pace), "a busy machine takes longer for everything"
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["completed"] and summary["device_losses"] == 1
    assert "the device was lost 1 times" in rest
    files = [soundfile.info(path) for path in (tmp_path / "r").glob("*.wav")]
    assert len(files) == 3
    separated = round(summary["separated_seconds"] * JACK_RATE)
    assert {file.frames for file in files} == {separated}
    gap = summary["seconds"] - summary["device_away_s"] - summary["separated_seconds"]
    assert -0.2 < gap < 3.0 + 3 * pace  # up to the time it took to notice, and to start


@pytest.mark.device
def test_a_device_that_stays_away_is_given_up(jack: str, tmp_path: Path) -> None:
    name = f"rtsep-test-away-{os.getpid()}"
    environment = {**os.environ, "JACK_DEFAULT_SERVER": name}
    command = [sys.executable, "-u", "-m", "rtsep", "run", "--device", CARD, "--give-up", "1"]
    with server(name) as running:
        run = subprocess.Popen(
            [*command, "--record", str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with killed_after(run):
            read_until(run, "RTF")
            running[-1].kill()
            _, complaints = run.communicate()
    assert run.returncode == 3
    assert complaints == "rtsep: system → system has gone\n"
    lengths = {soundfile.info(path).frames for path in tmp_path.glob("*.wav")}
    assert len(lengths) == 1 and lengths != {0}


@pytest.mark.device
def test_a_server_that_comes_back_at_another_rate_goes_on_in_a_folder_of_its_own(
    jack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"rtsep-test-rate-{os.getpid()}"
    environment = {**os.environ, "JACK_DEFAULT_SERVER": name}
    command = [sys.executable, "-u", "-m", "rtsep", "run", "--device", CARD]
    with server(name) as running:
        run = subprocess.Popen(
            [*command, "--record", str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        with killed_after(run):
            read_until(run, "RTF")
            running[-1].kill()
            running[-1].wait()
            monkeypatch.setattr("tests.support.jack.JACK_RATE", 44_100)
            restart(running, name)
            assert "44100 Hz" in read_until(run, "is back")
            read_until(run, "RTF")
            run.send_signal(signal.SIGINT)
            run.communicate()
    assert run.returncode == 0
    rates = {soundfile.info(path).samplerate for path in tmp_path.glob("*.wav")}
    again = {soundfile.info(path).samplerate for path in (tmp_path / "2").glob("*.wav")}
    assert (rates, again) == ({48_000}, {44_100})
