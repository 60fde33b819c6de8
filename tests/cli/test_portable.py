"""``rtsep portable`` and ``rtsep export --portable``: the program it prints separates a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import rtsep as package
from rtsep.learned.source import write
from rtsep.models.checkpoint import Description, save
from tests.support import learned, models
from tests.support.audio import recording
from tests.support.command import refused, rtsep


def test_the_printed_program_equals_rtsep_separate(tmp_path: Path) -> None:
    made = rtsep("portable", "speech", "-o", tmp_path / "speech-portable.onnx")
    assert made.exit_code == 0, made.output
    assert "8.0 ms late, equal to the engine" in made.stderr
    lines = made.stdout.splitlines()
    assert len(lines) == 15
    assert max(map(len, lines)) <= 160
    recording(tmp_path / "in.wav", 16000)
    (tmp_path / "program.py").write_text(made.stdout)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mixture = soundfile.read(tmp_path / "in.wav", dtype="float32")[0]
    for name, stem in package.separate(mixture, 16000).items():
        found = soundfile.read(tmp_path / f"{name}.wav", dtype="float32")[0]
        np.testing.assert_allclose(found[128:], stem[: len(found) - 128], atol=2e-5 + 2**-16)


def test_learned_sources_and_channels(tmp_path: Path) -> None:
    for name in ("me", "fan"):
        write(learned.source(name), tmp_path / f"{name}.rtsep")
    both = f"{tmp_path / 'me.rtsep'},{tmp_path / 'fan.rtsep'}"
    done = rtsep("portable", "--sources", both, "-c", 2, "-o", tmp_path / "new/p.onnx")
    assert done.exit_code == 0, done.output
    assert "2 channels at 16000 Hz" in done.stderr
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["p.onnx"]


def test_export_writes_both(tmp_path: Path) -> None:
    module = models.chandna_module()
    checkpoint = tmp_path / "best.safetensors"
    save(
        checkpoint,
        Description("mine", "chandna", models.CHANDNA, models.OPTIONS),
        module.state_dict(),
    )
    done = rtsep("export", checkpoint, "-o", tmp_path / "b.onnx", "--portable", tmp_path / "p.onnx")
    assert done.exit_code == 0, done.output
    again = rtsep("portable", tmp_path / "b.onnx", "-o", tmp_path / "q.onnx")
    assert again.exit_code == 0
    assert (tmp_path / "p.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["speach"], "neither a file nor a shipped model"),
        (["speech", "--model", "music"], "give the model once: speech or --model music"),
    ],
)
def test_what_is_refused(arguments: list[str], reason: str, tmp_path: Path) -> None:
    assert reason in refused("portable", *arguments, "-o", tmp_path / "p.onnx")
    assert not [*tmp_path.iterdir()]


def test_what_to_write_must_be_said(tmp_path: Path) -> None:
    assert "-o FILE, --triton DIR or --pipewire DIR" in refused("portable", "speech")
    told = refused("portable", "speech", "--channels", 2, "--pipewire", tmp_path / "p")
    assert "--pipewire is for one channel" in told


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    models.write(models.handmade(), tmp_path / "b.onnx")
    for option in ("-o", "--triton", "--pipewire"):
        told = refused("portable", tmp_path / "b.onnx", option, tmp_path / "file/p.onnx")
        assert "can't be written" in told
