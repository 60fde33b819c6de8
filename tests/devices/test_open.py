"""Devices by their names: each kind is one row of a table."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtsep.devices import blocks
from rtsep.devices import open as opening
from rtsep.devices.device import Device
from rtsep.devices.fake import FakeDevice
from rtsep.devices.open import BACKENDS, Backend, DeviceOptions, open_device
from rtsep.devices.portaudio.client import Process
from rtsep.errors import DeviceError
from rtsep.runtime.resampled import longest_wait


@pytest.fixture(autouse=True)
def no_sound_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(query: int | str | None, kind: str, process: Process) -> None:
        raise DeviceError(f"there is no sound card {query}")

    monkeypatch.setattr(opening, "find", find)


def test_a_backend_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, options: DeviceOptions, process: Process, hop_s: object) -> Device:
        block = options.block or 1
        return FakeDevice(int(name[5:]), options.channels, 2, block, 2 * block)

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


@given(
    rate=st.sampled_from([8000, 16000, 44_100, 48_000, 96_000]),
    model=st.sampled_from([(16000, 64), (16000, 128), (16000, 160), (44_100, 512), (48_000, 480)]),
    usual=st.sampled_from([64, blocks.USUAL]),
)
def test_blocks_divide_the_hop_where_that_can_be(
    rate: int, model: tuple[int, int], usual: int
) -> None:
    """A hop then waits for no more than its own samples, less the last block."""
    model_rate, step = model
    block = blocks.choose(rate, Fraction(step, model_rate), usual)
    assert usual / 2 <= block <= 2 * usual
    hop = Fraction(step * rate, model_rate)
    there = [n for n in range(1, 2 * usual + 1) if 2 * n >= usual and hop % n == 0]
    assert (hop % block == 0) == bool(there)
    if there:
        waiting = longest_wait(rate, model_rate, block, step)
        assert abs(waiting - (hop - block) / rate * model_rate) < 1
    else:
        assert block == usual


def test_a_server_prescribes_blocks_and_options_override_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = {"index": 0, "default_samplerate": 48_000.0, "max_output_channels": 2}
    hop_s, found = Fraction(160, 16_000), []

    def hosted(*arguments: Any) -> None:
        found.append(arguments[6])
        raise DeviceError("that is enough")

    monkeypatch.setattr(opening, "Hosted", hosted)
    for period, block in ((0, None), (256, None), (256, 64)):
        speaker = {**card, "period": period}
        monkeypatch.setattr(opening, "find", lambda *_, speaker=speaker: speaker)
        with pytest.raises(DeviceError, match="enough"):
            open_device("USB", DeviceOptions(block=block), hop_s=hop_s)
    assert found == [120, 256, 64]
