"""``rtsep completion``: scripts with which shells complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_RTSEP_COMPLETE"
FILES = {
    "bash": 'eval "$(rtsep completion bash)"        # in ~/.bashrc',
    "zsh": 'eval "$(rtsep completion zsh)"         # in ~/.zshrc, after compinit',
    "fish": "rtsep completion fish | source        # in ~/.config/fish/config.fish",
}
"""Line of the start-up file, by shell."""


@click.command()
@click.argument("shell", type=click.Choice([*FILES]))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes commands and options.

    \b
    Examples:
      rtsep completion bash >> ~/.bashrc
      rtsep completion zsh >> ~/.zshrc
      rtsep completion fish > ~/.config/fish/completions/rtsep.fish
    """  # noqa: D301
    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(f"# Completion of rtsep for {shell}. To follow new versions, use this line instead:")
    click.echo(f"#   {FILES[shell]}")
    click.echo(kind(root, {}, "rtsep", VARIABLE).source())
