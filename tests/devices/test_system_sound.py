"""What other programs play is separated and heard where they played."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.devices import system_sound as module
from rtsep.devices.open import DEMO
from rtsep.devices.system_sound import system_sound
from rtsep.errors import DeviceError
from tests.support.patience import PATIENCE_S
from tests.support.pulse import Env, audible, likeness, modules, pactl, samples


@pytest.mark.device
def test_what_another_program_plays_is_heard_separated(server: Env, tmp_path: Path) -> None:
    demo, rate = soundfile.read(DEMO, dtype="float32")
    soundfile.write(tmp_path / "long.wav", np.tile(demo, 20), rate)
    player = subprocess.Popen(["paplay", str(tmp_path / "long.wav")], env=server)
    command = "-m rtsep run --device system --buffer 60 --block 512 --record"
    process = subprocess.Popen(
        [sys.executable, *command.split(), str(tmp_path)],
        env=server,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    recorder = ["parec", "-d", "speaker.monitor", "--channels=1", "--format=float32le"]
    heard_path = tmp_path / "heard.raw"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "speech.wav").exists():
            assert process.poll() is None and time.monotonic() < deadline, "no stream"
            time.sleep(0.1)
        with heard_path.open("wb") as file:
            rate = soundfile.info(tmp_path / "speech.wav").samplerate
            other = subprocess.Popen([*recorder, f"--rate={rate}"], env=server, stdout=file)
            while time.monotonic() < deadline and np.sum(audible(heard_path)) < 3 * rate:
                time.sleep(0.5)
            other.terminate()
            other.wait(20)
        assert pactl(server, "get-default-sink").startswith("rtsep-system.")
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        player.kill()
        player.wait()
    assert (process.returncode, complaints) == (0, "")
    assert pactl(server, "get-default-sink") == "speaker\n"
    assert not modules(server, "rtsep-system")
    speech, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    alike = likeness(samples(heard_path), speech, rate // 4)
    # A null sink's timing is rough, above all on a busy machine: pieces in which it skips can't
    # match. By chance none does: a quarter second of other speech reaches about 0.3.
    matching = np.sum(np.array(alike) > 0.99)
    assert matching >= max(4, len(alike) / 4), alike


@pytest.mark.parametrize(("platform", "how"), [("darwin", "BlackHole"), ("win32", "VB-Cable")])
def test_a_driver_is_found_or_named(
    platform: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = {"BlackHole": 3, "CABLE Output WASAPI": 5}

    def find(query: str, kind: str) -> dict[str, int]:
        if query not in devices or kind != "input":
            raise DeviceError(f"no device {query!r}")
        return {"index": devices[query]}

    monkeypatch.setattr(module.sys, "platform", platform)
    monkeypatch.setattr(module, "find", find)
    with system_sound() as found:
        assert found in ("3", "5")
    devices.clear()
    with pytest.raises(DeviceError, match=f"needs {how} .*: install it, choose it as the output"):
        system_sound().__enter__()
