"""Imports point one way, and what separates needs no torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rtsep
from rtsep import errors
from tests.support.paths import ROOT

ORDER = (
    "__main__ > cli rtsep > serve > ui benchmark diagnostics integrations > stream"
    " > api realtime evaluate > shelf > adopt > conformance > portable > weights > learned"
    " > runtime devices > dsp files > latency > spec controls > errors version"
)
"""A package imports from those to its right and from itself; ``rtsep`` stands for its root."""
TRAINING = (
    "cli > train > models > nn > runtime > dsp files > latency > spec controls > errors version"
)
"""The same, for what needs torch."""
TORCH = ("nn", "models", "train", "learned/autoencoders.py")


def allowed() -> dict[str, set[str]]:
    """Packages that each may import from."""
    found: dict[str, set[str]] = {}
    for chain in (ORDER, TRAINING):
        levels = [level.split() for level in chain.split(" > ")]
        for place, level in enumerate(levels):
            for name in level:
                found.setdefault(name, {name}).update(*levels[place + 1 :])
    return found


def modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside; absolute names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str | None:
    """First name below ``rtsep``: of a package or a module there; None for other libraries."""
    first, *rest = module.split(".")
    if first != "rtsep":
        return None
    path = ROOT / "rtsep" / (rest or [""])[0]
    return path.stem if rest and (path.is_dir() or path.with_suffix(".py").exists()) else "rtsep"


def files() -> list[Path]:
    return sorted((ROOT / "rtsep").rglob("*.py"))


def test_imports_point_one_way() -> None:
    rule = allowed()
    wrong = []
    for path in files():
        first = path.relative_to(ROOT / "rtsep").parts[0].removesuffix(".py")
        own = "rtsep" if first == "__init__" else first
        targets = {package(module) for module in modules(path)} - {None}
        wrong += [f"{path} imports rtsep.{target}" for target in targets - rule[own]]
    assert not wrong


def test_contributing_states_this_order() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    stated = re.findall(r"`(\w+ > [\w >,]*)`", text)
    levels = [[set(x.split(", ")) for x in chain.split(" > ")] for chain in stated]
    held = [
        [set(x.split()) - {"rtsep", "version"} for x in c.split(" > ")] for c in (ORDER, TRAINING)
    ]
    assert levels == [held[0][1:], held[1][1:5]]


def test_torch_is_imported_where_models_are_trained_only() -> None:
    users = {
        path.relative_to(ROOT / "rtsep").as_posix()
        for path in files()
        if any(module.split(".")[0] == "torch" for module in modules(path))
    }
    assert not [path for path in users if not path.startswith(TORCH)]


@pytest.mark.parametrize("folder", ["export", "bench"])
def test_tools_use_public_names(folder: str) -> None:
    private = [
        f"{path} imports {module}"
        for path in (ROOT / folder).rglob("*.py")
        for module in modules(path)
        if package(module) and any(name.startswith("_") for name in module.split("."))
        if not module.endswith(".__version__")
    ]
    assert not private


def test_what_is_shipped_is_made_without_the_bench() -> None:
    """The bench imports from ``export``, so nothing there may import from the bench."""
    makers = (ROOT / "export").rglob("*.py")
    wrong = [f"{path} imports {m}" for path in makers for m in modules(path) if m[:5] == "bench"]
    assert not wrong


def test_what_separates_needs_neither_torch_nor_a_sound_card() -> None:
    code = (
        "import sys, rtsep, rtsep.cli.run, rtsep.cli.separate, rtsep.cli.show, rtsep.cli.export;"
        "import rtsep.cli.evaluate, rtsep.cli.train, rtsep.cli.ui, rtsep.cli.learn;"
        "import rtsep.cli.models; rtsep.live, rtsep.load;"
        "heavy = ('torch', 'requests', 'matplotlib', 'pytest', 'pystoi', 'websockets', "
        "'sounddevice');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_models_are_listed_without_compiling_a_kernel() -> None:
    """It is the first command of many after ``pip install``; kernels take half a minute."""
    code = "import sys, rtsep.cli.models; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_error_is_one_of_rtsep_errors_and_public() -> None:
    own = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert own <= set(rtsep.__all__)
    for name in own:
        kind = getattr(rtsep, name)
        assert issubclass(kind, errors.RtsepError)
        assert kind is errors.RtsepError or issubclass(kind, ValueError | AssertionError)
    elsewhere = [
        f"{path}: {node.name}"
        for path in files()
        if path.stem != "errors"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception"))
    ]
    assert not elsewhere


def test_tests_mirror_the_packages_and_share_helpers_in_support_only() -> None:
    others = {"support", "bench", "docs", "export"}
    for path in (ROOT / "tests").rglob("*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / "rtsep" / folder).is_dir() or folder.parts[0] in others, path
        borrowed = [name for name in modules(path) if name.startswith("tests.")]
        assert all(name.startswith("tests.support.") for name in borrowed), (path, borrowed)
