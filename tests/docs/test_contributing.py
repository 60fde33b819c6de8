"""CONTRIBUTING.md names every package, and nothing that is not there."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_map_has_one_line_for_every_package() -> None:
    listed = re.findall(r"^\| `(rtsep/[\w/]*)` \|", TEXT, re.M)
    packages = {path.parent for path in (ROOT / "rtsep").rglob("__init__.py")}
    assert sorted(listed) == sorted(f"{path.relative_to(ROOT)}/" for path in packages)


def test_every_path_exists() -> None:
    roots = "rtsep|export|bench|examples|docs|tests"
    named = re.findall(rf"(?<![\w./])(?:{roots})/[\w./-]*", TEXT)
    assert len(named) > 40
    missing = [path for path in named if "NAME" not in path and not (ROOT / path).exists()]
    assert not missing


def test_every_command_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`", TEXT):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for module in re.findall(r"python -m ((?:bench|export)[\w.]*)", TEXT):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
