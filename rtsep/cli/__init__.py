"""The command line: each command only wires the parts together."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from rtsep.errors import RtsepError

_COMMANDS = {
    "run": "run",
    "ui": "ui",
    "separate": "separate",
    "learn": "learn",
    "eval": "evaluate",
    "devices": "show",
    "loopback": "loopback",
    "models": "show",
    "info": "show",
    "bench": "bench",
    "train": "train",
    "export": "export",
    "doctor": "doctor",
    "completion": "completion",
}
"""Which module of this package holds which command; imported when it is called."""


class _Lazy(click.Group):
    """A group whose commands are imported only when needed: starting must be quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"rtsep.cli.{_COMMANDS[name]}")
        command: click.Command = getattr(module, name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands by their names alone: importing all of them would take a second."""
        names = [CompletionItem(name) for name in _COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what was wrong with its input is one sentence and exit code 2."""
        try:
            return super().invoke(ctx)
        except RtsepError as error:
            fail(error)
            ctx.exit(2)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from rtsep.diagnostics.doctor import version_text

        click.echo(version_text())
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version, and those of what it runs on.",
)
def main() -> None:
    """Separate the sources of a live stream, a few milliseconds late.

    \b
    Examples:
      rtsep run                          the default microphone to the default output
      rtsep run --device demo            a built-in mixture, no sound card needed
      rtsep ui                           in the browser, which is the microphone
      rtsep separate talk.wav -o stems/  a file, through the same engine
    """  # noqa: D301


def fail(error: object) -> None:
    """Say what went wrong on standard error."""
    click.echo(f"rtsep: {error}", err=True)


if __name__ == "__main__":
    sys.exit(main())
