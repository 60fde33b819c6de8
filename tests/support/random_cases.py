"""How many random cases a test tries: few every day, many in `make soak`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

USUAL = 15
"""Cases of a test that does not say how many."""
SOAK = 20
"""So many times as many are tried in `make soak`."""

_factor = 1


def begin(*, soak: bool) -> None:
    """Choose the number of cases; called before tests are imported. No test fails for its time."""
    global _factor
    _factor = SOAK if soak else 1
    settings.register_profile(
        "rtsep",
        max_examples=USUAL * _factor,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("rtsep")


def cases(count: int) -> settings:
    """Return the decorator of a test that tries so many cases every day."""
    return settings(max_examples=count * _factor)
