"""Read single keys from a terminal without blocking, and restore it afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ESCAPES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
}
"""Escape sequences without the escape character, and their keys."""
ESCAPE_S = 0.02
"""Longest pause within an escape sequence, in seconds."""
_NAMED = {"\r": "enter", "\n": "enter", "\x1b": "escape"}


@contextmanager
def keyboard() -> Iterator[Callable[[], list[str]]]:
    """Yield a function that returns the keys pressed since its last call: characters or names.

    Ctrl-C still interrupts. The end of the input returns the key ``"q"``.
    """
    if sys.platform == "win32":
        yield _windows_keys
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSANOW)
        mode = termios.tcgetattr(descriptor)
        mode[6][termios.VSUSP] = b"\x00"  # no suspension with Ctrl-Z: it would stop the sound
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        yield lambda: _posix_keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def usable() -> bool:
    """Return whether standard input is a terminal that this process may read."""
    if not sys.stdin or not sys.stdin.isatty():
        return False
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


def _posix_keys(descriptor: int) -> list[str]:
    import select

    content = b""
    # A sequence may arrive in pieces; the escape key alone is a single character.
    while select.select([descriptor], [], [], ESCAPE_S if _cut_off(content) else 0.0)[0]:
        try:
            part = os.read(descriptor, 256)
        except OSError:  # the terminal is gone
            part = b""
        if not part:
            return [*parse(content.decode(errors="ignore")), "q"]
        content += part
    return parse(content.decode(errors="ignore"))


def _cut_off(content: bytes) -> bool:
    """Return whether the text ends within an escape sequence."""
    last = content[content.rfind(b"\x1b") :] if b"\x1b" in content else b""
    return last in (b"\x1b", b"\x1b[", b"\x1bO")


def _windows_keys() -> list[str]:
    import msvcrt

    arrows = {"H": "up", "P": "down", "M": "right", "K": "left"}
    keys: list[str] = []
    while msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]
        key = msvcrt.getwch()  # type: ignore[attr-defined,unused-ignore]
        if key in "\x00\xe0":
            keys += filter(None, [arrows.get(msvcrt.getwch())])  # type: ignore[attr-defined,unused-ignore]
        else:
            keys.append(_NAMED.get(key, key))
    return keys


def parse(text: str) -> list[str]:
    """Split terminal input into keys; unknown sequences are ignored."""
    keys: list[str] = []
    place = 0
    while place < len(text):
        if text[place] == "\x1b" and text[place + 1 : place + 2] in ("[", "O"):
            end = place + 2
            while end < len(text) and not "@" <= text[end] <= "~":
                end += 1
            keys += filter(None, [ESCAPES.get(text[place + 1 : end + 1])])
            place = end + 1
        else:
            key = _NAMED.get(text[place], text[place])
            keys += [key] if key.isprintable() else []
            place += 1
    return keys
