"""The decorator of kernels: its cache is never stale, always bounded, and not needed."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtsep.dsp import kernel
from tests.support.paths import ROOT

INNER = """from rtsep.dsp.kernel import kernel
STEP = {}
@kernel()
def inner(x):
    return x + STEP
"""
OUTER = """from rtsep.dsp.kernel import kernel
@kernel("int64(int64)")
def outer(x):
    return inner(x)
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two modules with one kernel each; the second inlines the first."""
    found = tmp_path / "package"
    found.mkdir()
    monkeypatch.setattr(kernel, "_PACKAGE", found)
    monkeypatch.setattr(kernel, "COMPILED", [])
    monkeypatch.setattr(kernel._config, "CACHE_DIR", "")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "user" / name))
    kernel.cache_folder.cache_clear()
    (found / "outer.py").write_text(OUTER)
    edit(found, 1)
    yield found
    kernel.cache_folder.cache_clear()


def edit(package: Path, step: int) -> Path | None:
    """Change a constant that ends up in both kernels; return the cache folder after that."""
    (package / "inner.py").write_text(INNER.format(step))
    kernel.cache_folder.cache_clear()
    return kernel.cache_folder()


def start(package: Path) -> tuple[int, int]:
    """Import both modules as a new process would; return ``outer(10)`` and what was compiled."""
    names: dict[str, Any] = {}
    for name in ("inner", "outer"):
        path = package / f"{name}.py"
        names["__name__"] = name
        exec(compile(path.read_text(), str(path), "exec"), names)
    answer = names["outer"](10)
    return answer, sum(names["outer"].stats.cache_misses.values())


def test_an_edit_in_an_inlined_file_is_never_missed(package: Path) -> None:
    assert start(package) == (11, 1)
    assert start(package) == (11, 0)
    edit(package, 5)
    assert start(package) == (15, 1)
    edit(package, 1)
    assert start(package) == (11, 0), "the folder of the former sources is kept"


def test_the_folders_of_old_sources_are_bounded_and_the_used_ones_stay(package: Path) -> None:
    used = edit(package, 0)
    assert used is not None
    for step in range(1, 3 * kernel.KEPT):
        folder = edit(package, step)
        assert folder is not None and folder.is_dir()
        for age, old in enumerate((folder, used)):
            os.utime(old, (1e9 + step - age, 1e9 + step - age))
    assert used.is_dir()
    assert len([*used.parent.glob("kernels-*")]) == kernel.KEPT


def test_files_without_kernels_do_not_matter(package: Path) -> None:
    before = edit(package, 1)
    (package / "policy.py").write_text("print('hello')\n")
    assert edit(package, 1) == before
    (package / "policy.py").write_text("# compiled into kernels, see rtsep.dsp.kernel\n")
    assert edit(package, 1) != before


def test_a_closed_folder_is_replaced_by_the_users(package: Path, tmp_path: Path) -> None:
    inside = edit(package, 1)
    assert inside is not None and inside.is_relative_to(package)
    (package / "closed").mkdir()
    package = package / "closed"
    kernel._PACKAGE = package  # the fixture puts it back
    (package / "__pycache__").write_text("a file: no folder can be made here")
    (package / "outer.py").write_text(OUTER)
    user = edit(package, 1)
    assert user is not None and user.is_relative_to(tmp_path / "user")
    assert start(package) == (11, 1)
    assert start(package) == (11, 0)
    kernel._config.CACHE_DIR = str(tmp_path / "chosen")
    chosen = edit(package, 1)
    assert chosen is not None and chosen.is_relative_to(tmp_path / "chosen")


def test_without_any_folder_kernels_are_compiled_all_the_same(
    package: Path, tmp_path: Path
) -> None:
    (package / "closed").mkdir()
    package = package / "closed"
    kernel._PACKAGE = package
    for path in (package / "__pycache__", tmp_path / "user"):
        path.write_text("")
    (package / "outer.py").write_text(OUTER)
    assert edit(package, 3) is None
    assert start(package)[0] == 13
    assert not kernel.COMPILED


def test_numbas_own_folder_is_as_it_was(package: Path) -> None:
    kernel._config.CACHE_DIR = ""
    start(package)
    assert kernel._config.CACHE_DIR == ""


def tree(module: str) -> ast.Module:
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.Module) -> dict[str, str]:
    """What a module calls what it imports from rtsep: name to ``module.name``."""
    return {
        alias.asname or alias.name: f"{part.module}.{alias.name}"
        for part in ast.walk(node)
        if isinstance(part, ast.ImportFrom) and (part.module or "").startswith("rtsep.")
        for alias in part.names
    }


def named(*nodes: ast.AST) -> set[str]:
    return {x.id for node in nodes for x in ast.walk(node) if isinstance(x, ast.Name)}


def real_sources() -> list[str]:
    kernel._PACKAGE = ROOT / "rtsep"  # the fixture puts it back
    return [*kernel.sources()]


def test_what_is_compiled_into_kernels_lies_in_files_that_are_hashed() -> None:
    hashed = real_sources()
    assert "rtsep.dsp.fft" in hashed and "rtsep.runtime.tape.interpreter" in hashed
    missed = []
    for module in hashed:
        node = tree(module)
        names = imported(node)
        kernels = [x for x in node.body if isinstance(x, ast.FunctionDef) and x.decorator_list]
        used = named(*(part for x in kernels for part in (*x.body, *x.decorator_list)))
        for x in reversed(node.body):  # a constant may be made of those before it
            if isinstance(x, ast.Assign) and named(*x.targets) & used:
                used |= named(x.value)
        for name in used & names.keys():
            place = names[name]
            if place not in hashed and place.rpartition(".")[0] not in hashed:
                missed.append(f"{module}: {place}")
    assert not missed, "name rtsep.dsp.kernel in their files"


def test_nothing_is_compiled_without_the_decorator() -> None:
    compilers = {"jit", "njit", "cfunc", "vectorize", "guvectorize", "jitclass"}
    for path in (ROOT / "rtsep").rglob("*.py"):
        node = ast.parse(path.read_text(encoding="utf-8"))
        if path != ROOT / "rtsep" / "dsp" / "kernel.py":
            imports = [x for x in ast.walk(node) if isinstance(x, ast.ImportFrom)]
            used = {alias.name for x in imports for alias in x.names}
            used |= {x.attr for x in ast.walk(node) if isinstance(x, ast.Attribute)}
            assert not used & compilers, path
