"""Every instruction set gives the same stems, up to rounding."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from bench import golden
from tests.support.paths import ROOT

TOLERANCE = 2e-5
"""Largest difference, re full scale: -94 dB."""
SETS = {
    "x86_64": [("x86-64", "sse2"), ("haswell", "avx2"), ("skylake-avx512", "avx512f")],
    "aarch64": [("cortex-a72", "neon")],
}
"""By machine: processors as LLVM names them, the last a Raspberry Pi 4, and what they need."""


def _same(found: dict[str, dict[str, list[float]]]) -> None:
    for model, stems in json.loads(golden.FILE.read_text("utf-8")).items():
        for name, samples in stems.items():
            difference = np.max(np.abs(np.subtract(found[model][name], samples)))
            assert difference <= TOLERANCE, f"{model}, {name}: {difference:.1e}"


def test_this_processor_gives_the_same_stems() -> None:
    expected = json.loads(golden.FILE.read_text("utf-8"))
    assert all(np.ptp(samples) > 1e-3 for stems in expected.values() for samples in stems.values())
    _same({model: golden.stems(model) for model in expected})


@pytest.mark.soak
@pytest.mark.parametrize(("name", "needed"), SETS.get(platform.machine(), []))
def test_other_instruction_sets_give_the_same_stems(name: str, needed: str, tmp_path: Path) -> None:
    if not binding.get_host_cpu_features().get(needed):
        pytest.skip(f"this processor has no {needed}")
    path = tmp_path / "golden.json"
    subprocess.run(
        [sys.executable, "-m", "bench.golden", "--json", path],
        cwd=ROOT,
        env=os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""},
        check=True,
    )
    _same(json.loads(path.read_text("utf-8")))
