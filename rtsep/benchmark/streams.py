"""Find how many live streams one core carries, in one call or in separate calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rtsep.benchmark.trials import Trial, percentiles_us, times
from rtsep.errors import BundleError
from rtsep.runtime.bundle import Bundle
from rtsep.spec import Float64

MIN_CALLS = 1000
"""Calls of the model per trial, at least: p99.9 needs a thousand."""


@dataclass(frozen=True)
class Load:
    """Result of a trial with a number of streams on one core.

    Attributes
    ----------
    streams
        Number of streams.
    fits
        Whether p99.9 of the time for all streams is below the hop's duration.
    times_us
        Time per hop for all streams: median, p95, p99, p99.9, max.
    """

    streams: int
    fits: bool
    times_us: dict[str, float]


def batched(bundle: Bundle, streams: int, seconds: float) -> Load:
    """Time ``streams`` streams with one call of the model per hop."""
    trial = Trial(bundle, streams=streams)
    return _load(streams, times(trial.call, _enough(trial, seconds)), trial.period_s)


def unbatched(bundle: Bundle, streams: int, seconds: float) -> Load:
    """Time ``streams`` streams with one call each per hop, each with its own model."""
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
        All trials, fewest streams first; empty if one stream exceeds the memory limit.
    """
    tried: dict[int, Load] = {}

    def fits(streams: int) -> bool:
        try:
            tried[streams] = load = carry(bundle, streams, seconds)
        except BundleError:  # the states exceed the memory limit
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
    """Return the largest number of streams that fit, or 0."""
    return max((load.streams for load in loads if load.fits), default=0)


def _enough(trial: Trial, seconds: float, streams: int = 1) -> float:
    """Return the duration of `MIN_CALLS` calls, at least ``seconds``."""
    once = float(np.median(times(trial.call, 0.05))) * streams
    return max(seconds, MIN_CALLS * once)


def _load(streams: int, taken: Float64, period_s: float) -> Load:
    return Load(streams, float(np.percentile(taken, 99.9)) < period_s, percentiles_us(taken))
