"""Every command of the README and of the documentation is run."""

from __future__ import annotations

import ctypes.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.console import (
    LIVE,
    LONG,
    PAGES,
    ROOT,
    commands,
    lay_out,
    run,
    run_module,
    shortened,
    told,
)
from tests.support.patience import PATIENCE_S

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = commands(PAGES)
PANEL = "rtsep ui --device"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands expect to find."""
    folder = tmp_path_factory.mktemp("desk")
    lay_out(folder)
    return folder


def test_two_commands_do_everything() -> None:
    demo = "rtsep run --device demo --record out/"
    assert COMMANDS[:4] == ["pip install rtsep", demo, "make run", "make test"]
    for target, what in (
        ("run", demo),
        ("test", "-m pytest"),
        ("docs", "mkdocs build --strict"),
    ):
        plan = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert what in plan.stdout
    assert "make test" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c not in LIVE and c not in LONG and not c.startswith("make")]
)
def test_command_runs(command: str, desk: Path) -> None:
    if command == "rtsep devices" and not ctypes.util.find_library("portaudio"):
        assert os.environ.get("CI") != "true", "PortAudio is not installed"
        pytest.skip("PortAudio is not installed (Debian, Ubuntu: apt install libportaudio2)")
    code, out, err = told(shortened(command), desk)
    # A machine of the tests may lack a sound card, and be busy: the doctor says so.
    assert code == 0 or (command == "rtsep doctor" and code == 1), err
    assert out


def test_what_is_left_out_is_there() -> None:
    assert {*LIVE, *LONG} <= {*COMMANDS}


@pytest.mark.device
@pytest.mark.parametrize("command", sorted(LIVE - {PANEL}))
def test_live_command_runs(command: str, desk: Path, jack: str) -> None:
    """For a moment; `test_ctrl_c_is_a_clean_end` interrupts one."""
    code, out, err = told(f"{command} --seconds 0.5", desk)
    assert code == 0, err
    assert "separated, RTF" in out


@pytest.mark.device
def test_the_panel_of_a_sound_card_runs_until_interrupted(desk: Path, jack: str) -> None:
    process = run(f"exec {PANEL} --port 0", desk)
    try:
        assert process.stdout is not None
        while "open http" not in (line := process.stdout.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "separated, RTF" in out


@pytest.mark.parametrize(
    "part",
    [
        "kernels or engine and not models",
        # The full sizes take a minute each to export; tests/models/test_zoo.py does.
        pytest.param("not full", marks=pytest.mark.soak),
    ],
)
def test_the_suites_of_the_bench_run(part: str) -> None:
    """The everyday part leaves out models that are exported first."""
    command = [sys.executable, "-m", "pytest", "bench", "--benchmark-disable", "-q", "-k", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["bench.device", "export"])
def test_programs_beside_the_package_tell_their_options(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_module(module, "--help")
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "--data" in said or "--device" in said


def test_the_readme_is_short_and_keeps_its_places() -> None:
    assert len(README.splitlines()) < 200
    places = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in ("bench", "models", "paced", "peers", "growth"):
        assert len(re.findall(rf"^<!-- {name} -->\n(?:.*\n)*?<!-- /{name} -->$", places, re.M)) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_what_exists(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        card = Path(link).parent.name == "cards"  # made for the site, see docs/hooks.py
        place = ROOT / "rtsep/weights" / Path(link).name if card else page.parent / link
        assert place.exists(), link


def test_every_term_of_latency_is_explained() -> None:
    text = (ROOT / "docs/explanation-latency.md").read_text(encoding="utf-8")
    for term in ("overlap", "reblocking", "lookahead", "resampling", "two clocks", "headroom"):
        assert f"| {term} |" in text
