"""Measure hop times and the real-time factor, without allocation."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtsep.dsp.kernel import INT64_POINTER, kernel, named

_FIRST_S = 1e-7
_PER_DECADE = 200  # a resolution of 1.2 %
_DECADES = 8
_TOTAL, _MAX, _COUNT = 0, 1, 2

_instant = types.int64[::1]
_external: Any = types.ExternalFunction  # numba's own annotations do not fit
if sys.platform == "win32":
    _read_clock: Any = _external("QueryPerformanceCounter", types.int32(INT64_POINTER))
    _TICK_S = time.get_clock_info("perf_counter").resolution

    @kernel(types.float64(_instant))
    def clock(instant: NDArray[np.int64]) -> float:
        """Return the time of `time.perf_counter`, in kernels; ``instant``, (2,), is a buffer."""
        _read_clock(instant.ctypes)
        return float(instant[0] * _TICK_S)

else:
    _read_clock = _external("clock_gettime", types.int32(types.int32, INT64_POINTER))
    _MONOTONIC = int(time.CLOCK_MONOTONIC)

    @kernel(types.float64(_instant))
    def clock(instant: NDArray[np.int64]) -> float:
        """Return the time of `time.perf_counter`, in kernels; ``instant``, (2,), is a buffer."""
        _read_clock(_MONOTONIC, instant.ctypes)
        return float(instant[0] + 1e-9 * instant[1])


class Histogram(NamedTuple):
    """Arrays in which kernels count durations."""

    cells: NDArray[np.int64]
    sums: NDArray[np.float64]
    """(3,): sum and maximum in seconds, and count."""


HISTOGRAM = named(Histogram, types.int64[::1], types.float64[::1])


@kernel(types.void(HISTOGRAM, types.float64))
def count(histogram: Histogram, seconds: float) -> None:
    """Count one duration."""
    cells, sums = histogram
    cell = int(_PER_DECADE * math.log10(max(seconds, _FIRST_S) / _FIRST_S))
    cells[min(cell, cells.size - 1)] += 1
    sums[_TOTAL] += seconds
    sums[_MAX] = max(sums[_MAX], seconds)
    sums[_COUNT] += 1


def percentile_s(cells: NDArray[np.int64], percent: float) -> float:
    """Return the upper edge of the percentile's cell, in seconds; 0 without durations.

    Parameters
    ----------
    cells
        Those of a `Histogram`, or the difference between two states of it.
    percent
        0 to 100.
    """
    sums = np.cumsum(cells)
    if not sums[-1]:
        return 0.0
    cell = int(np.searchsorted(sums, sums[-1] * percent / 100))
    return float(_FIRST_S * 10 ** ((cell + 1) / _PER_DECADE))


class Durations:
    """A histogram of durations with logarithmic cells, from 0.1 us to 10 s.

    Attributes
    ----------
    histogram
        Arrays of the counts; kernels count in them, too.
    """

    def __init__(self) -> None:
        cells = np.zeros(_PER_DECADE * _DECADES + 1, np.int64)
        self.histogram = Histogram(cells, np.zeros(3))

    def add(self, seconds: float) -> None:
        """Count one duration."""
        count(self.histogram, seconds)

    @property
    def count(self) -> int:
        """Number of durations so far."""
        return int(self.histogram.sums[_COUNT])

    @property
    def total_s(self) -> float:
        """Sum of the durations, in seconds."""
        return float(self.histogram.sums[_TOTAL])

    @property
    def max_s(self) -> float:
        """Longest duration, in seconds."""
        return float(self.histogram.sums[_MAX])

    def percentile_s(self, percent: float) -> float:
        """Return the upper edge of the percentile's cell, in seconds; 0 without durations."""
        return min(percentile_s(self.histogram.cells, percent), self.max_s)

    def summary_us(self) -> dict[str, float]:
        """Return median, p99, p99.9 and maximum in microseconds."""
        named = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
        figures = {name: self.percentile_s(percent) * 1e6 for name, percent in named.items()}
        return {name: round(us, 1) for name, us in {**figures, "max": self.max_s * 1e6}.items()}
