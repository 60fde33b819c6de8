"""What README and documentation tell their readers to type, tried as they would."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.support import foreign
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE_S

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

LIVE = {
    *(
        "rtsep run",
        "rtsep run --model gtcrn",
        "rtsep run --model my-model.onnx",
        "rtsep run --scene karaoke",
    ),
    *("rtsep run --sources me.rtsep,fan.rtsep", "rtsep run --sources fan.rtsep --rest voice"),
    *("rtsep run --learn-noise 10", "rtsep ui --device"),
}
"""These run until Ctrl-C on the system's default devices."""
LONG = {
    "rtsep models add gtcrn": "tests/shelf/test_models.py, with a server of its own",
    "rtsep train export/speech.toml --data DATA --minutes 10": "tests/cli/test_train.py",
    'python -m bench.device --device "system, JACK Audio Connection Kit" --seconds 60': "minutes",
    "python -m pytest bench --benchmark-only": "a minute; run without timing in test_readme.py",
    "rtsep learn fan.rtsep --device default --seconds 20": "tests/learned/test_source.py",
    "rtsep export runs/speech/best.safetensors -o my-model.onnx": "with --portable",
    "rtsep bench chandna-speech --seconds 1 --html report.html": "tests/benchmark/test_bench.py",
    "python -m bench.fuzz files --count 200": "tests/bench/test_fuzz.py",
    "python examples/own_model.py DATA mine.onnx": "a minute; shortened in test_examples.py",
    "pip install rtsep": "tests/test_distribution.py, from the wheel",
    "pip install -e .": "make run does it",
    "rtsep run --virtual-mic": "tests/devices/test_virtual_mic.py",
    "pip install -e '.[ui]'": "make test does it",
    "rtsep ui --static page/": "needs npm; tests/portable/test_web.py",
    "rtsep ui": "runs until Ctrl-C; tests/ui",
    "pip install -e '.[serve]'": "make test does it",
    "rtsep serve": "runs until Ctrl-C; tests/cli/test_serve.py",
    "rtsep serve --host 0.0.0.0 --token auto --certificate cert.pem --key key.pem": (
        "runs until Ctrl-C; tests/cli/test_serve.py"
    ),
    "rtsep serve --replicas 1:4": "runs until Ctrl-C; tests/serve/test_cluster.py",
    "rtsep serve --address auto --replicas 2:64 --host 0.0.0.0 --token auto": (
        "needs several machines; tests/serve/test_cluster.py"
    ),
    "openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout key.pem -out cert.pem "
    "-subj /CN=rtsep": "writes nothing on standard output",
    "rtsep ui --host 0.0.0.0 --token auto --certificate cert.pem --key key.pem": "tests/ui",
    "ssh -L 7860:127.0.0.1:7860 machine-with-rtsep": "needs another machine",
}
"""These are tried elsewhere, or for less time."""


def blocks(page: Path, language: str) -> list[str]:
    """Code of a page in one language, block by block."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(pages: list[Path]) -> list[str]:
    """Every command of some pages, once."""
    lines = [line for p in pages for block in blocks(p, "console") for line in block.splitlines()]
    return [*dict.fromkeys(line.removeprefix("$ ") for line in lines)]


def lay_out(folder: Path) -> None:
    """Put what the commands expect to find into a folder."""
    from rtsep import weights
    from rtsep.cli import main
    from rtsep.models.checkpoint import Description, save

    sound, rate = soundfile.read(ROOT / "rtsep" / "demo.flac", dtype="float32")
    for name in ("talk", "me"):
        soundfile.write(folder / f"{name}.wav", sound[: 3 * rate], rate)
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
    description = Description("small", "chandna", weights.find().spec)
    save(folder / "runs/speech/best.safetensors", description, description.build().state_dict())
    for name in ("gtcrn_simple", "other"):
        foreign.save(foreign.spectrum(), folder / f"{name}.onnx")
    shutil.copy(ROOT / "rtsep/adopt/known/gtcrn.toml", folder / "other.toml")
    code, _, err = told("rtsep models add gtcrn_simple.onnx --as gtcrn", folder)
    assert code == 0, err
    for name in ("mine", "my-model"):
        shutil.copy(ROOT / "rtsep/weights/chandna-speech.onnx", folder / f"{name}.onnx")
    for name, part in (("me1", sound[:rate]), ("me2", sound[rate : 2 * rate]), ("fan", noise[0])):
        soundfile.write(folder / f"{name}.wav", part, rate)
    for name in ("me", "fan"):
        command = ["learn", folder / f"{name}.rtsep", "--rank", 10]
        recordings = [folder / "fan.wav"] if name == "fan" else [folder / "me1.wav"]
        main([str(word) for word in (*command, "--from", *recordings)], standalone_mode=False)
    (folder / "examples").symlink_to(ROOT / "examples")


def shortened(command: str) -> str:
    """The same command, for less time: a second of a file, few cases of the fuzzer."""
    plays = command.startswith("rtsep run --device") and "--seconds" not in command
    command = re.sub(r"^(python -m bench.fuzz .*--count) \d+", r"\1 10", command)
    return f"{command} --seconds 1" if plays else command


def run_module(name: str, *arguments: object) -> None:
    """Do as ``python -m`` would, in this process: another one that imports torch takes seconds."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # runpy warns if a test has imported it
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_module(name, run_name="__main__")


def told(command: str, folder: Path) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and error output.

    ``rtsep`` runs in this process: that it is installed as a program, `tests/test_distribution.py`
    shows. It must not need a shell.
    """
    program, *words = shlex.split(command)
    if program != "rtsep":
        process = run(command, folder)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err
    from rtsep.cli import main

    with contextlib.chdir(folder):
        result = CliRunner(env={"RTSEP_MODELS": str(folder / "shelf")}).invoke(main, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def run(command: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command as a shell would, with our environment's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    env["RTSEP_MODELS"] = str(folder / "shelf")
    return subprocess.Popen(
        command, shell=True, cwd=folder, env=env, text=True, stdout=-1, stderr=-1,
        start_new_session=True,
    )  # fmt: skip
