"""Damaged files and bundles are processed or refused in a sentence; the fuzzer sees what is not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from bench import fuzz


def hunted(kind: str, first: int, count: int, folder: Path) -> str:
    """What a hunt without faults prints; in a process of its own, whose memory is the cases'."""
    command = [sys.executable, "-m", "bench.fuzz", kind, "--first", str(first)]
    command += ["--count", str(count), "--keep", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert not list(folder.iterdir())
    return done.stdout


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("files", 60),
        ("bundles", 25),
        pytest.param("files", 3000, marks=pytest.mark.soak),
        pytest.param("bundles", 1000, marks=pytest.mark.soak),
    ],
)
def test_damaged_input_is_processed_or_refused(kind: str, count: int, tmp_path: Path) -> None:
    told = re.search(r"(\d+) cases, (\d+) processed", hunted(kind, 0, count, tmp_path))
    assert told and int(told[1]) == count and 0 < int(told[2]) < count


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (859, "of mixture kept to replace late output"),  # 22 s late, more than is kept of it
        (9943, "its graph is malformed"),  # a weight of 8 GB, made of one that was to be filled
        (
            3397,
            "weight 'model.blocks",
        ),  # of a negative size, on which ONNX's inference ends the process
    ],
)
def test_cases_that_were_faults_once(number: int, sentence: str, tmp_path: Path) -> None:
    assert sentence in hunted("bundles", number, 1, tmp_path)


def test_a_case_is_made_from_its_number() -> None:
    for kind in fuzz.KINDS:
        cases = [fuzz.made(kind, number) for number in range(30)]
        assert cases == [fuzz.made(kind, number) for number in range(30)]
        assert len({content for _, content in cases}) > 20


def grow() -> None:
    fuzz.MEMORY_MB = 1.0


def speak() -> None:
    click.echo("rtsep: one\nrtsep: two", err=True)
    sys.exit(2)


def forget() -> None:
    click.echo("rtsep: it does not work", err=True)
    sys.exit(2)


def spin(seconds: float = 60.0) -> None:
    start = time.process_time()
    while time.process_time() < start + seconds:
        pass


def work() -> None:
    fuzz.CPU_S = 0.01
    spin(0.1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("action", "fault"),
    [
        (lambda: 1 / 0, r"traceback: ZeroDivisionError in test_fuzz.py:\d+: division by zero"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "died of SIGKILL"),
        (lambda: (signal.alarm(1), time.sleep(3600)), "no answer within 600 s"),
        (lambda: (signal.setitimer(signal.ITIMER_PROF, 0.1), spin()), "died of SIGPROF"),
        (lambda: sys.exit(1), "exit code 1"),
        (speak, "not one sentence"),
        (forget, "does not name the file"),
        (grow, r"memory grew to \d+ MB"),
        (work, r"info took \d+\.\d s"),
    ],
)
def test_faults_are_seen(
    action: Callable[[], object], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def broken(words: tuple[str, ...]) -> None:
        action()

    monkeypatch.setattr(fuzz, "main", broken)
    tally = fuzz.hunt("bundles", 0, 1)
    ((number, found),) = tally.faults
    assert number == 0 and re.search(fault, found)
