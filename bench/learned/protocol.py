"""The papers' protocol: learn two speakers, separate their mixture at 0 dB, score it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.learned.material import HOP, RATE_HZ, WINDOW, Pair, full_fit, spectra
from rtsep.evaluate.bss_eval import bss_eval
from rtsep.evaluate.metrics import si_sdr_db, stoi
from rtsep.learned.learn import Plan, check, learn
from rtsep.learned.source import Source, read, stream, write
from rtsep.spec import Float32

PLANS = [
    *(Plan(model, rank) for rank in (20, 100) for model in ("nmf", "nae", "nae-deep")),
    *(Plan(model, rank) for rank in (20, 80) for model in ("ccae", "rcae")),
]
"""Models that the papers compare."""
SCORES = ("sdr_db", "sir_db", "sar_db", "stoi")


def learned(pair: Pair, plan: Plan, folder: Path) -> tuple[list[Source], float]:
    """Learn both speakers, or read them; also return the mean seconds per speaker."""
    found, seconds = [], 0.0
    for name, sound in zip(pair.names, pair.learned_from, strict=True):
        path = folder / f"{name}-{plan.model}-{plan.rank}.rtsep"
        if not path.exists():
            spec = stream(name, RATE_HZ, WINDOW, HOP)
            x = spectra(sound)
            check(x, len(sound), spec, plan.rank)
            start = time.perf_counter()
            decoder, _ = learn(x, plan)
            seconds = time.perf_counter() - start
            told = f"{plan.model}, rank {plan.rank}, {len(sound) / RATE_HZ:.1f} s, {seconds:.1f} s"
            write(Source(name, plan.model, decoder, spec, told), path)
        found.append(read(path))
    times = [float(source.training.rpartition(", ")[2].split()[0]) for source in found]
    return found, float(np.mean(times))


def score(estimates: Float32, references: Float32) -> list[dict[str, float]]:
    """Return the scores of each source; both arrays are (n, sources)."""
    whole = bss_eval(estimates.T[:, :, None], references.T[:, :, None], len(references))
    return [
        {
            "sdr_db": float(whole.sdr[i]),
            "sir_db": float(whole.sir[i]),
            "sar_db": float(whole.sar[i]),
            "stoi": stoi(estimates[:, i], references[:, i], RATE_HZ),
            "si_sdr_db": si_sdr_db(estimates[:, i], references[:, i]),
        }
        for i in range(references.shape[1])
    ]


def work(pair: Pair, folder: Path) -> dict[str, Any]:
    """Run all plans for one pair, except results that are in ``folder``."""
    mixed = "+".join(pair.names)
    path = folder / f"{mixed}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for plan in PLANS:
        key = f"{plan.model} {plan.rank}"
        if key not in found:
            sources, seconds = learned(pair, plan, folder)
            scores = score(full_fit(pair.mixture, sources), pair.sentences)
            found[key] = {"learning_s": seconds, "scores": scores}
            print(f"{mixed:20} {key:14} SDR {np.mean([s['sdr_db'] for s in scores]):6.2f} dB")
            path.write_text(json.dumps(found, indent=1), "utf-8")
    return found


def run(pairs: Sequence[Pair], folder: Path, jobs: int) -> dict[str, Any]:
    """Run all pairs in ``jobs`` processes; return the results by plan and pair."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        done = list(pool.map(work, pairs, [folder] * len(pairs)))
    return {
        f"{plan.model} {plan.rank}": {
            "+".join(pair.names): found[f"{plan.model} {plan.rank}"]
            for pair, found in zip(pairs, done, strict=True)
        }
        for plan in PLANS
    }


def values(entry: dict[str, Any], score: str) -> list[float]:
    """Return a score of all sources of all pairs."""
    return [source[score] for pair in entry.values() for source in pair["scores"]]


def table(found: dict[str, Any]) -> str:
    """Return the medians as a Markdown table."""
    lines = [
        "| model | rank | SDR dB | SIR dB | SAR dB | STOI | learning, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, entry in found.items():
        model, rank = key.split()
        sdr, sir, sar, intelligible = (np.median(values(entry, s)) for s in SCORES)
        seconds = np.median([pair["learning_s"] for pair in entry.values()])
        lines.append(
            f"| {model} | {rank} | {sdr:.2f} | {sir:.2f} | {sar:.2f} | {intelligible:.3f} | "
            f"{seconds:.1f} |"
        )
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the papers' box plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(11, 3.6), layout="constrained")
    for axes, name in zip(panels, SCORES, strict=True):
        axes.boxplot(
            [values(entry, name) for entry in found.values()],
            tick_labels=[key.replace(" ", "\n") for key in found],
            showfliers=True,
            flierprops={"markersize": 2},
        )
        axes.set_title(name.replace("_db", " in dB").upper().replace("IN DB", "in dB"), fontsize=10)
        axes.tick_params(axis="x", labelsize=6, rotation=90)
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
