"""CPU time of each test, of its fixtures and of the processes that it waited for: ``--cpu 30``."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest


class Meter:
    """Share out the CPU time of this process among the reports of its tests."""

    def __init__(self) -> None:
        self._seen = self._now()

    @staticmethod
    def _now() -> float:
        return sum(os.times()[:4])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report: Any = yield
        before, self._seen = self._seen, self._now()
        report.cpu_s = self._seen - before  # workers send it with the report
        return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", type=int, metavar="N", help="list the N tests of most CPU time")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("cpu") is not None:
        config.pluginmanager.register(Meter(), "cpu meter")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    most = config.getoption("cpu")
    if most is None:
        return
    tests: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                tests[report.nodeid] += getattr(report, "cpu_s", 0.0)
    files: dict[str, float] = defaultdict(float)
    for name, seconds in tests.items():
        files[name.partition("::")[0]] += seconds
    for found in (tests, files):
        terminalreporter.section(f"CPU seconds, {sum(found.values()):.0f} in all")
        for name in sorted(found, key=found.__getitem__, reverse=True)[:most]:
            terminalreporter.write_line(f"{found[name]:8.2f}  {name}")
