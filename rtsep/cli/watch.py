"""The meter of `rtsep run`, until it is time to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live as Screen
from rich.text import Text

from rtsep.cli.comeback import Comeback
from rtsep.cli.report import Report
from rtsep.feedback import PIECE_S, FeedbackGuard
from rtsep.worker import Live

FEEDBACK = (
    "the microphone hears the loudspeaker, louder and louder: turn it down, or wear headphones"
)
FEEDBACK_PAUSE_S = 10.0
"""Between two such warnings, in seconds."""


def watch(
    live: Live,
    report: Report,
    console: Console,
    seconds: float | None,
    comeback: Comeback | None,
) -> None:
    """Show the meter until it is time to stop, or until nothing can go on.

    Parameters
    ----------
    live, report
        The stream, started, and its figures; ``report.completed`` is set where it ends as it was
        to end.
    console
        Where it is shown.
    seconds
        Then stop; never if None.
    comeback
        Waits for a device that has gone; without, that is the end.
    """
    started = shown = time.monotonic()
    drained: float | None = None
    looked, warned = started, -FEEDBACK_PAUSE_S
    guard = FeedbackGuard()

    def enough() -> bool:
        return seconds is not None and time.monotonic() - started >= seconds

    with _screen(console) as show:
        while live.working:
            now = time.monotonic()
            if enough():
                report.completed = True
                return
            if drained is None and live.device.finished:
                drained = now + report.latency_ms() / 1000 + 0.1  # the end of the file is heard
            if drained is not None and now >= drained:
                report.completed = True
                return
            if not live.running and (comeback is None or not comeback.wait(enough)):
                return
            if now - looked >= PIECE_S:
                looked = now
                if guard.look(live.device) and now - warned >= FEEDBACK_PAUSE_S:
                    warned = now
                    console.print(FEEDBACK)
            if now - shown >= (0.1 if console.is_terminal else 1.0):
                shown = now
                show(report.status(now - started))
            time.sleep(0.02)


@contextmanager
def _screen(console: Console) -> Iterator[Any]:
    """Give a function that shows one status line: in place on a terminal, else below the last."""
    if console.is_terminal:
        with Screen(console=console, refresh_per_second=10, transient=True) as screen:
            yield lambda line: screen.update(Text(line, no_wrap=True, overflow="ellipsis"))
    else:
        yield console.print
