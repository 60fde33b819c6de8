"""Other programs hear what `rtsep run` plays, by a microphone that is there as long as it runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.cli import run as command
from rtsep.devices import virtual_mic as module
from rtsep.devices.open import DEMO
from rtsep.devices.virtual_mic import virtual_mic
from rtsep.errors import DeviceError
from tests.support.command import refused
from tests.support.patience import PATIENCE_S
from tests.support.pulse import Env, audible, likeness, modules, pactl, samples


def start(env: Env, *options: object) -> subprocess.Popen[str]:
    words = ["run", "--device", "demo", "--buffer", "60", "--block", "512", *map(str, options)]
    return subprocess.Popen(
        [sys.executable, "-m", "rtsep", *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(env: Env, name: str, process: subprocess.Popen[str]) -> None:
    """Until the stream plays into the microphone."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if modules(env, f"source_name={name} ") and pactl(env, "list", "short", "sink-inputs"):
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no microphone: {process.communicate()}")


@pytest.mark.device
def test_another_program_hears_the_separated_sound(server: Env, tmp_path: Path) -> None:
    demo, rate = soundfile.read(DEMO, dtype="float32")
    soundfile.write(tmp_path / "long.wav", np.tile(demo, 5), rate)
    voice = tmp_path / "long.wav"
    process = start(server, "--virtual-mic", "talk", "--record", tmp_path, "--device", voice)
    wait_for(server, "talk", process)
    assert pactl(server, "get-default-sink") == "speaker\n"
    heard_path = tmp_path / "heard.raw"
    recorder = ["parec", "-d", "talk", "--rate=16000", "--channels=1", "--format=float32le"]
    with heard_path.open("wb") as file:
        other = subprocess.Popen(recorder, env=server, stdout=file)
        # PulseAudio may stand still for seconds before it plays a low-latency stream.
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and np.sum(audible(heard_path)) < 3 * rate:
            time.sleep(0.5)
        other.terminate()
        other.wait(20)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, complaints) == (0, "")
    assert not modules(server, "talk"), "it goes with the program"

    heard = samples(heard_path)
    speech, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    assert rate == 16000 and len(heard) > rate
    alike = likeness(heard, speech, rate // 4)
    # A null sink's timing is rough: pieces in which it skips can't match.
    assert len(alike) >= 4 and np.median(alike) > 0.9


@pytest.mark.device
def test_a_name_is_taken_while_its_program_lives(server: Env) -> None:
    first = start(server, "--virtual-mic", "a.b")
    wait_for(server, "a.b", first)
    second = start(server, "--virtual-mic", "a.b", "--seconds", 1)
    _, complaints = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 2
    assert complaints == (
        "rtsep: there is a virtual microphone 'a.b' already: choose another name with "
        "--virtual-mic NAME\n"
    )
    first.kill()
    first.communicate()
    assert len(modules(server, "a.b")) == 2, "a killed program can't remove it"
    third = start(server, "--virtual-mic", "a.b", "--seconds", 1)
    _, complaints = third.communicate(timeout=PATIENCE_S)
    assert (third.returncode, complaints) == (0, "")
    assert not modules(server, "a.b")


def test_where_there_is_no_server_or_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems need no server")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="needs pactl, of PulseAudio or PipeWire: install it"):
        virtual_mic().__enter__()
    program = tmp_path / "pactl"
    program.write_text("#!/bin/sh\necho Connection failure: refused >&2\nexit 1\n")
    program.chmod(0o755)
    sentence = r"pactl list short failed: Connection failure: refused"
    with pytest.raises(DeviceError, match=sentence):
        virtual_mic().__enter__()


@pytest.mark.parametrize("name", ["", "my mic", "a\nb", "ü", "a'b", "x" * 61])
def test_names_that_cannot_be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "linux")
    with pytest.raises(DeviceError, match="is not a valid name"):
        virtual_mic(name).__enter__()


@pytest.mark.parametrize(("platform", "how"), [("darwin", "BlackHole"), ("win32", "VB-Cable")])
def test_a_driver_is_found_or_named(
    platform: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = {"BlackHole": 3, "CABLE Input WASAPI": 5}

    def find(query: str, kind: str) -> dict[str, int]:
        if query not in devices or kind != "output":
            raise DeviceError(f"no device {query!r}")
        return {"index": devices[query]}

    monkeypatch.setattr(module.sys, "platform", platform)
    monkeypatch.setattr(module, "find", find)
    with virtual_mic() as output:
        assert output in ("3", "5")
    with pytest.raises(DeviceError, match=r"^gone$"), virtual_mic():
        raise DeviceError("gone")
    devices.clear()
    with pytest.raises(DeviceError, match=f"needs {how} .*: install it, and choose it"):
        virtual_mic().__enter__()


def test_it_is_an_output_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "virtual_mic", lambda _: pytest.fail("opened"))
    sentence = refused("run", "--virtual-mic", "--output", "4", "--device", "demo")
    assert sentence == "rtsep: --virtual-mic is an output itself: leave --output out"
