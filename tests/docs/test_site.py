"""The documentation: built without a warning, complete, from nowhere else; its code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep import weights
from rtsep.cli import main
from rtsep.devices import open as opening
from rtsep.errors import DeviceError
from rtsep.train.layouts import table
from tests.support.console import PAGES, ROOT, blocks, run_module

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_and_card_is_in_the_site_and_its_navigation(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    names = [page.stem for page in PAGES[1:]] + [
        f"cards/{name}" for name in (*weights.names(), "voice")
    ]
    for name in names:
        assert (site / f"{name}.html").exists()
        assert f'href="{name}.html"' in index


def test_the_reference_is_made_from_the_docstrings(site: Path) -> None:
    text = (site / "reference-python.html").read_text(encoding="utf-8")
    for words in ("buffer_ms", "deadline_misses", "belongs to input sample", "StreamLatency"):
        assert words in text
    commands = (site / "reference-command-line.html").read_text(encoding="utf-8")
    for name in main.list_commands(None):  # type: ignore[arg-type]
        assert f"Usage: rtsep {name} " in commands


def test_the_site_needs_no_other(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe|source)[^>]+src="(?:https?:)?//', text), page
        assert not re.findall(r'<link[^>]+rel="(?!canonical)[^>]*href="(?:https?:)?//', text), page
        assert 'class="mermaid"' not in text, "its program would be fetched"
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?https?:|@import", style.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: object) -> None:
        raise DeviceError("there is no sound card")

    monkeypatch.setattr(opening, "find", find)
    monkeypatch.chdir(tmp_path)
    for kind in ("speech/ann", "noise/fan"):
        (tmp_path / "DATA" / kind).mkdir(parents=True)
        soundfile.write(tmp_path / "DATA" / kind / "1.wav", np.ones(800) / 9, 16000)
    namespace: dict[str, object] = {"__name__": "a page"}
    for path in SNIPPET.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists()  # tests/docs/test_examples.py runs it
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)
    if page.name == "howto-own-data.md":
        rows = table(tmp_path / "DATA")
        assert {(row.role, row.key) for row in rows} == {("speech", "ann"), ("noise", "fan")}


def test_the_picture_is_made_by_its_command(tmp_path: Path) -> None:
    target = tmp_path / "demo.png"
    run_module("export.picture", target)
    made, kept = target.stat().st_size, (ROOT / "docs/demo.png").stat().st_size
    assert 0.7 < made / kept < 1.4 and kept < 600_000
