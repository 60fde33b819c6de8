"""``rtsep adopt``: make a bundle of a streaming model by others."""

from __future__ import annotations

from pathlib import Path

import click

from rtsep.adopt.adoption import adopt as make
from rtsep.adopt.adoption import check
from rtsep.adopt.card import write
from rtsep.adopt.description import read


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the bundle.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle, .onnx."
)
@click.option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Description of inputs, outputs, windows, hop and delay.",
)
def adopt(files: tuple[Path, ...], name: str, output: Path, spec_path: Path | None) -> None:
    """Make a bundle of a streaming model by others, one or two ONNX FILES.

    Known are GTCRN, UL-UNAS, DTLN (two files) and DeepFilterNet's streaming export, as their
    authors publish them, and files with the metadata of sherpa-onnx. --spec describes any other.
    The bundle is written only if it keeps the streaming contract; a card with author and licence is
    written beside it.

    \b
    Examples:
      rtsep adopt gtcrn_simple.onnx --as gtcrn -o gtcrn.onnx
      rtsep adopt model_1.onnx model_2.onnx --as dtln -o dtln.onnx
      rtsep adopt other.onnx --spec other.toml --as other -o other.onnx
    """  # noqa: D301
    bundle = make(files, name, None if spec_path is None else read(spec_path))
    check(bundle)
    write(bundle, output)
    click.echo(f"{output}: {len(bundle.graph) / 1e6:.2f} MB, all checks passed")
    click.echo(f"weights: {bundle.metadata['licence']}; see {output.with_suffix('.md')}")
