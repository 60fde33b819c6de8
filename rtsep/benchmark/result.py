"""Measure all figures of one model at one setting, for the JSON of `rtsep bench`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from rtsep.benchmark import plots, streams, trials
from rtsep.benchmark.roofline import traffic
from rtsep.runtime.bundle import Bundle

BACK_TO_BACK_S = 2.0
"""Duration of the back-to-back runs: blocks, interleaved with calls of the model alone."""
STREAMS_S = 1.0
"""Shortest duration of a trial with a number of streams."""


def measure(
    bundle: Bundle, block: int, threads: int, seconds: float, roof: dict[str, float]
) -> dict[str, Any]:
    """Measure one model.

    Parameters
    ----------
    bundle
        The model.
    block
        Samples per block; 0 for one call of the model.
    threads
        Threads of the model.
    seconds
        Duration of the paced run.
    roof
        ``gflops`` and ``memory_gb_per_s`` of one core.

    Returns
    -------
    dict
        Figures by name, ending in the unit. ``hop_us`` is the engine with the model, ``model_us``
        the model alone.

    Raises
    ------
    BundleError
        The bundle does not run.
    """
    trial = trials.Trial(bundle, block, threads)
    back_to_back = min(BACK_TO_BACK_S, seconds)
    latency = trial.latency()
    alone, times = trials.in_turns((trial.step, trial.call), 2 * back_to_back)
    paced, floor = trial.paced(seconds)
    work = paced.done_s - paced.late_s
    call_s = float(np.median(alone))
    _, per_second = bundle.cost()
    spec = bundle.spec
    flop = 2 * per_second * spec.step_length / spec.sample_rate
    return {
        "model": bundle.metadata["name"],
        "block": trial.block,
        "threads": threads,
        "hop_ms": round(1000 * spec.step_length / spec.sample_rate, 4),
        "period_ms": round(1000 * trial.period_s, 4),
        "latency": latency,
        "hop_us": trials.percentiles_us(times),
        "model_us": trials.percentiles_us(alone),
        "overhead_us": round(1e6 * float(np.median(times)) - 1e6 * call_s, 1)
        if trial.block == spec.step_length
        else None,
        "real_time_factor": round(trial.real_time_factor(times), 5),
        "allocated_bytes_per_1000_hops": trial.allocated_bytes(),
        "paced": {
            "seconds": round(len(work) * trial.period_s, 3),
            "calls": len(work),
            "misses": trials.misses(paced, trial.period_s),
            "floor_misses": trials.misses(floor, trial.period_s),
            "work_us": trials.percentiles_us(work),
            "late_us": trials.percentiles_us(paced.late_s),
            "floor_late_us": trials.percentiles_us(floor.late_s),
            "cpu_us": round(1e6 * paced.cpu_s / len(work), 1),
            "histogram": plots.histogram(paced.done_s, trial.period_s),
            "series_us": [round(1e6 * s, 1) for s in plots.thin(work)],
        },
        "roofline": {
            "flop_per_call": round(flop),
            "bytes_per_call": traffic(bundle),
            "call_us": round(1e6 * call_s, 1),
            "share_of_peak": round(flop / (call_s * roof["gflops"] * 1e9), 4),
            "share_of_bandwidth": round(
                traffic(bundle) / (call_s * roof["memory_gb_per_s"] * 1e9), 4
            ),
        },
    }


def measure_streams(bundle: Bundle, limit: int) -> dict[str, Any]:
    """Find how many streams up to ``limit`` one core carries, in one call and in separate calls."""
    side_by_side = streams.most(bundle, limit, STREAMS_S, streams.batched)
    one_by_one = streams.most(bundle, limit, STREAMS_S, streams.unbatched)
    return {
        "batched": streams.largest(side_by_side),
        "unbatched": streams.largest(one_by_one),
        "batched_tries": [asdict(load) for load in side_by_side],
        "unbatched_tries": [asdict(load) for load in one_by_one],
    }
