"""Show a running stream until its end: a view, or lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live as Screen
from rich.text import Text

from rtsep.cli.report import Report
from rtsep.cli.terminal.bindings import Desk
from rtsep.cli.terminal.keyboard import keyboard, usable
from rtsep.cli.terminal.screen import painter
from rtsep.cli.terminal.view import View
from rtsep.realtime import builder
from rtsep.realtime.feedback_guard import PIECE_S, FeedbackGuard

FEEDBACK = (
    "the microphone picks up the loudspeaker with growing level: turn it down, or wear headphones"
)
FEEDBACK_PAUSE_S = 10.0
"""Interval of these warnings, in seconds."""
POLL_S = 0.1
"""Longest interval of checks, in seconds, limited to a third of that of pictures. Each check takes
the interpreter lock."""
VIEW_S, STATUS_S, LINE_S = 0.06, 0.1, 1.0
"""Intervals of pictures, of changes of a status line, and of lines, in seconds."""
NOTICE_S = 6.0
"""Time for which the view shows a message, in seconds."""

Show = Callable[[float], None]


class Notices(builder.Notices):
    """Messages that are printed, or kept while a view has the screen."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._kept: list[str] | None = None

    def __call__(self, sentence: str) -> None:
        """Add a message; thread-safe."""
        super().__call__(sentence)
        if self._kept is None:
            self._console.print(sentence)
        else:
            self._kept.append(sentence)

    def latest(self) -> str:
        """Return the last message while it is new, else an empty string."""
        said, sentence = self.last()
        return sentence if time.monotonic() - said < NOTICE_S else ""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep messages during the ``with`` block and print them at its end."""
        self._kept = []
        try:
            yield
        finally:
            kept, self._kept = self._kept, None
            for sentence in kept:
                self._console.print(sentence)


def watch(
    report: Report,
    console: Console,
    say: Notices,
    seconds: float | None,
    desk: Desk | None,
) -> None:
    """Show the stream until its end.

    Parameters
    ----------
    report
        Figures of the stream; ``report.completed`` is set if it ends as requested.
    console, say
        Console to draw on, and messages to show.
    seconds
        Time after which to stop; never if None.
    desk
        Key bindings; without them, keys are ignored and one line is shown.
    """
    live = report.live
    started = time.monotonic()
    looked, warned = started, -FEEDBACK_PAUSE_S
    guard = FeedbackGuard()
    with _screen(report, console, say, desk) as (period_s, show):
        shown = started
        while report.stream.control.working:
            now = time.monotonic()
            timed_out = seconds is not None and now - started >= seconds
            if timed_out or report.stream.heard_out or (desk is not None and desk.ended):
                report.completed = True
                return
            if now - looked >= PIECE_S:
                looked = now
                if guard.look(live.device) and now - warned >= FEEDBACK_PAUSE_S:
                    warned = now
                    say(FEEDBACK)
            if now - shown >= period_s:
                shown = now
                show(now - started)
            left_s = POLL_S if seconds is None else started + seconds - time.monotonic()
            time.sleep(max(min(POLL_S, period_s / 3, left_s), 0.0))


@contextmanager
def _screen(
    report: Report, console: Console, say: Notices, desk: Desk | None
) -> Iterator[tuple[float, Show]]:
    """Yield the function that shows the stream, as a view or a line, and its interval."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield LINE_S, lambda elapsed_s: console.print(report.status(elapsed_s))
    elif desk is None or console.legacy_windows or not usable():
        with Screen(console=console, auto_refresh=False, transient=True) as screen:
            yield (
                STATUS_S,
                lambda elapsed_s: screen.update(
                    Text(report.status(elapsed_s), no_wrap=True, overflow="ellipsis"), refresh=True
                ),
            )
    else:
        view = View(report, desk)
        with say.kept(), keyboard() as keys, painter(console) as paint:

            def show(elapsed_s: float) -> None:
                for key in keys():
                    desk.press(key)
                view.look(elapsed_s)
                paint(lambda width, height: view.lines(width, height, say.latest()))

            yield VIEW_S, show
