"""Scores as a table, JSON, CSV and box plots."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from rich.table import Table

from rtsep.errors import EvaluationError
from rtsep.evaluate.evaluation import Evaluation
from rtsep.evaluate.metrics import METRICS
from rtsep.evaluate.words import VERSIONS
from rtsep.files.atomic import replacing
from rtsep.version import __version__


def table(evaluation: Evaluation) -> Table:
    """Tabulate the means by metric and source, with the improvement over the mixture."""
    summary = evaluation.summary()
    result = Table(box=None, pad_edge=False)
    result.add_column("mean (improvement)")
    for source in summary:
        result.add_column(source, justify="right")
    for key, metric in METRICS.items():
        digits = metric.digits
        cells = []
        for source in summary:
            found = summary[source].get(key)
            cell = "" if found is None else f"{found.mean:.{digits}f}"
            if found is not None and math.isfinite(found.improvement):
                cell += f" ({found.improvement:+.{digits}f})"
            cells.append(cell)
        if any(cells):
            result.add_row(metric.label, *cells)
    return result


def as_json(evaluation: Evaluation, failures: list[str]) -> str:
    """Return all scores as JSON; undefined ones are null."""
    summary = {
        source: {metric: _plain(asdict(found)) for metric, found in metrics.items()}
        for source, metrics in evaluation.summary().items()
    }
    rows = [
        {
            "item": row.item,
            "source": row.source,
            "estimate": _plain(row.estimate),
            "mixture": _plain(row.mixture),
        }
        for row in evaluation.rows
    ]
    words = {}
    if evaluation.words is not None:
        words["words"] = {
            "summary": {name: asdict(found) for name, found in evaluation.words.summary().items()},
            "rows": [asdict(row) for row in evaluation.words.rows],
        }
    return json.dumps(
        {
            "rtsep": __version__,
            "model": evaluation.name,
            "folder": str(evaluation.folder),
            "headline": evaluation.headline(),
            "mixtures": len(evaluation.items) - len(failures),
            "failures": failures,
            "unscored_sources": evaluation.unscored,
            "summary": summary,
            "rows": rows,
            **words,
        },
        indent=2,
        allow_nan=False,
    )


def as_csv(evaluation: Evaluation) -> str:
    """Return a line per mixture and source: metrics of estimate and mixture, and wrong words."""
    recognised = evaluation.words.rows if evaluation.words is not None else []
    heard = {(row.item, row.source): row for row in recognised}
    metrics = [m for m in METRICS if any(m in row.estimate for row in evaluation.rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    counted = ["words", *(f"wrong_words_{version}" for version in VERSIONS)] if heard else []
    writer.writerow(
        ["item", "source", *metrics, *(f"{metric}_mixture" for metric in metrics), *counted]
    )
    for row in evaluation.rows:
        found = [part.get(m) for part in (row.estimate, row.mixture) for m in metrics]
        cells = ["" if x is None or not math.isfinite(x) else f"{x:.6g}" for x in found]
        words = heard.get((row.item, row.source))
        wrong = [words.words, *(words.errors[version] for version in VERSIONS)] if words else []
        cells += map(str, wrong) if wrong else [""] * len(counted)
        writer.writerow([row.item, row.source, *cells])
    return text.getvalue()


def draw(evaluation: Evaluation, file: BinaryIO) -> None:
    """Draw a PNG with a panel per metric and a box per source; grey is the mixture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    summary = evaluation.summary()
    metrics = [m for m in METRICS if any(m in found for found in summary.values())]
    columns = 4
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(12, 2.6 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # attaches itself to the figure, without a window or global state
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        sources = [source for source in summary if metric in summary[source]]
        for place, part, colour in ((-0.18, "estimate", "C0"), (0.18, "mixture", "0.7")):
            boxes = [
                [
                    getattr(row, part)[metric]
                    for row in evaluation.rows
                    if row.source == source and math.isfinite(getattr(row, part)[metric])
                ]
                for source in sources
            ]
            panel.boxplot(
                boxes,
                positions=[index + place for index in range(len(sources))],
                widths=0.3,
                patch_artist=True,
                boxprops={"facecolor": colour, "linewidth": 0.8},
                medianprops={"color": "black"},
                flierprops={"markersize": 2},
                manage_ticks=False,
            )
        panel.set_xticks(range(len(sources)), sources)
        panel.set_title(METRICS[metric].label, fontsize=10)
        panel.tick_params(labelsize=8)
        panel.grid(axis="y", alpha=0.3)
    for panel in panels[len(metrics) :]:
        panel.set_axis_off()
    figure.suptitle(f"{evaluation.name} on {evaluation.folder.name}; grey: the mixture")
    figure.savefig(file, format="png")


def check_target(path: Path) -> None:
    """Check, before the work, that a file can be written after it."""
    if path.is_dir():
        raise EvaluationError(f"{path} can't be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise EvaluationError(f"{path} can't be written: {path.parent} is missing or read-only")


def write(path: Path, put: Callable[[BinaryIO], Any]) -> None:
    """Write a file with ``put``, atomically.

    Raises
    ------
    EvaluationError
        The file can't be written.
    """
    try:
        with replacing(path) as part, part.open("wb") as file:
            put(file)
    except OSError as error:
        raise EvaluationError(f"{path} can't be written: {error.strerror}") from None


def _plain(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores, rounded, with None for undefined ones."""
    return {key: round(x, 6) if math.isfinite(x) else None for key, x in scores.items()}
