"""Wheel and source distribution: built, installed without make and git, and run elsewhere."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from rtsep import weights
from rtsep.version import __version__
from tests.support.paths import ROOT


def output(*command: object, folder: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    output(sys.executable, "-m", "build", "--no-isolation", "-o", folder, ROOT, folder=folder)
    return folder


def test_the_wheel_runs_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    """Dependencies come from the environment of the tests; rtsep only from the wheel."""
    venv.create(tmp_path / "venv")
    windows = sys.platform == "win32"
    binaries = tmp_path / "venv" / ("Scripts" if windows else "bin")
    python = binaries / ("python.exe" if windows else "python")
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python, "install"]
    output(*pip, "--no-deps", "--no-index", "--no-compile", wheel, folder=tmp_path)
    own = output(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path
    )
    Path(own.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")

    said = output(binaries / "rtsep", "--version", folder=tmp_path)
    assert __version__ in said
    listed = output(binaries / "rtsep", "models", folder=tmp_path)
    assert all(name in listed for name in weights.names())
    where = output(python, "-c", "import rtsep; print(rtsep.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(own.strip())


def test_distributions_hold_what_is_needed_and_no_more(built: Path) -> None:
    import tarfile
    import zipfile

    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    outside = [name for name in names if not name.startswith(("rtsep/", f"rtsep-{__version__}"))]
    assert not outside
    for needed in ("rtsep/py.typed", "rtsep/demo.flac", "rtsep/ui/static/index.html"):
        assert needed in names
    assert sum(name.endswith(".onnx") for name in names) == len(weights.names())
    with tarfile.open(source) as archive:
        assert f"rtsep-{__version__}/pyproject.toml" in archive.getnames()
    assert wheel.stat().st_size < 24e6
