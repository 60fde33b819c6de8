"""The product of matrices in tiles is that of NumPy, for all sizes."""

from __future__ import annotations

import numpy as np
import pytest

from rtsep.dsp.kernel import FAST, kernel
from rtsep.dsp.product import CACHED, product


@kernel(**FAST)
def _multiply(memory, out, left, right, third, rows, inputs, outputs, rise):  # type: ignore[no-untyped-def]
    product(memory, out, left, right, third, rows, inputs, outputs, rise)


SIZES = [(rows, inputs, 37) for rows in (1, 3, 4, 9) for inputs in (0, 1, 8, 13)]
SIZES += [(5, 7, outputs) for outputs in (1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 144)]
SIZES += [(1, 24, 64), (1, 24, 200), (1, CACHED // 64 + 9, 64), (2, 100, CACHED // 100 + 1)]


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
@pytest.mark.parametrize("added", ["nothing", "a row", "a matrix"])
def test_products_are_those_of_numpy(rows: int, inputs: int, outputs: int, added: str) -> None:
    rng = np.random.default_rng(rows + inputs + outputs)
    left = rng.standard_normal((rows, inputs), np.float32)
    right = rng.standard_normal((inputs, outputs), np.float32)
    terms = rng.standard_normal((rows, outputs), np.float32)
    guard = np.full(50, 7.0, np.float32)  # must stay as it is
    out = np.full(rows * outputs, np.nan, np.float32)
    memory = np.concatenate([left.ravel(), right.ravel(), terms.ravel(), guard, out, guard])
    third = left.size + right.size
    start = third + terms.size + guard.size
    expected = left.astype(float) @ right
    if added == "a matrix":
        expected += terms
    elif added == "a row":
        expected += terms[0]
    before = memory.copy()
    _multiply(
        *(memory, start, 0, left.size, -1 if added == "nothing" else third),
        *(rows, inputs, outputs, outputs if added == "a matrix" else 0),
    )
    found = memory[start : start + out.size].reshape(rows, outputs)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    memory[start : start + out.size] = before[start : start + out.size]
    np.testing.assert_array_equal(memory, before)


def test_nan_reaches_its_row_only() -> None:
    memory = np.ones(4 * 8 + 8 * 8 + 4 * 8, np.float32)
    memory[8] = np.nan
    _multiply(memory, 96, 0, 32, -1, 4, 8, 8, 0)
    assert np.isnan(memory[96:]).reshape(4, 8).all(axis=1).tolist() == [False, True, False, False]
