"""Score a model over lookahead: train each lookahead for the same steps and score the bundles.

python -m bench.lag chandna --data ../shared/data --lookahead 0,1,2,4,8,11,18 --minutes 3

Prints a table and writes it as ``lag.json`` and ``lag.png`` to ``runs/lag/chandna-3min``. Existing
results are reused, so a stopped run can be continued. The minutes are converted to a number of
steps once, so every lookahead is trained for the same steps; scoring takes about a minute each.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from rtsep.evaluate.evaluation import evaluate
from rtsep.latency import Latency
from rtsep.models.checkpoint import load
from rtsep.nn.frontend import Frontend
from rtsep.nn.onnx import export, write
from rtsep.train.losses import named
from rtsep.train.recipe import fit, mixer, parse

EXPORT = Path(__file__).parents[1] / "export"
RECIPES = {
    "chandna": EXPORT / "chandna-speech.toml",
    "attractors": Path(__file__).with_name("attractors.toml"),
}
"""Recipes by architecture, with the fields of `export/*.toml`."""


def steps_in(minutes: float, recipe: dict[str, Any], data: Path) -> int:
    """Return the number of training steps in ``minutes`` on this machine."""
    description, schedule, mixtures = parse(recipe)
    mixing = mixer(description, mixtures, data, "val")
    model, frontend = description.build(), Frontend(description.spec)
    loss = named(schedule.loss, schedule.compressed)
    seconds = []
    for index in range(8):
        start = time.monotonic()
        mixture, target = (torch.from_numpy(x) for x in mixing[index])
        mixed = time.monotonic()
        loss(model, frontend, mixture, target).backward()  # type: ignore[no-untyped-call]
        seconds.append(max(mixed - start, time.monotonic() - mixed))
    return max(round(60 * minutes / float(np.median(seconds))), 1)


def shortened(recipe: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return the recipe with a schedule of ``steps`` steps, its other figures in proportion."""
    recipe = copy.deepcopy(recipe)
    recipe["schedule"] |= {
        "steps": steps,
        "warmup": max(steps // 10, 1),
        "validate_every": max(steps // 4, 1),
        "average": max(1 - 20 / steps, 0.0),
    }
    return recipe


def score(recipe: dict[str, Any], lookahead: int, data: Path, folder: Path) -> dict[str, Any]:
    """Train, export and score one lookahead in ``folder``, or read the saved scores."""
    result = folder / "result.json"
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return found
    recipe = copy.deepcopy(recipe)
    recipe["spec"]["lookahead"] = lookahead
    description, model = load(fit(recipe, data, folder))
    bundle = export(model, description.spec, description.texts())
    write(bundle, folder / "model.onnx")
    scored = evaluate(data / recipe["evaluation"]["folder"], str(folder / "model.onnx"))
    spec = bundle.spec
    parameters, macs = bundle.cost()
    found = {
        "lookahead": lookahead,
        "lookahead_ms": 1000 * lookahead * spec.hop_length / spec.sample_rate,
        "latency_ms": 1000 * Latency.of(spec, spec.step_length).total / spec.sample_rate,
        "parameters": parameters,
        "macs_per_second": macs,
        "mixtures": len(scored.items),
        "si_sdr_improvement_db": scored.mean("si_sdr_db", "improvement"),
        "pesq_wb": scored.mean("pesq_wb"),
        "estoi": scored.mean("estoi"),
    }
    result.write_text(json.dumps(found, indent=2), "utf-8")
    return found


def draw(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Plot the improvement over the latency, labelled with the lookahead in frames."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    latency_ms = [row["latency_ms"] for row in rows]
    improvement_db = [row["si_sdr_improvement_db"] for row in rows]
    axes.plot(latency_ms, improvement_db, "o-")
    for row in rows:
        point = (row["latency_ms"], row["si_sdr_improvement_db"])
        axes.annotate(str(row["lookahead"]), point, (4, -11), textcoords="offset points")
    axes.set(title=title, xlabel="latency in ms (lookahead in frames)", ylabel="SI-SDRi in dB")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Train and score all lookaheads of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, default=os.environ.get("RTSEP_DATA"))
    parser.add_argument("--lookahead", default="0,1,2,4,8,11,18", help="frames, with commas")
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of each; 3")
    parser.add_argument("--runs", type=Path, default=Path("runs/lag"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the data folder is missing: use --data or RTSEP_DATA")
    torch.set_num_threads(1)
    data = Path(arguments.data)
    recipe = tomllib.loads(RECIPES[arguments.model].read_text("utf-8"))
    folder = arguments.runs / f"{arguments.model}-{arguments.minutes:g}min"
    folder.mkdir(parents=True, exist_ok=True)
    budget = folder / "steps.json"
    if not budget.exists():
        budget.write_text(json.dumps(steps_in(arguments.minutes, recipe, data)))
    steps = json.loads(budget.read_text())
    recipe = shortened(recipe, steps)
    rows = [
        score(recipe, lookahead, data, folder / f"lookahead-{lookahead}")
        for lookahead in sorted({int(frames) for frames in arguments.lookahead.split(",")})
    ]
    print(f"{arguments.model}, {steps} steps each, {rows[0]['mixtures']} mixtures")
    print("lookahead  latency ms  SI-SDRi dB  PESQ-WB  ESTOI")
    for row in rows:
        print(
            f"{row['lookahead']:9d}  {row['latency_ms']:10.1f}  "
            f"{row['si_sdr_improvement_db']:10.2f}  {row['pesq_wb']:7.2f}  {row['estoi']:5.3f}"
        )
    table = {"model": arguments.model, "steps": steps, "rows": rows}
    (folder / "lag.json").write_text(json.dumps(table, indent=2), "utf-8")
    draw(rows, f"{arguments.model}, {steps} steps each", folder / "lag.png")
    print(f"{folder / 'lag.json'} and lag.png")


if __name__ == "__main__":
    main()
