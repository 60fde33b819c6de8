"""What a terminal sends is taken apart into keys; the terminal is left as it was."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.cli.terminal import keyboard as keyboard_module
from rtsep.cli.terminal.keyboard import ESCAPES, keyboard, parse


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    monkeypatch.setattr(keyboard_module.sys, "stdin", SimpleNamespace(fileno=lambda: slave))
    yield master, slave
    os.close(slave)
    os.close(master)


@given(
    st.lists(st.sampled_from([*ESCAPES.items(), ("m", "m"), ("é", "é"), ("[5~", ""), ("\n", "")]))
)
def test_keys_are_taken_apart(pressed: list[tuple[str, str]]) -> None:
    sent = "".join(f"\x1b{text}" if text[0] in "[O" else text for text, _ in pressed)
    wanted = ["enter" if text == "\n" else key for text, key in pressed if text == "\n" or key]
    assert parse(sent) == wanted


@given(st.text())
def test_whatever_is_sent_is_keys_or_nothing(text: str) -> None:
    assert all(key.isprintable() and key for key in parse(text))


def test_keys_come_at_once_and_unseen(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    before = termios.tcgetattr(slave)
    with keyboard() as read:
        assert read() == []
        os.write(master, b"ab\x1b[A\x1b")
        assert read() == ["a", "b", "up", "escape"]
        mode = termios.tcgetattr(slave)
        assert not mode[3] & (termios.ICANON | termios.ECHO) and mode[3] & termios.ISIG
    assert termios.tcgetattr(slave) == before


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_the_terminal_is_as_it_was(terminal: tuple[int, int], error: type[BaseException]) -> None:
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(error), keyboard():
        assert termios.tcgetattr(terminal[1]) != before
        raise error
    assert termios.tcgetattr(terminal[1]) == before


def test_a_terminal_that_is_gone_is_a_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    monkeypatch.setattr(keyboard_module.sys, "stdin", SimpleNamespace(fileno=lambda: slave))
    os.write(master, b"m")
    os.close(master)
    assert keyboard_module._posix_keys(slave)[-1] == "q"
    os.close(slave)
