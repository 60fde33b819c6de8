"""Log of a training run: progress bar, ``curve.csv``, ``curve.png`` and TensorBoard."""

from __future__ import annotations

import csv
import importlib
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from rtsep.files.atomic import replacing

COLUMNS = ("step", "improvement_db", "loss")


class Journal:
    """Log of a run, from its start or resumption until it stops.

    Parameters
    ----------
    folder
        Folder for the files; None shows and writes nothing (further processes of a group).
    name
        Name of the run, shown before the bar.
    done
        Completed share of the run, 0 to 1.
    measure
        Name of the validation score, in dB.
    """

    def __init__(self, folder: Path | None, name: str, done: float, measure: str) -> None:
        self._folder, self._measure = folder, measure
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            disable=folder is None,
        )
        self._bar = self._progress.add_task(name, total=1.0, note="")
        self._progress.update(self._bar, completed=done)
        self._board = _board(folder) if folder else None
        self._started, self._heard_s, self._score = time.monotonic(), 0.0, ""
        self._steps, self._loss = 0, 0.0

    def __enter__(self) -> Journal:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the bar and the log."""
        self._progress.stop()
        if self._board is not None:
            self._board.close()

    def step(self, step: int, done: float, loss: float, heard_s: float, rate: float) -> None:
        """Log a step: completed share, loss, seconds of audio in the batch, learning rate."""
        self._steps += 1
        self._loss += (loss - self._loss) / min(self._steps, 100)
        self._heard_s += heard_s
        self._progress.update(self._bar, completed=done, note=self._note(step))
        if self._board is not None and step % 20 == 0:
            self._board.add_scalar("loss", loss, step)
            self._board.add_scalar("learning rate", rate, step)

    def validation(self, step: int, score_db: float) -> None:
        """Log a validation score."""
        if self._folder is None:
            return
        self._score = f", {self._measure} {score_db:.2f} dB"
        self._progress.update(self._bar, note=self._note(step))
        self._progress.console.print(self._note(step))
        path = self._folder / "curve.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(COLUMNS)
            rows.writerow([step, f"{score_db:.3f}", f"{self._loss:.4f}"])
        draw(path, self._measure)
        if self._board is not None:
            self._board.add_scalar(f"{self._measure} in dB", score_db, step)

    def _note(self, step: int) -> str:
        """Format step, speed (seconds of audio per second), loss and score."""
        speed = self._heard_s / max(time.monotonic() - self._started, 1e-9)
        return f"step {step}, {speed:.0f}x, loss {self._loss:.2f}{self._score}"


def _board(folder: Path) -> Any:
    """Open a TensorBoard log if the package is installed, else return None."""
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
    except ImportError:
        return None


def draw(path_csv: Path, measure: str) -> None:
    """Draw a ``curve.csv`` as PNG beside it; ``measure`` labels the axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with path_csv.open(newline="", encoding="utf-8") as file:
        rows = [[float(row[name]) for name in COLUMNS] for row in csv.DictReader(file)]
    steps, scores, losses = zip(*rows, strict=True)
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    labels = f"{measure}, dB", "loss"
    for panel, values, label in zip(
        figure.subplots(2, 1, sharex=True), (scores, losses), labels, strict=True
    ):
        panel.plot(steps, values, ".-")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    figure.axes[-1].set_xlabel("step")
    with replacing(path_csv.with_suffix(".png")) as part:
        figure.savefig(part, format="png")
