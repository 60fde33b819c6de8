"""Draw lines of text on the whole screen of a terminal, writing only changed lines.

Drawing holds the interpreter lock, which a worker in Python needs, so it has to be quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from rich.cells import cell_len, set_cell_size
from rich.console import Console

Line = list[tuple[str, str]]
"""Pieces of text, each with its rich style."""

Draw = Callable[[int, int], list[Line]]
"""Function that returns the lines for a width and a height."""

_MARK = "x"


def plain(line: Line) -> str:
    """Return the text without styles."""
    return "".join(text for text, _ in line)


def fitted(line: Line, width: int) -> Line:
    """Cut a line to at most ``width`` cells."""
    if cell_len(plain(line)) <= width:
        return line
    pieces: Line = []
    for text, style in line:
        text = set_cell_size(text, min(cell_len(text), width))
        width -= cell_len(text)
        pieces.append((text, style))
    return pieces


@contextmanager
def painter(console: Console) -> Iterator[Callable[[Draw], None]]:
    """Yield a function that shows lines; restore the screen at the end."""

    @cache
    def codes(style: str) -> tuple[str, str]:
        with console.capture() as capture:
            console.print(_MARK, style=style, end="")
        before, _, after = capture.get().partition(_MARK)
        return before, after

    shown: list[str] = []
    size = console.size

    def paint(draw: Draw) -> None:
        nonlocal shown, size
        changes: list[str] = []
        size_now = console.size  # read once, because it may change at any time
        if size_now != size:  # the terminal may have moved the text
            size, shown = size_now, []
            changes.append("\x1b[0m\x1b[2J")
        now = []
        for number, line in enumerate(draw(*size)):
            pieces = [(*codes(style), text) for text, style in line]
            now.append("".join(f"{before}{text}{after}" for before, after, text in pieces))
            if number >= len(shown) or shown[number] != now[-1]:
                # Erase first: after a line of full width, erasing would clear its last cell.
                changes.append(f"\x1b[{number + 1};1H\x1b[2K{now[-1]}")
        changes += [f"\x1b[{number + 1};1H\x1b[2K" for number in range(len(now), len(shown))]
        shown = now
        if changes:
            console.file.write("".join(changes))
            console.file.flush()

    with console.screen(hide_cursor=True):
        yield paint
