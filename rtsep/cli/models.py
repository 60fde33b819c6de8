"""``rtsep models``: list, add and remove models."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.table import Table

from rtsep import weights
from rtsep.cli import fail
from rtsep.errors import BundleError
from rtsep.latency import counted
from rtsep.shelf.table import about, published


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models; * marks the default. Add and remove models by others.

    The list ends with the models that `rtsep models add` can add. Only that command uses the
    network.

    \b
    Examples:
      rtsep models
      rtsep models add gtcrn
      rtsep models remove gtcrn
    """  # noqa: D301
    if context.invoked_subcommand is None:
        _list()


def _list() -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("model", "sources", "rate", "channels", "latency", "quality"):
        table.add_column(column, no_wrap=column == "model")
    for name in weights.available():
        try:
            bundle = weights.find(name)
        except BundleError as error:
            fail(error)
            continue
        spec = bundle.spec
        late = counted(spec) / spec.sample_rate
        table.add_row(
            name + ("*" if name == weights.DEFAULT else ""),
            ", ".join(spec.sources),
            f"{spec.sample_rate} Hz",
            "any" if spec.channels == 1 else str(spec.channels),
            f"{1000 * late:.1f} ms",
            bundle.metadata["quality"],
        )
    console = Console()
    console.print(table)
    more = {name: row for name, row in published().items() if name not in weights.added()}
    if more:
        console.print("\nModels by others that `rtsep models add` can add:")
        for name, row in more.items():
            console.print(about(name, row), highlight=False, markup=False)


@models.command()
@click.argument("target", metavar="NAME|FILE|URL")
@click.option("--as", "name", metavar="NAME", help="Name of the model.")
@click.option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Description of a graph by others, as for rtsep adopt.",
)
@click.option("--sha256", metavar="HEX", help="SHA-256 that the file at a URL must have.")
@click.option("--offline", is_flag=True, help="Refuse what needs the network.")
def add(
    target: str, name: str | None, spec_path: Path | None, sha256: str | None, offline: bool
) -> None:
    """Add a model to your folder, so that all commands know it by name.

    NAME is one of the list of `rtsep models`: it is downloaded from where its authors publish it,
    and its SHA-256 is checked. FILE is a bundle or an ONNX file (two files: A,B), URL the address
    of one. A download that was cut goes on where it stopped. RTSEP_MODELS sets the folder.

    \b
    Examples:
      rtsep models add gtcrn
      rtsep models add my-model.onnx --as mine
    """  # noqa: D301
    from rtsep.adopt.description import read
    from rtsep.shelf.adding import add as put

    console = Console(stderr=True)
    bar = Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("download", total=None, visible=False)

        def progress(done: int, whole: int | None) -> None:
            bar.update(task, completed=done, total=whole, visible=True)

        path = put(
            target,
            name,
            None if spec_path is None else read(spec_path),
            sha256,
            offline,
            lambda text: click.echo(text),
            progress,
        )
    click.echo(f"{path.stem} is added: rtsep run --model {path.stem}")
    licence = weights.find(path.stem).metadata["licence"]
    click.echo(f"licence: {licence}; card: {path.with_suffix('.md')}")


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a model that was added.

    \b
    Example:
      rtsep models remove gtcrn
    """  # noqa: D301
    from rtsep.shelf.adding import remove as drop

    drop(name)
    click.echo(f"{name} is removed")
