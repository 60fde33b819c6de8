"""Quality and cost of live separation over the updates per frame, and of the full fit."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.learned.material import HOP, RATE_HZ, Pair, full_fit, live
from bench.learned.protocol import learned, score
from rtsep.learned.learn import Plan
from rtsep.learned.live import STEPS, bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.runtime.timing import Durations

COUNTS = (1, 2, 5, 10, 20)
PLANS = (Plan("nmf", 40), Plan("nae", 40), Plan("ccae", 20))
HOPS, ROUNDS = 600, 3
"""Hops and rounds of a timing; the fastest round counts, because the machine is shared."""


def hop_us(pair: Pair, made: Any) -> float:
    """Return the median time of a hop in the fastest round, on one core, in µs."""
    engine = Engine(make_step(made), made.spec, 1, HOP)
    x = np.resize(pair.mixture, HOPS * HOP)[:, None].astype(np.float32)
    out = np.zeros((HOP, len(made.spec.sources), 1), np.float32)
    medians = []
    for _ in range(ROUNDS):
        times = Durations()
        for first in range(0, len(x), HOP):
            block = x[first : first + HOP]
            start = time.perf_counter()
            engine.process(block, out)
            times.add(time.perf_counter() - start)
        medians.append(times.percentile_s(50) * 1e6)
    return min(medians)


def run(pairs: Sequence[Pair], folder: Path) -> dict[str, Any]:
    """Return the median SDR of the full fit and of each number of steps, and the hop time."""
    found: dict[str, Any] = {}
    for plan in PLANS:
        sources = [learned(pair, plan, folder)[0] for pair in pairs]
        offline = [
            source["sdr_db"]
            for pair, both in zip(pairs, sources, strict=True)
            for source in score(full_fit(pair.mixture, both), pair.sentences)
        ]
        entry: dict[str, Any] = {"offline_sdr_db": float(np.median(offline)), "live": []}
        for steps in COUNTS:
            scores, made = [], None
            for pair, both in zip(pairs, sources, strict=True):
                made = bundle(both, steps=steps)
                scores += score(live(pair.mixture, made), pair.sentences)
            microseconds = hop_us(pairs[0], made)
            entry["live"].append(
                {
                    "steps": steps,
                    "sdr_db": float(np.median([s["sdr_db"] for s in scores])),
                    "hop_us": microseconds,
                    "rtf": microseconds * 1e-6 * RATE_HZ / HOP,
                }
            )
            print(f"{plan.model} {plan.rank}", entry["live"][-1])
        found[f"{plan.model} {plan.rank}"] = entry
    (folder / "steps.json").write_text(json.dumps(found, indent=1), "utf-8")
    return found


def table(found: dict[str, Any]) -> str:
    """Return a Markdown table; the default number of steps is bold."""
    lines = ["| sources | steps | SDR live dB | SDR full fit dB | hop µs | RTF |"]
    lines.append("|---|---|---|---|---|---|")
    for name, entry in found.items():
        for point in entry["live"]:
            steps = f"**{point['steps']}**" if point["steps"] == STEPS else str(point["steps"])
            lines.append(
                f"| {name} | {steps} | {point['sdr_db']:.2f} | {entry['offline_sdr_db']:.2f} | "
                f"{point['hop_us']:.0f} | {point['rtf']:.3f} |"
            )
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw SDR and hop time over the number of steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, entry in found.items():
        steps = [point["steps"] for point in entry["live"]]
        (line,) = left.semilogx(steps, [p["sdr_db"] for p in entry["live"]], "o-", label=name)
        left.axhline(entry["offline_sdr_db"], color=line.get_color(), ls=":", lw=1)
        right.loglog(steps, [p["hop_us"] for p in entry["live"]], "o-", label=name)
    right.axhline(0.05e6 * HOP / RATE_HZ, color="black", ls=":", lw=1)
    left.set(xlabel="steps per frame", ylabel="median SDR in dB", title="dotted: the full fit")
    right.set(xlabel="steps per frame", ylabel="hop in µs", title="dotted: RTF 0.05")
    for axes in (left, right):
        axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
