"""``rtsep portable``: a bundle as a plain ONNX graph of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from rtsep.cli.options import Choice, choose, model_options
from rtsep.errors import BundleError, OptionError
from rtsep.files.atomic import replacing
from rtsep.portable.check import check
from rtsep.portable.example import program
from rtsep.portable.graph import Portable, build
from rtsep.runtime.bundle import Bundle


@click.command()
@click.argument("bundle", required=False)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="The portable graph.",
)  # fmt: skip
@click.option(
    "-c",
    "--channels",
    type=click.IntRange(1, 64),
    help="Channels of the mixture; by default those that the model processes jointly.",
)
@model_options
def portable(
    bundle: str | None, output: Path, channels: int | None, **choice: Unpack[Choice]
) -> None:
    """Write BUNDLE as a plain ONNX graph: samples and state in, sources and next state out.

    BUNDLE is a shipped model's name or a file; by default the default model. The graph has the
    windows, the overlap-add and all states inside and runs wherever ONNX does (opset 17). It is
    written only if it equals the engine within 1e-5. Prints the program that runs it.

    \b
    Examples:
      rtsep portable speech -o speech-portable.onnx
      rtsep portable music --channels 2 -o music-portable.onnx
      rtsep portable --sources me.rtsep,fan.rtsep -o ours-portable.onnx
    """  # noqa: D301
    if bundle is not None and choice["model"] is not None:
        raise OptionError(f"give the model once: {bundle} or --model {choice['model']}")
    choice["model"] = choice["model"] or bundle
    made = write(choose(choice), output, channels)
    click.echo(program(made, output), nl=False)


def write(bundle: Bundle, path: Path, channels: int | None = None) -> Portable:
    """Write the portable graph of a bundle if it equals the engine; print its figures.

    The figures go to standard error, so that standard output is the program alone.

    Raises
    ------
    BundleError
        The graph can't be made, differs from the engine, or can't be written.
    """
    made = build(bundle, channels)
    difference = check(made, bundle)
    try:
        with replacing(path) as part:
            part.write_bytes(made.model.SerializeToString())
    except OSError as error:
        raise BundleError(f"{path} can't be written: {error.strerror}") from None
    rate = made.spec.sample_rate
    click.echo(
        f"{path}: {path.stat().st_size / 1e6:.2f} MB, {made.block} samples of {made.channels} "
        f"channel{'s' * (made.channels > 1)} at {rate} Hz per call, "
        f"{1000 * made.latency_samples / rate:.1f} ms late, "
        f"differs from the engine by {difference:.0e}",
        err=True,
    )
    return made
