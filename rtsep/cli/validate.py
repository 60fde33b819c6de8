"""``rtsep validate``: check that a bundle keeps the streaming contract."""

from __future__ import annotations

from pathlib import Path

import click

from rtsep import weights
from rtsep.cli import fail
from rtsep.conformance.report import validate as check


@click.command()
@click.argument("bundle")
@click.option(
    "--strictness",
    type=click.IntRange(1, 10),
    default=5,
    help="More sound and more cases, 1 to 10; 5.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the noise; 0.")
def validate(bundle: str, strictness: int, seed: int) -> None:
    """Check that a BUNDLE keeps the streaming contract.

    BUNDLE is a model's name or a file. Checks finite output, block sizes smaller and larger than
    the hop, causality, alignment, state, NaN in the input, restoring a saved state, time and memory
    of a hop, and long silence, in a child process. Prints a line for each; the exit code is 1 if
    one failed.

    \b
    Examples:
      rtsep validate my-model.onnx
      rtsep validate my-model.onnx --strictness 10
    """  # noqa: D301
    path = weights.find(bundle).path
    assert path is not None
    failed = []
    for finding in check(Path(path), strictness, seed):
        click.echo(f"{'ok  ' if finding.passed else 'FAIL'} {finding.name}: {finding.text}")
        if not finding.passed:
            failed.append(finding.name)
    if failed:
        fail(f"{bundle} failed: {', '.join(failed)} (--seed {seed} repeats it)")
        click.get_current_context().exit(1)
