"""Devices by their names: each kind is one row of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.devices import open as opening
from rtsep.devices.device import Device
from rtsep.devices.fake import FakeDevice
from rtsep.devices.open import BACKENDS, Backend, DeviceOptions, open_device
from rtsep.devices.portaudio.client import Process
from rtsep.errors import DeviceError


@pytest.fixture(autouse=True)
def no_sound_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(query: int | str | None, kind: str, process: Process) -> None:
        raise DeviceError(f"there is no sound card {query}")

    monkeypatch.setattr(opening, "find", find)


def test_a_backend_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, options: DeviceOptions, process: Process) -> Device:
        return FakeDevice(int(name[5:]), options.channels, 2, options.block, 2 * options.block)

    row = Backend(lambda name: name.startswith("fake:"), fake)
    monkeypatch.setattr(opening, "BACKENDS", (row, *BACKENDS))
    process = Process()
    opened = open_device("fake:8000", DeviceOptions(channels=3, block=32), process)
    assert (opened.sample_rate, opened.input.width, opened.block) == (8000, 3, 32)
    assert not process.alive, "only a sound card needs it"


def test_names_go_to_the_first_kind_that_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_device("demo").sample_rate == soundfile.info(opening.DEMO).samplerate
    soundfile.write("mine.wav", np.zeros((400, 2)), 8000)
    opened = open_device("mine.wav")
    assert (opened.sample_rate, opened.input.width) == (8000, 2)
    for name in ("USB 2.0", "missing.wav"):
        with pytest.raises(DeviceError, match=f"there is no sound card {name}"):
            open_device(name)
