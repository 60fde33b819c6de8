"""How many live streams one core carries: side by side in one call, or each in calls of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rtsep.benchmark.trials import Float64, Trial, percentiles_us, times
from rtsep.errors import BundleError
from rtsep.runtime.bundle import Bundle

MIN_CALLS = 1000
"""Of the model for a trial: fewer say nothing of the slowest one in a thousand."""


@dataclass(frozen=True)
class Load:
    """So many streams on one core.

    Attributes
    ----------
    streams
        Carried at once.
    fits
        Whether p99.9 of the time for all of them is below the hop's duration.
    times_us
        Time per hop for all of them: median, p95, p99, p99.9, max.
    """

    streams: int
    fits: bool
    times_us: dict[str, float]


def batched(bundle: Bundle, streams: int, seconds: float) -> Load:
    """Try ``streams`` streams in one call of the model each hop."""
    trial = Trial(bundle, streams=streams)
    return _load(streams, times(trial.call, _enough(trial, seconds)), trial.period_s)


def unbatched(bundle: Bundle, streams: int, seconds: float) -> Load:
    """Try ``streams`` streams one after the other each hop, each with a model of its own."""
    trials = [Trial(bundle) for _ in range(streams)]
    first = trials[0]

    def call() -> None:
        for trial in trials:
            trial.call()

    return _load(streams, times(call, _enough(first, seconds, streams)), first.period_s)


def most(
    bundle: Bundle,
    limit: int,
    seconds: float,
    carry: Callable[[Bundle, int, float], Load],
    progress: Callable[[Load], object] = lambda load: None,
) -> list[Load]:
    """Find the largest number of streams up to ``limit`` that fit, by doubling and halving.

    Returns
    -------
    list of Load
        All that was tried, fewest streams first; empty where memory does not hold a single one.
    """
    tried: dict[int, Load] = {}

    def fits(streams: int) -> bool:
        try:
            tried[streams] = load = carry(bundle, streams, seconds)
        except BundleError:  # more than the memory limit of a model's states
            return False
        progress(load)
        return load.fits

    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return [tried[streams] for streams in sorted(tried)]


def largest(loads: list[Load]) -> int:
    """The largest number of streams that fit; 0 for none."""
    return max((load.streams for load in loads if load.fits), default=0)


def _enough(trial: Trial, seconds: float, streams: int = 1) -> float:
    """Seconds that `MIN_CALLS` take."""
    once = float(np.median(times(trial.call, 0.05))) * streams
    return max(seconds, MIN_CALLS * once)


def _load(streams: int, taken: Float64, period_s: float) -> Load:
    return Load(streams, float(np.percentile(taken, 99.9)) < period_s, percentiles_us(taken))
