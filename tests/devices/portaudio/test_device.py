"""The sound card's own process: what goes through it, its loss, its return, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.devices.portaudio import device as portaudio_device
from rtsep.devices.portaudio.client import Process
from rtsep.devices.portaudio.device import Hosted
from rtsep.devices.portaudio.shared_memory import Shared, attach
from rtsep.errors import DeviceError, LostError
from tests.support.jack import JACK_BLOCK, JACK_RATE, start_server, stop_server
from tests.support.patience import PATIENCE_S, until

CARD = "system, JACK Audio Connection Kit"


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

    until(gone)


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
        until(lambda: device.stats().callbacks > 750)
        assert device.active
        assert device.input.written == pytest.approx(device.stats().callbacks * JACK_BLOCK, abs=999)
        if own_clock:
            assert abs(device.correction) < 1e-3
            assert device._control["feeding"]
    assert not device.active


@contextmanager
def killed_after(process: subprocess.Popen[str], seconds: float = PATIENCE_S) -> Iterator[None]:
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


def restart(running: list[subprocess.Popen[bytes]], name: str) -> None:
    """Start the server again."""
    again = start_server(name, ["-r"])
    assert again is not None
    running.append(again)


@pytest.mark.device
def test_a_server_that_died_is_waited_for_also_if_it_comes_back_at_another_rate(
    jack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on where it was, or in a folder of its own."""
    name = f"rtsep-test-back-{os.getpid()}"
    environment = {**os.environ, "JACK_DEFAULT_SERVER": name}
    command = [sys.executable, "-u", "-m", "rtsep", "run", "--device", CARD]
    command += ["--record", str(tmp_path / "r"), "--json", str(tmp_path / "s.json")]
    with server(name) as running:
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        with killed_after(run):
            for rate in (JACK_RATE, 44_100):
                read_until(run, "RTF")
                running[-1].kill()
                running[-1].wait()
                read_until(run, "has gone")
                monkeypatch.setattr("tests.support.jack.JACK_RATE", rate)
                restart(running, name)
                said = read_until(run, "is back")
                assert rate == JACK_RATE or "44100 Hz" in said
            read_until(run, "RTF")
            run.send_signal(signal.SIGINT)
            rest, _ = run.communicate()
    assert run.returncode == 0
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["completed"] and summary["device_losses"] == 2
    assert "the device was lost 2 times" in rest
    recorded_s = 0.0
    for folder, rate in ((tmp_path / "r", JACK_RATE), (tmp_path / "r" / "2", 44_100)):
        files = [soundfile.info(path) for path in folder.glob("*.wav")]
        assert len(files) == 3 and {file.samplerate for file in files} == {rate}
        (frames,) = {file.frames for file in files}
        recorded_s += frames / rate
    assert recorded_s == pytest.approx(summary["separated_seconds"], abs=0.01)
    gap = summary["seconds"] - summary["device_away_s"] - summary["separated_seconds"]
    assert gap > -0.2  # the time it took to notice, and to start


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
