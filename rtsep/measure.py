"""Measured, not assumed: hop times and real-time factor, gathered without allocating."""

from __future__ import annotations

import math
import time

import numpy as np

from rtsep.spec import Float32, Step

_FIRST_S = 1e-7
_PER_DECADE = 200  # a resolution of 1.2 %
_DECADES = 8


class Durations:
    """A histogram of durations with logarithmic cells, from 0.1 us to 10 s.

    Attributes
    ----------
    count, total_s, max_s
        Of all durations so far.
    """

    def __init__(self) -> None:
        self._cells = np.zeros(_PER_DECADE * _DECADES + 1, np.int64)
        self.count = 0
        self.total_s = 0.0
        self.max_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        cell = int(_PER_DECADE * math.log10(max(seconds, _FIRST_S) / _FIRST_S))
        self._cells[min(cell, len(self._cells) - 1)] += 1
        self.count += 1
        self.total_s += seconds
        self.max_s = max(self.max_s, seconds)

    def percentile_s(self, percent: float) -> float:
        """Upper edge of the cell that holds the percentile; 0 if nothing was counted."""
        if not self.count:
            return 0.0
        cell = int(np.searchsorted(np.cumsum(self._cells), self.count * percent / 100))
        return min(_FIRST_S * 10 ** ((cell + 1) / _PER_DECADE), self.max_s)

    def summary_us(self) -> dict[str, float]:
        """Median, p99, p99.9 and maximum in microseconds."""
        named = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
        figures = {name: self.percentile_s(percent) * 1e6 for name, percent in named.items()}
        return {name: round(us, 1) for name, us in {**figures, "max": self.max_s * 1e6}.items()}


class TimedStep:
    """A step that records how long each of its calls takes; otherwise the step itself."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.mixture: Float32 = step.mixture
        self.sources: Float32 = step.sources
        self.times = Durations()

    def __call__(self) -> None:
        """Call and time the step."""
        start = time.perf_counter()
        self._step()
        self.times.add(time.perf_counter() - start)

    def reset(self, stream: int | None = None) -> None:
        """Reset the step; the times go on."""
        self._step.reset(stream)
