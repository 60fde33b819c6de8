"""``rtsep portable``: a bundle as a plain ONNX graph of samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import click

from rtsep.cli.options import Choice, choose, model_options
from rtsep.errors import BundleError, OptionError
from rtsep.files.atomic import replacing
from rtsep.portable import pipewire as to_pipewire
from rtsep.portable import triton as to_triton
from rtsep.portable.check import check
from rtsep.portable.example import program
from rtsep.portable.graph import Portable, build
from rtsep.runtime.bundle import Bundle

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("bundle", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the portable graph to this file and print the program that runs it.",
)
@click.option(
    "--triton",
    type=_FOLDER,
    metavar="DIR",
    help="Write a model for the Triton Inference Server to this model repository.",
)
@click.option(
    "--pipewire",
    type=_FOLDER,
    metavar="DIR",
    help="Write a virtual microphone for PipeWire 1.6 or later, graph and configuration, to this "
    "folder.",
)
@click.option(
    "-c",
    "--channels",
    type=click.IntRange(1, 64),
    help="Channels of the mixture; by default those that the model processes jointly.",
)
@model_options
def portable(
    bundle: str | None,
    output: Path | None,
    triton: Path | None,
    pipewire: Path | None,
    channels: int | None,
    **choice: Unpack[Choice],
) -> None:
    """Write BUNDLE as a plain ONNX graph: samples and state in, sources and next state out.

    BUNDLE is a shipped model's name or a file; by default the default model. The graph has the
    windows, the overlap-add and all states inside and runs wherever ONNX does (opset 17). It is
    written only if it equals the engine within 1e-5.

    \b
    Examples:
      rtsep portable speech -o speech-portable.onnx
      rtsep portable music --channels 2 -o music-portable.onnx
      rtsep portable --sources me.rtsep,fan.rtsep -o ours-portable.onnx
      rtsep portable speech --triton models/
      rtsep portable speech --pipewire microphone/
    """  # noqa: D301
    if bundle is not None and choice["model"] is not None:
        raise OptionError(f"give the model once: {bundle} or --model {choice['model']}")
    if output is None and triton is None and pipewire is None:
        raise OptionError("say what to write: -o FILE, --triton DIR or --pipewire DIR")
    if pipewire is not None and (channels or 1) > 1:
        raise OptionError("--pipewire is for one channel: PipeWire runs one graph per channel")
    choice["model"] = choice["model"] or bundle
    chosen = choose(choice)
    name = chosen.metadata["name"]
    if output is not None:
        made = write(chosen, output, channels)
        click.echo(program(made, output), nl=False)
    if triton is not None:
        made = checked(chosen, channels, batch=True)
        with _writing(triton):
            place = to_triton.write(made, name, triton)
        click.echo(f"{place}: {figures(made)}", err=output is not None)
    if pipewire is not None:
        made = checked(chosen, channels, separate=True, sealed=True)
        with _writing(pipewire):
            place = to_pipewire.write(made, name, pipewire)
        click.echo(f"{place}: {figures(made)}", err=output is not None)


def write(bundle: Bundle, path: Path, channels: int | None = None) -> Portable:
    """Write the portable graph of a bundle if it equals the engine; print its figures.

    The figures go to standard error, so that standard output is the program alone.

    Raises
    ------
    BundleError
        The graph can't be made, differs from the engine, or can't be written.
    """
    made = checked(bundle, channels)
    with _writing(path), replacing(path) as part:
        part.write_bytes(made.model.SerializeToString())
    click.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {figures(made)}", err=True)
    return made


def checked(bundle: Bundle, channels: int | None, **form: bool) -> Portable:
    """Build a portable graph and compare it with the engine; ``form`` as in `build`."""
    made = build(bundle, channels, **form)
    check(made, bundle)
    return made


def figures(made: Portable) -> str:
    """Block, channels, rate and latency as text."""
    rate, channels = made.spec.sample_rate, made.channels
    return (
        f"{made.block} samples of {channels} channel{'s' * (channels > 1)} at {rate} Hz per call, "
        f"{1000 * made.latency_samples / rate:.1f} ms late, equal to the engine"
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Report what the system refuses as an error of ``path``."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path} can't be written: {error.strerror}") from None
