"""``rtsep doctor``: is everything as it should be, and what to do if not."""

from __future__ import annotations

import click

from rtsep.cli import fail
from rtsep.diagnostics.doctor import Finding, examine


@click.command()
def doctor() -> None:
    """Look at the installation and say what is wrong, and what mends it.

    Versions, compiled kernels, ONNX Runtime, models, PortAudio with the default devices, real-time
    priority, and three seconds of the demo at real-time pace: its latency is measured, its misses
    are counted, its speech is compared with the true one. Lines begin with ok, with fix where
    something has to be done, or with note where something is only better done. The exit code is 1
    if any line says fix.

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
    """Put a finding in words; what to do stands on a line of its own."""
    word, colour = ("ok", "green") if not finding.fix else ("note", "yellow")
    if not finding.ok:
        word, colour = "fix", "red"
    text = f"{click.style(f'{word:4}', colour)}  {finding.name}: {finding.text}"
    return f"{text}\n      {finding.fix}" if finding.fix else text
