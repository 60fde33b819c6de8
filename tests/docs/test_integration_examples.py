"""The examples for voice frameworks, run with the frameworks: speech comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import rtsep
from tests.support.paths import DEMO, ROOT

SECONDS = 2.0
EXAMPLES = {
    "pipecat_filter.py": "pipecat",
    "livekit_processor.py": "livekit",
    "aiortc_track.py": "aiortc",
}


def likeness(x: Any, y: Any) -> float:
    """Largest correlation of two sounds, of all delays."""
    size = 2 * max(len(x), len(y))
    product = np.fft.rfft(x, size) * np.conj(np.fft.rfft(y, size))
    return float(np.max(np.fft.irfft(product)) / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.mark.parametrize(
    "name",
    [
        "pipecat_filter.py",
        "aiortc_track.py",
        pytest.param("livekit_processor.py", marks=pytest.mark.device),  # in real time
    ],
)
def test_speech_comes_out(name: str, tmp_path: Path) -> None:
    pytest.importorskip(EXAMPLES[name])
    sound, rate = soundfile.read(DEMO, dtype="float32", frames=round(SECONDS * 16000))
    sound += 0.03 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", sound, rate)
    command = [sys.executable, str(ROOT / "examples" / name), "in.wav", "out.wav"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    heard, found_rate = soundfile.read(tmp_path / "out.wav", dtype="float32", always_2d=True)
    speech = rtsep.separate(sound, rate)["speech"]
    count = round(len(heard) * rate / found_rate)
    times = np.arange(count) / rate
    same_rate = np.interp(times, np.arange(len(heard)) / found_rate, heard[:, 0])
    assert likeness(same_rate, speech) > 0.95 > 0.9 > likeness(sound, speech)
