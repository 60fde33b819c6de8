"""``rtsep export``: turn a checkpoint into a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from rtsep.errors import BundleError


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle.")
@click.option(
    "--portable",
    "plain",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write the portable graph, see `rtsep portable`, to this file.",
)
def export(checkpoint: Path, output: Path, plain: Path | None) -> None:
    """Turn a trained CHECKPOINT into a bundle.

    Writes the bundle only if the model keeps the streaming contract (any chunking gives the same
    output, no frame beyond the declared lookahead is used, state is explicit, the output is finite)
    and the ONNX graph gives the model's output on silence, noise and full scale.

    \b
    Examples:
      rtsep export runs/speech/best.safetensors -o my-model.onnx
      rtsep export runs/speech/best.safetensors -o my-model.onnx --portable my-portable.onnx
    """  # noqa: D301
    try:
        from rtsep.models.checkpoint import load
        from rtsep.nn.onnx import export as make
        from rtsep.nn.onnx import write
    except ModuleNotFoundError as error:
        raise BundleError(
            f"export needs {error.name}: install it with pip install 'rtsep[train]'"
        ) from None
    description, model = load(checkpoint)
    bundle = make(model, description.spec, description.texts())
    try:
        write(bundle, output)
    except OSError as error:
        raise BundleError(f"{output} can't be written: {error.strerror}") from None
    click.echo(f"{output}: {len(bundle.graph) / 1e6:.2f} MB, all checks passed")
    if plain is not None:
        from rtsep.cli.portable import write as write_portable

        write_portable(bundle, plain)
