"""The command line; each command is a module that connects the other packages."""

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
    "serve": "serve",
    "separate": "separate",
    "learn": "learn",
    "enroll": "enroll",
    "eval": "evaluate",
    "devices": "show",
    "loopback": "loopback",
    "models": "models",
    "info": "show",
    "bench": "bench",
    "train": "train",
    "export": "export",
    "portable": "portable",
    "wyoming": "wyoming",
    "adopt": "adopt",
    "validate": "validate",
    "doctor": "doctor",
    "completion": "completion",
}
"""Module of this package for each command, imported when the command is called."""


class _Lazy(click.Group):
    """A group that imports a command when it is called, so the program starts quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"rtsep.cli.{_COMMANDS[name]}")
        command: click.Command = getattr(module, name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands without importing them, which takes a second."""
        names = [CompletionItem(name) for name in _COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print an `RtsepError` as one sentence and exit with code 2."""
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
    help="Show the versions of rtsep, Python and the main packages.",
)
def main() -> None:
    """Separate the sources of a live stream with a few milliseconds of latency.

    \b
    Examples:
      rtsep run                          the default microphone to the default output
      rtsep run --device demo            a built-in mixture, no sound card needed
      rtsep ui                           in the browser, with the browser's microphone
      rtsep separate talk.wav -o stems/  a file, with the same engine
    """  # noqa: D301


def fail(error: object) -> None:
    """Print an error on standard error."""
    click.echo(f"rtsep: {error}", err=True)


if __name__ == "__main__":
    sys.exit(main())
