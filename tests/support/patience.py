"""How long tests wait for what must come: so long that a busy machine fails none."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 300.0
"""What takes longer never comes."""


def until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
