"""``rtsep doctor``: check the installation and say how to fix it."""

from __future__ import annotations

import json

import click

from rtsep.cli import fail
from rtsep.diagnostics.doctor import Finding, examine, report


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON without names or paths, for bug reports."
)
def doctor(as_json: bool) -> None:
    """Check the installation and say how to fix problems.

    Checks versions, compiled kernels, ONNX Runtime, models, PortAudio with the default devices and
    real-time priority. Then separates three seconds of the demo at real-time pace: measures the
    latency, counts misses and compares the speech with the true one. Each line begins with ok, fix
    (a problem) or note (an improvement). The exit code is 1 if any line says fix.

    \b
    Examples:
      rtsep doctor
      rtsep doctor && rtsep run
      rtsep doctor --json > doctor.json
    """  # noqa: D301
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            click.echo(line(finding))
    if as_json:
        click.echo(json.dumps(report(findings), indent=2))
    if bad := sum(not finding.ok for finding in findings):
        fail(f"{bad} to fix")
        click.get_current_context().exit(1)


def line(finding: Finding) -> str:
    """Format a finding; the fix is on a second line."""
    word, colour = ("ok", "green") if not finding.fix else ("note", "yellow")
    if not finding.ok:
        word, colour = "fix", "red"
    text = f"{click.style(f'{word:4}', colour)}  {finding.name}: {finding.text}"
    return f"{text}\n      {finding.fix}" if finding.fix else text
