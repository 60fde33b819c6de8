"""Draw ``docs/learning.png``: validation scores of the shipped models over their training.

``python -m export.curves [OUT.png]`` reads ``export/curves/NAME.csv``, with the columns ``hours``
of mixtures heard, ``core_hours`` of training and ``improvement_db``.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from rtsep.files.atomic import replacing

CURVES = Path(__file__).parent / "curves"
TARGET = CURVES.parents[1] / "docs" / "learning.png"
AXES = {"hours": "hours of mixtures heard", "core_hours": "hours of one core"}


def main(target: Path = TARGET) -> None:
    """Write the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(AXES), sharey=True)
    for path in sorted(CURVES.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
        for panel, column in zip(panels, AXES, strict=True):
            hours, scores = (
                [float(row[key]) for row in rows] for key in (column, "improvement_db")
            )
            panel.semilogx(hours, scores, ".-", label=path.stem)
    for panel, label in zip(panels, AXES.values(), strict=True):
        panel.set_xlabel(label)
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("validation: improvement, dB")
    panels[0].legend(fontsize=8)
    with replacing(target) as part:
        figure.savefig(part, format="png")
    print(target)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
