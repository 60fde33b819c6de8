"""Train every architecture for the same time on the same mixtures, and compare the bundles.

python -m bench.zoo --data ../shared/data --minutes 30 [banded unet ...]

Prints a table and writes ``zoo.json`` and ``zoo.png`` (quality over latency; the area is the load)
to ``runs/zoo/30min``. A run that was stopped goes on where it was, and finished architectures are
not trained again. ``zoo.toml`` has the recipe. Training takes one core; the minutes are those of a
core that is free.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import matplotlib

from rtsep.evaluate.evaluation import evaluate
from rtsep.latency import counted
from rtsep.models.checkpoint import load
from rtsep.nn.onnx import export, write
from rtsep.runtime.pipeline import LoadedModel
from rtsep.train.parallel import limit_threads
from rtsep.train.recipe import fit

RECIPE = Path(__file__).with_suffix(".toml")
TIMINGS = 20


def recipes() -> dict[str, dict[str, Any]]:
    """Return the recipe of each architecture."""
    base = tomllib.loads(RECIPE.read_text("utf-8"))
    found = {}
    for name, changes in base.pop("architectures").items():
        recipe = copy.deepcopy(base) | {"name": f"zoo-{name}", "model": name}
        for part, fields in changes.items():
            recipe[part] |= fields
        found[name] = recipe
    return found


def score(recipe: dict[str, Any], minutes: float, data: Path, folder: Path) -> dict[str, Any]:
    """Train, export and score one architecture in ``folder``, or read the saved scores."""
    result = folder / "result.json"
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return found
    description, model = load(fit(recipe, data, folder, minutes))
    bundle = export(model, description.spec, description.texts())
    write(bundle, folder / "model.onnx")
    scored = evaluate(data / recipe["evaluation"]["folder"], str(folder / "model.onnx"))
    spec, loaded = bundle.spec, LoadedModel(bundle, 1)
    weights, macs = bundle.cost()
    found = {
        "model": description.model,
        "minutes": minutes,
        "latency_ms": 1000 * counted(spec) / spec.sample_rate,
        "weights": weights,
        "macs_per_second": macs,
        "real_time_factor": min(loaded.load() for _ in range(TIMINGS)),
        "si_sdr_improvement_db": scored.mean("si_sdr_db", "improvement"),
        "pesq_wb": scored.mean("pesq_wb"),
        "estoi": scored.mean("estoi"),
        "mixtures": len(scored.items),
    }
    result.write_text(json.dumps(found, indent=2), "utf-8")
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot the improvement over the latency; the area of a point is the load of a core."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for row in rows:
        point = row["latency_ms"], row["si_sdr_improvement_db"]
        axes.scatter(*point, s=4000 * row["real_time_factor"], alpha=0.6)
        axes.annotate(row["model"], point, (5, 4), textcoords="offset points", fontsize=8)
    title = f"speech in noise, {rows[0]['minutes']:g} minutes of training each; area: load"
    axes.set(xlabel="latency in ms", ylabel="SI-SDRi in dB", title=title)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Train and score the architectures of the command line."""
    every = recipes()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="some of them; all by default")
    parser.add_argument("--data", type=Path, default=os.environ.get("RTSEP_DATA"))
    parser.add_argument("--minutes", type=float, default=30.0, help="training time of each; 30")
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the data folder is missing: use --data or RTSEP_DATA")
    for name in arguments.models:
        if name not in every:
            parser.error(f"there is no recipe for {name!r}; there are: {', '.join(every)}")
    limit_threads(1)
    folder = arguments.runs / f"{arguments.minutes:g}min"
    rows = [
        score(every[name], arguments.minutes, Path(arguments.data), folder / name)
        for name in arguments.models or every
    ]
    rows.sort(key=lambda row: -row["si_sdr_improvement_db"])
    print("model            SI-SDRi dB  PESQ-WB  ESTOI  latency ms   weights     RTF")
    for row in rows:
        print(
            f"{row['model']:15}  {row['si_sdr_improvement_db']:10.2f}  {row['pesq_wb']:7.2f}  "
            f"{row['estoi']:5.3f}  {row['latency_ms']:10.1f}  {row['weights']:8,}  "
            f"{row['real_time_factor']:6.3f}"
        )
    (folder / "zoo.json").write_text(json.dumps(rows, indent=2), "utf-8")
    draw(rows, folder / "zoo.png")
    print(f"{folder / 'zoo.json'} and zoo.png")


if __name__ == "__main__":
    main()
