"""Memory in huge pages is like any other: zeros that nothing else shares."""

import numpy as np
import pytest

from rtsep.runtime.tape import huge_pages


@pytest.mark.parametrize("count", [0, 1, 100_000, huge_pages.PAGE // 4, huge_pages.PAGE])
def test_it_is_zeros_that_stay_as_they_are_written(count: int) -> None:
    first, second = huge_pages.zeros(count), huge_pages.zeros(count)
    assert first.shape == (count,)
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert not first.any()
    first[:] = np.arange(count)
    assert not second.any()
    second[:] = 7.0
    np.testing.assert_array_equal(first, np.arange(count, dtype=np.float32))


def test_a_system_without_them_gives_usual_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(huge_pages.mmap, "MADV_HUGEPAGE", raising=False)
    made = huge_pages.zeros(huge_pages.PAGE)
    assert made.shape == (huge_pages.PAGE,)
    assert not made.any()
