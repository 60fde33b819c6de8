"""Every command of the README is run."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]

LIVE = {"rtsep run", "rtsep run --model my-model.onnx"}
"""These run until Ctrl-C on the system's default devices."""
LONG = {
    "rtsep train export/speech.toml --data DATA --minutes 10": "tests/test_train_command.py",
    'python -m bench.device --device "system, JACK Audio Connection Kit" --seconds 60': "minutes",
    "python -m pytest bench --benchmark-only": "a minute; run below without timing",
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands expect to find."""
    folder = tmp_path_factory.mktemp("desk")
    import soundfile

    sound, rate = soundfile.read(ROOT / "rtsep" / "demo.flac", dtype="float32")
    soundfile.write(folder / "talk.wav", sound[: 3 * rate], rate)
    noise = np.random.default_rng(0).standard_normal((2, 2 * rate)) / 30
    speech, music = (folder / "DATA/bench" / name for name in ("speech_noise", "music"))
    (music / "song").mkdir(parents=True)
    speech.mkdir()
    for path, samples in (
        (speech / "000_speech.flac", sound[: 2 * rate]),
        (speech / "000_mixture.flac", sound[: 2 * rate] / 2 + noise[0]),
        (music / "song/drums.flac", noise[0]),
        (music / "song/bass.flac", noise[1]),
        (music / "song/mixture.flac", noise.sum(axis=0)),
    ):
        soundfile.write(path, samples, rate)
    from rtsep import weights
    from rtsep.models.checkpoint import Description, save

    description = Description("small", "chandna", weights.find().spec)
    save(
        folder / "runs/speech/best.safetensors",
        description,
        description.build().state_dict(),
    )
    return folder


def run(command: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command as a shell would, with our environment's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, shell=True, cwd=folder, env=env, text=True, stdout=-1, stderr=-1,
        start_new_session=True,
    )  # fmt: skip


def test_two_commands_do_everything() -> None:
    assert COMMANDS[:2] == ["make run", "make test"]
    for target, what in (("run", "rtsep run --device demo --record out/"), ("test", "-m pytest")):
        plan = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert what in plan.stdout
    assert "make test" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c not in LIVE and c not in LONG and "make" not in c]
)
def test_command_runs(command: str, desk: Path) -> None:
    if command == "rtsep devices" and not ctypes.util.find_library("portaudio"):
        assert os.environ.get("CI") != "true", "PortAudio is not installed"
        pytest.skip("PortAudio is not installed (Debian, Ubuntu: apt install libportaudio2)")
    process = run(command, desk)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out


@pytest.mark.device
@pytest.mark.parametrize("command", sorted(LIVE))
def test_live_command_runs_until_interrupted(command: str, desk: Path, jack: str) -> None:
    if not (desk / "my-model.onnx").exists():
        shutil.copy(ROOT / "rtsep/weights/chandna-speech.onnx", desk / "my-model.onnx")
    process = run(f"exec {command}", desk)
    try:
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "separated, RTF" in out


def test_the_suites_of_the_bench_run() -> None:
    # The full sizes take a minute each to export; tests/test_zoo.py does.
    suites = ["bench", "--benchmark-disable", "-q", "-k", "not full"]
    command = [sys.executable, "-m", "pytest", *suites]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for module in ("bench.device", "export"):
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "--data" in done.stdout or "--device" in done.stdout


def test_the_readme_names_only_what_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
    for term in ("overlap", "reblocking", "lookahead", "resampling", "headroom"):
        assert f"| {term} |" in README
