"""``rtsep train``: train a recipe on audio."""

from __future__ import annotations

import os
from pathlib import Path

import click

from rtsep.cli import fail
from rtsep.errors import BundleError, StoppedError


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    envvar="RTSEP_DATA",
    type=click.Path(path_type=Path),
    help="Folder of audio: MUSDB18, DSD100, LibriMix, WSJ0-mix, VoiceBank-DEMAND, or your own with "
    "a MANIFEST.csv; by default RTSEP_DATA.",
)
@click.option("--minutes", type=float, help="Duration, in place of the recipe's number of steps.")
@click.option("--resume/--fresh", default=True, help="Resume the run (default), or start over.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads of the network.",
)
@click.option(
    "--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that mix."
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of the runs; this run is in RUNS/NAME.",
)
def train(
    recipe: Path,
    data: Path,
    minutes: float | None,
    resume: bool,
    threads: int,
    workers: int,
    runs: Path,
) -> None:
    """Train the model of RECIPE, a TOML file, on the audio in DATA.

    Writes to RUNS/NAME: best.safetensors for `rtsep export`, resume.safetensors, the curve as CSV
    and PNG, and TensorBoard logs if the package is installed. Ctrl-C saves the run, and the same
    command resumes it. A CUDA GPU is used if there is one; for several, run
    `torchrun --nproc-per-node N -m rtsep train ...`.

    \b
    Example:
      rtsep train export/speech.toml --data DATA --minutes 10
    """  # noqa: D301
    try:
        from rtsep.train.parallel import limit_threads
        from rtsep.train.recipe import fit, parse, read
    except ModuleNotFoundError as error:
        raise BundleError(
            f"training needs {error.name}: install it with pip install 'rtsep[train]'"
        ) from None
    fields = read(recipe)
    folder = runs / parse(fields, minutes)[0].name
    limit_threads(threads)
    try:
        best = fit(fields, data, folder, minutes, not resume, workers)
    except StoppedError as stopped:
        fail(f"{stopped}; the same command, without --fresh, resumes it")
        click.get_current_context().exit(130)
    if int(os.environ.get("RANK", 0)) == 0:
        click.echo(f"{best}: export it with rtsep export {best} -o {folder.name}.onnx")
