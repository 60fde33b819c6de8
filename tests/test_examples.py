"""The examples run as they are, and do what they say."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import rtsep
from rtsep.io.files import read_all
from rtsep.metrics import si_sdr_db
from tests.test_cli import band

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
_QUIET = """
import runpy, sys
from rtsep.io import opening
def find(*_):
    raise opening.DeviceError("there is no sound card")
opening.find = find
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""An example on a machine without a sound card, so that no test is heard."""


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, "-c", _QUIET, str(EXAMPLES / name), *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_here_and_short() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tested
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 62


def test_a_model_of_ones_own_is_trained_exported_and_run(tmp_path: Path) -> None:
    lines = (EXAMPLES / "own_model.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    data, model = tmp_path / "DATA", tmp_path / "mine.onnx"
    assert "64 files" in run("made_up_data.py", data)
    assert re.search(r"mine\.onnx: \d+ steps, SNR", run("own_model.py", data, model, 6))
    speech, rate = read_all(data / "speech-7.wav")
    noise, _ = read_all(data / "noise-7.wav")  # both held out
    mixture = speech + noise
    estimate = rtsep.separate(mixture, rate, model)["speech"]
    assert si_sdr_db(estimate, speech) - si_sdr_db(mixture, speech) > 1.0
    command = ["-m", "rtsep", "run", "--device", "demo", "--model", str(model), "--seconds", "1"]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "separated, RTF" in done.stdout


def test_asyncio_levels() -> None:
    said = run("asyncio_levels.py", "demo", 1)
    assert "ms = overlap" in said and "misses" in said
    assert len(re.findall(r"^speech +-?\d+\.\d dB  noise", said, re.MULTILINE)) >= 2


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
    sound = band(40 * block, 1, own_stream.RATE).astype(np.float32)
    heard = []
    for start in range(0, len(sound), block):
        while suppressor.ready.empty():
            time.sleep(0.001)
        out = np.full((block, 1), np.nan, np.float32)
        if start == 20 * block:  # held up: what comes too late is left out
            suppressor.owed = 0
            kept = [suppressor.ready.get() for _ in range(suppressor.ready.qsize())]
            suppressor.callback(sound[start : start + block], out, block, None, None)
            for part in kept:
                suppressor.ready.put(part)
            assert not np.any(out)
        else:
            suppressor.callback(sound[start : start + block], out, block, None, None)
        heard.append(out)
    suppressor.close()
    assert suppressor.missed == 1
    speech = rtsep.separate(sound, own_stream.RATE)["speech"]
    late = round(suppressor.latency_ms * own_stream.RATE / 1000)
    played = np.concatenate(heard)
    for part in (slice(late, 20 * block), slice(26 * block, 40 * block)):
        expected = speech[part.start - late : part.stop - late]
        np.testing.assert_allclose(played[part], expected, atol=1e-4)


@pytest.mark.device
def test_sounddevice_stream_on_a_device(
    own_stream: Any, jack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own_stream.main(jack, 1.0)
    assert "blocks missed" in capsys.readouterr().out
