"""Every line that `bench.mutants` breaks is in the code, once."""

from __future__ import annotations

import ast

import pytest

from bench.mutants import BREAKS, Break
from tests.support.paths import ROOT


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.file)
def test_a_break_is_of_one_line_and_its_tests_exist(broken: Break) -> None:
    text = (ROOT / "rtsep" / broken.file).read_text(encoding="utf-8")
    assert text.count(broken.line) == 1
    changed = text.replace(broken.line, broken.broken)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))
    assert all((ROOT / "tests" / path).exists() for path in broken.tests.split())


def test_more_than_twenty_modules_are_broken() -> None:
    assert len({broken.file for broken in BREAKS}) > 20
