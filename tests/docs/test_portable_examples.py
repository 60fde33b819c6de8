"""One portable graph in three languages: Python, JavaScript and C equal the engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile

import rtsep
from rtsep import weights
from rtsep.portable.check import run as run_graph
from rtsep.portable.graph import Portable, build
from rtsep.spec import Float32
from tests.support.audio import band
from tests.support.npm import node_modules, skip
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
GRAPH = "speech-portable.onnx"


@pytest.fixture(scope="module")
def portable() -> Portable:
    return build(weights.find("speech"))


@pytest.fixture
def folder(portable: Portable, tmp_path: Path) -> Path:
    (tmp_path / GRAPH).write_bytes(portable.model.SerializeToString())
    return tmp_path


def mixture() -> Float32:
    return band(128 * 60, 1, 16000).astype(np.float32)


def separated(command: list[str], folder: Path, portable: Portable) -> None:
    """Run a program from raw samples to raw samples, and compare."""
    done = subprocess.run(
        command, cwd=folder, input=mixture().tobytes(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    blocks = np.frombuffer(done.stdout, np.float32).reshape(-1, 2, portable.block)
    expected = run_graph(portable, mixture())[:, :, 0]
    np.testing.assert_allclose(blocks.swapaxes(1, 2).reshape(-1, 2), expected, atol=1e-5)


def test_python(folder: Path) -> None:
    soundfile.write(folder / "in.wav", mixture(), 16000, subtype="FLOAT")
    command = [sys.executable, str(EXAMPLES / "portable.py"), GRAPH, "in.wav", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, stem in rtsep.separate(mixture()[:, 0], 16000).items():
        found = soundfile.read(folder / f"{name}.wav", dtype="float32")[0]
        np.testing.assert_allclose(found, stem, atol=1e-5)


def test_javascript(folder: Path, portable: Portable) -> None:
    (folder / "node_modules").symlink_to(node_modules())
    shutil.copy(EXAMPLES / "portable.mjs", folder)
    separated(["node", "portable.mjs", GRAPH, "128"], folder, portable)


def compiler() -> tuple[str, list[str]]:
    """The C compiler with the options for the header, or skip the test."""
    program = shutil.which("cc")
    if program is None:
        skip("there is no C compiler")
    options = ["-I/usr/include/onnxruntime"]
    check = [str(program), "-fsyntax-only", "-xc", "-", *options]
    source = b"#include <onnxruntime_c_api.h>\n"
    if subprocess.run(check, input=source, capture_output=True, check=False).returncode:
        # CI has no such package either: the header comes with the library's releases.
        pytest.skip("onnxruntime_c_api.h is not in the compiler's path (C_INCLUDE_PATH)")
    return str(program), options


def library(folder: Path) -> list[str]:
    """Options to link the library that Python uses, or the system's."""
    own = [*Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")]
    if own:
        for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
            (folder / name).symlink_to(own[0])
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lonnxruntime"]


def test_c(folder: Path, portable: Portable) -> None:
    program, options = compiler()
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2"]
    source = str(EXAMPLES / "portable.c")
    command = [program, *warnings, *options, source, "-o", "portable", *library(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    separated([str(folder / "portable"), GRAPH], folder, portable)
    told = subprocess.run([folder / "portable"], capture_output=True, text=True, check=False)
    assert told.returncode == 2 and "usage:" in told.stderr
