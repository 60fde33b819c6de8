"""The examples run as they are, and do what they say."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import runpy
import sys
import threading
import time
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import rtsep
from rtsep.devices import open as opening
from rtsep.errors import DeviceError
from rtsep.evaluate.metrics import si_sdr_db
from rtsep.files.readers import read_all
from tests.support.audio import band
from tests.support.command import rtsep as rtsep_command
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No example is heard, except by a device of the tests."""

    def find(*_: object) -> None:
        raise DeviceError("there is no sound card")

    if request.node.get_closest_marker("device") is None:
        monkeypatch.setattr(opening, "find", find)


def run(name: str, *arguments: object) -> str:
    """Run an example as a program, in this process; return what it prints."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return said.getvalue()


def test_every_example_is_here_and_short() -> None:
    tested = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("*.py"))
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tested
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 70


def test_a_model_of_ones_own_is_trained_exported_and_run(tmp_path: Path) -> None:
    lines = (EXAMPLES / "own_model.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    data, model = tmp_path / "DATA", tmp_path / "mine.onnx"
    assert "64 files" in run("made_up_data.py", data)
    with pytest.MonkeyPatch.context() as patch:  # a step takes a second there, on any machine
        patch.setattr(time, "monotonic", count().__next__)
        said = run("own_model.py", data, model, 10)
    assert re.search(r"mine\.onnx: \d+ steps, SNR", said)
    improvements = []
    for number in (7, 15, 23, 31):  # held out
        speech, rate = read_all(data / f"speech-{number}.wav")
        mixture = speech + read_all(data / f"noise-{number}.wav")[0]
        estimate = rtsep.separate(mixture, rate, model)["speech"]
        improvements.append(si_sdr_db(estimate, speech) - si_sdr_db(mixture, speech))
    assert np.mean(improvements) > 0.5, "it has learned nothing"
    done = rtsep_command("run", "--device", "demo", "--model", model, "--seconds", 0.5)
    assert done.exit_code == 0 and "separated, RTF" in done.stdout


def test_asyncio_levels() -> None:
    said = run("asyncio_levels.py", "demo", 1.5)
    assert "ms = overlap" in said and "misses" in said
    assert len(re.findall(r"^speech +-?\d+\.\d dB  noise", said, re.MULTILINE)) >= 1


def test_pedalboard_vocals(tmp_path: Path) -> None:
    pytest.importorskip("pedalboard")
    song, out = tmp_path / "song.wav", tmp_path / "out.wav"
    soundfile.write(song, band(44100, 2, 44100), 44100)
    assert "1.0 s" in run("pedalboard_vocals.py", song, out)
    mix, rate = soundfile.read(out)
    assert (rate, mix.shape) == (44100, (44100, 2)) and np.any(mix)


@pytest.fixture
def own_stream() -> Any:
    """The module of the example with its own stream."""
    place = importlib.util.spec_from_file_location("own", EXAMPLES / "sounddevice_stream.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    try:
        place.loader.exec_module(module)
    except OSError:
        assert os.environ.get("CI") != "true", "PortAudio is not installed"
        pytest.skip("PortAudio is not installed (Debian, Ubuntu: apt install libportaudio2)")
    return module


def test_sounddevice_stream_is_constantly_late(own_stream: Any) -> None:
    suppressor, block = own_stream.Suppressor(), own_stream.BLOCK
    process, free = suppressor.sep.process, threading.Event()

    def held(part: Any) -> Any:
        free.wait()
        return process(part)

    suppressor.sep.process = held
    free.set()
    sound = band(40 * block, 1, own_stream.RATE).astype(np.float32)
    heard = np.full((40, block, 1), np.nan, np.float32)
    for i, out in enumerate(heard):
        if i == 23:
            free.set()
        while free.is_set() and suppressor.ready.qsize() < own_stream.AHEAD + suppressor.owed:
            time.sleep(0.001)  # until the thread has done all there is to do
        if i == 20:
            free.clear()
        suppressor.callback(sound[i * block : (i + 1) * block], out, block, None, None)
    suppressor.close()
    assert suppressor.missed == 1 and not np.any(heard[22])
    speech = rtsep.separate(sound, own_stream.RATE)["speech"]
    late = round(suppressor.latency_ms * own_stream.RATE / 1000)
    played = heard.reshape(-1, 1)
    for part in (slice(late, 22 * block), slice(23 * block, 40 * block)):
        expected = speech[part.start - late : part.stop - late]
        np.testing.assert_allclose(played[part], expected, atol=1e-4)


@pytest.mark.device
def test_sounddevice_stream_on_a_device(
    own_stream: Any, jack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own_stream.main(jack, 1.0)
    assert "blocks missed" in capsys.readouterr().out
