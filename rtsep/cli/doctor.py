"""``rtsep doctor``: check the installation and say how to fix it."""

from __future__ import annotations

import click

from rtsep.cli import fail
from rtsep.diagnostics.doctor import Finding, examine


@click.command()
def doctor() -> None:
    """Check the installation and say how to fix problems.

    Checks versions, compiled kernels, ONNX Runtime, models, PortAudio with the default devices and
    real-time priority. Then separates three seconds of the demo at real-time pace: measures the
    latency, counts misses and compares the speech with the true one. Each line begins with ok, fix
    (a problem) or note (an improvement). The exit code is 1 if any line says fix.

    \b
    Examples:
      rtsep doctor
      rtsep doctor && rtsep run
    """  # noqa: D301
    bad = 0
    for finding in examine():
        click.echo(line(finding))
        bad += not finding.ok
    if bad:
        fail(f"{bad} to fix")
        click.get_current_context().exit(1)


def line(finding: Finding) -> str:
    """Format a finding; the fix is on a second line."""
    word, colour = ("ok", "green") if not finding.fix else ("note", "yellow")
    if not finding.ok:
        word, colour = "fix", "red"
    text = f"{click.style(f'{word:4}', colour)}  {finding.name}: {finding.text}"
    return f"{text}\n      {finding.fix}" if finding.fix else text
