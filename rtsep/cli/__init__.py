"""The command line: each command only wires the parts together."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from rtsep import __version__

_COMMANDS = {
    "run": "run",
    "separate": "separate",
    "learn": "learn",
    "eval": "evaluate",
    "devices": "show",
    "loopback": "loopback",
    "models": "show",
    "info": "show",
    "train": "train",
    "export": "export",
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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what was wrong with its input is one sentence and exit code 2."""
        try:
            return super().invoke(ctx)
        except (ValueError, AssertionError) as error:
            # Each of our errors is one of the two: bad input, or a model that breaks its contract.
            if not type(error).__module__.startswith("rtsep"):
                raise
            fail(error)
            ctx.exit(2)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="rtsep")
def main() -> None:
    """Separate the sources of a live stream, a few milliseconds late.

    \b
    Examples:
      rtsep run                          the default microphone to the default output
      rtsep run --device demo            a built-in mixture, no sound card needed
      rtsep separate talk.wav -o stems/  a file, through the same engine
    """  # noqa: D301


def fail(error: object) -> None:
    """Say what went wrong on standard error."""
    click.echo(f"rtsep: {error}", err=True)


if __name__ == "__main__":
    sys.exit(main())
