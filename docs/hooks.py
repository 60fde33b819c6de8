"""What the site takes from the project itself when it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click import Group
from click.testing import CliRunner
from mkdocs.structure.files import File

from rtsep import weights
from rtsep.cli import main

HELP = "<!-- help of all commands -->"
LISTENING = Path(__file__).parents[1] / "build" / "listening"
"""Page with its sounds, made by `export.listening`; the site can do without it."""


def on_files(files: Any, config: Any) -> Any:
    """Make a page of every card, and take in the listening page if it was made."""
    for path in sorted(LISTENING.rglob("*.*")):
        uri = path.relative_to(LISTENING).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    for card in sorted(Path(weights.__file__).parent.glob("*.md")):
        files.append(File.generated(config, f"cards/{card.name}", content=card.read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what ``--help`` says where it is wanted."""
    return markdown.replace(HELP, commands()) if HELP in markdown else markdown


def commands() -> str:
    """Help of rtsep and of its commands, each below a heading."""
    parts = []
    names = [""]
    for command in main.list_commands(None):  # type: ignore[arg-type]
        names += [command, *_inside(command)]
    for name in names:
        said = CliRunner().invoke(main, [*name.split(), "--help"], prog_name="rtsep")
        parts.append(f"## rtsep {name}".rstrip() + f"\n\n```text\n{said.stdout}```\n")
    return "\n".join(parts)


def _inside(name: str) -> list[str]:
    """Commands of a command that is a group."""
    command = main.get_command(None, name)  # type: ignore[arg-type]
    inside = command.commands if isinstance(command, Group) else {}
    return [f"{name} {each}" for each in inside]
