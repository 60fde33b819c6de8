"""The audio path never allocates, locks or blocks: LLVM's RealtimeSanitizer watches it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def _sanitizer() -> Path | None:
    """Find the library of clang 20 or newer, or the one that ``RTSEP_RTSAN`` names."""
    name = f"libclang_rt.rtsan-{platform.machine()}.a"
    found = [Path(os.environ["RTSEP_RTSAN"])] if "RTSEP_RTSAN" in os.environ else []
    for clang in ("clang", *(f"clang-{version}" for version in range(20, 30))):
        if program := shutil.which(clang):
            told = subprocess.run(
                [program, f"-print-file-name={name}"], capture_output=True, text=True, check=False
            )
            found.append(Path(told.stdout.strip()))
    return next((path for path in found if path.is_file()), None)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an interpreter with the sanitizer."""
    library, compiler = _sanitizer(), shutil.which("cc")
    if library is None or compiler is None or not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip("needs a C compiler, a shared libpython and RealtimeSanitizer of clang 20")
    program = tmp_path_factory.mktemp("sanitizer") / "python"
    folder, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    subprocess.run(
        [
            *(compiler, "-O1", ROOT / "tests" / "support" / "realtime_sanitizer.c"),
            *("-I", sysconfig.get_paths()["include"], "-rdynamic", "-o", program),
            *("-Wl,--whole-archive", library, "-Wl,--no-whole-archive"),
            *("-L", folder, f"-Wl,-rpath,{folder}", f"-lpython{version}"),
            *("-lpthread", "-ldl", "-lm", "-lrt", "-lresolv", "-lstdc++"),
        ],
        check=True,
    )
    return program


def _run(python: Path, what: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    return subprocess.run(
        [python, "-m", "tests.support.under_sanitizer", what],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_no_fault_makes_the_audio_path_allocate_lock_or_block(python: Path) -> None:
    told = _run(python, "faults")
    assert "RealtimeSanitizer" not in told.stderr, told.stderr
    assert told.returncode == 0 and told.stdout == "done\n", told.stderr


def test_an_allocation_is_reported(python: Path) -> None:
    told = _run(python, "allocation")
    assert "RealtimeSanitizer: unsafe-library-call" in told.stderr
    assert "malloc" in told.stderr and told.returncode != 0
