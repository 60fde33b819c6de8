"""Fuzz `rtsep separate` with damaged files, `rtsep info` and `run` with damaged bundles.

python -m bench.fuzz files --count 100000 --jobs 2
python -m bench.fuzz bundles --count 20000 --jobs 2

Each case is generated from its number and passed to the command line in a forked process. It must
be processed, or rejected with one sentence, within `CPU_S` and `MEMORY_MB`. A case that breaks this
is reduced and saved under its number; ``--first N --count 1`` repeats it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import click
import numpy as np
import soundfile
from click.testing import CliRunner

from bench import damage
from rtsep.benchmark import roofline
from rtsep.cli import main, run, show
from rtsep.devices import open as opening
from rtsep.errors import DeviceError
from rtsep.realtime import scheduling

CPU_S = 5.0
"""Limit of a command's processor time in seconds; wall-clock time depends on the machine."""
CLOCK_S = 600
"""Wall-clock limit of a case in seconds, after which its process is killed."""
MEMORY_MB = 1000.0
"""Limit of the process's memory, including the 250 MB before the case."""
_CASES = 200  # per process
_BROKEN = 4  # exit code of a process in which the fuzzer itself failed

Case = Callable[[random.Random], tuple[str, bytes]]
KINDS: dict[str, tuple[Case, list[list[str]]]] = {
    "files": (damage.recording, [["separate", "FILE", "-o", "OUT", "-m", "TINY"]]),
    "bundles": (
        damage.bundle,
        [["info", "FILE"], ["run", "-d", "demo", "-s", "0.02", "-m", "FILE"]],
    ),
}
"""Generator of cases, and the commands that they are passed to, by kind."""


@dataclass
class Tally:
    """Results of the cases.

    Attributes
    ----------
    cases
        Number of cases.
    outcomes
        Number of cases processed, and rejected by reason.
    faults
        Number of the case, and description of the fault.
    slowest_s, largest_mb
        Maxima over all commands.
    """

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    largest_mb: float = 0.0

    def add(self, number: int, told: dict[str, Any]) -> None:
        """Count the verdict on one case."""
        self.cases += 1
        self.outcomes[told["outcome"]] += 1
        self.slowest_s = max(self.slowest_s, told["cpu_s"])
        self.largest_mb = max(self.largest_mb, told["mb"])
        if told["fault"]:
            self.faults.append((number, told["fault"]))


def run_commands(kind: str, suffix: str, content: bytes, folder: Path) -> dict[str, Any]:
    """Pass one input to its commands in this process and return the verdict."""
    path, out = folder / f"case.{suffix}", folder / "out"
    path.write_bytes(content)
    names = {"FILE": str(path), "OUT": str(out), "TINY": str(folder / "tiny.onnx")}
    outcome, fault, cpu_s = "processed", "", 0.0
    for command in KINDS[kind][1]:
        start = time.process_time()
        result = CliRunner().invoke(main, [names.get(word, word) for word in command])
        spent = time.process_time() - start
        cpu_s = max(cpu_s, spent)
        fault = fault or _fault(result, path, out)
        if not fault and spent > CPU_S:
            fault = f"{command[0]} took {spent:.1f} s"
        if result.exit_code:
            outcome = re.sub(r"\d+", "0", result.stderr.replace(str(path), "FILE"))[:90].strip()
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    if not fault and mb > MEMORY_MB:
        fault = f"memory grew to {mb:.0f} MB"
    shutil.rmtree(out, ignore_errors=True)
    return {"outcome": outcome, "fault": fault, "cpu_s": cpu_s, "mb": mb}


def _fault(result: Any, path: Path, out: Path) -> str:
    """Return the fault of a command, or an empty string."""
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        where = error.__traceback__
        while where.tb_next is not None:
            where = where.tb_next
        code = where.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{where.tb_lineno}"
        return f"traceback: {type(error).__name__} in {place}: {error}"
    if result.exit_code == 2:
        sentence = result.stderr[:-1]
        if not sentence.startswith("rtsep: ") or "\n" in sentence or len(sentence) > 1000:
            return f"not one sentence: {result.stderr[:300]!r}"
        if str(path) not in sentence:
            return f"the sentence does not name the file: {sentence!r}"
        if not sentence.isprintable() or "onnxruntime_src" in sentence:
            return f"no sentence for people: {sentence!r}"
        return ""
    if result.exit_code:
        return f"exit code {result.exit_code}: {result.output[:300]!r}"
    for stem in out.glob("*.wav"):
        if soundfile.info(stem).frames != soundfile.info(path).frames:
            return f"{stem.name} is not as long as the input"
    return ""


def _prepare(folder: Path) -> None:
    """Replace parts that are slow or play sound and are not tested."""

    def find(*_: object) -> None:
        raise DeviceError("no sound card")

    replaced: list[tuple[Any, str, Any]] = [
        (opening, "find", find),
        (run, "Process", Mock),  # it would look for that sound card
        (scheduling, "go_first", lambda: False),
        (scheduling, "lock_memory", lambda: False),
        (show, "core_peak", lambda: 1e11),
        (show, "speed", partial(roofline.speed, seconds=0.0)),
    ]
    for module, name, value in replaced:
        if hasattr(module, name):
            setattr(module, name, value)
    (folder / "tiny.onnx").write_bytes(damage.tiny())


def judged(
    kind: str, cases: list[tuple[int, tuple[str, bytes] | None]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run cases in forked processes; after a crash or hang, continue with the next case.

    Parameters
    ----------
    kind
        One of `KINDS`.
    cases
        Numbers, with suffix and content if these are not generated from the number.

    Yields
    ------
    The number and the verdict, in order.
    """
    done = 0
    while done < len(cases):
        for told in _forked(kind, cases[done : done + _CASES]):
            yield cases[done][0], told
            done += 1


def _forked(
    kind: str, cases: list[tuple[int, tuple[str, bytes] | None]]
) -> Iterator[dict[str, Any]]:
    """Run cases in one process until the first fault, which could affect later cases."""
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _child(kind, cases, Path(folder), writing)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
        _, status = os.waitpid(pid, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number or os.WEXITSTATUS(status) == _BROKEN:
        why = "the fuzzer itself failed"
        if number:
            why = f"died of {signal.Signals(number).name}"
        if number == signal.SIGALRM:
            why = f"no answer within {CLOCK_S} s"
        yield {"outcome": "fault", "fault": why, "cpu_s": 0.0, "mb": 0.0}


def _child(
    kind: str, cases: list[tuple[int, tuple[str, bytes] | None]], folder: Path, writing: int
) -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        soft = 6 << 30  # protects the machine; the verdict is by the memory used
        resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
        _prepare(folder)
        for number, given in cases:
            signal.alarm(CLOCK_S)  # both kill the process
            signal.setitimer(signal.ITIMER_PROF, 6 * CPU_S)
            suffix, content = given or made(kind, number)
            told = run_commands(kind, suffix, content, folder)
            os.write(writing, (json.dumps(told) + "\n").encode())
            if told["fault"]:
                break
        os._exit(0)
    except BaseException:
        os._exit(_BROKEN)


def made(kind: str, number: int) -> tuple[str, bytes]:
    """Generate a case from its number; return suffix and content."""
    return KINDS[kind][0](random.Random(f"{kind} {number}"))


def shrink(kind: str, number: int, fault: str, tries: int = 80) -> bytes:
    """Reduce a case while it still has its fault."""
    suffix, content = made(kind, number)
    like = re.sub(r"\d+", "0", fault)[:25]
    size = len(content) // 2
    while size and tries:
        at = 0
        while at < len(content) and tries:
            tries -= 1
            smaller = content[:at] + content[at + size :]
            ((_, told),) = judged(kind, [(number, (suffix, smaller))])
            if re.sub(r"\d+", "0", told["fault"])[:25] == like:
                content = smaller
            else:
                at += size
        size //= 2
    return content


def hunt(
    kind: str, first: int, count: int, said: Callable[[Tally], None] = lambda _: None
) -> Tally:
    """Run ``count`` cases from number ``first`` on."""
    tally = Tally()
    for number, told in judged(kind, [(n, None) for n in range(first, first + count)]):
        tally.add(number, told)
        said(tally)
    return tally


def _warm_up() -> None:
    """Import and compile before forking."""
    import rtsep.cli.run
    import rtsep.cli.separate  # noqa: F401

    soundfile.available_formats()
    np.fft.rfft(np.zeros(8))
    damage.recordings()


def _job(kind: str, first: int, count: int, name: str) -> None:
    """Run cases and report progress."""
    shown, seen = time.monotonic(), 0

    def say(tally: Tally) -> None:
        nonlocal shown, seen
        if len(tally.faults) > seen:
            seen = len(tally.faults)
            click.echo(f"{name}: case %d: %s" % tally.faults[-1], err=True)
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            click.echo(f"{name}: {tally.cases} of {count}, {len(tally.faults)} faults", err=True)

    tally = hunt(kind, first, count, say)
    outcomes = tally.outcomes.most_common()
    told = {**vars(tally), "outcomes": outcomes}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for faults")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    _warm_up()
    total, pipes = Tally(), []
    share = -(-arguments.count // arguments.jobs)
    for job in range(arguments.jobs):
        start = arguments.first + job * share
        size = min(share, arguments.first + arguments.count - start)
        reading, writing = os.pipe()
        if not os.fork():
            os.dup2(writing, 1)
            _job(arguments.kind, start, size, f"job {job}")
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    for reading in pipes:
        with os.fdopen(reading, encoding="utf-8") as lines:
            told = json.loads(lines.read())
        total.cases += told["cases"]
        total.outcomes.update(dict(told["outcomes"]))
        total.faults += [tuple(fault) for fault in told["faults"]]
        total.slowest_s = max(total.slowest_s, told["slowest_s"])
        total.largest_mb = max(total.largest_mb, told["largest_mb"])
    for outcome, times in total.outcomes.most_common(40):
        click.echo(f"{times:7} {outcome}")
    click.echo(
        f"{total.cases} cases, {total.outcomes['processed']} processed; the slowest took "
        f"{total.slowest_s:.1f} s, the largest {total.largest_mb:.0f} MB; "
        f"{len(total.faults)} faults"
    )
    kinds: dict[str, list[int]] = {}
    for number, fault in total.faults:
        kinds.setdefault(re.sub(r"\d+", "0", fault)[:120], []).append(number)
    for numbers in kinds.values():
        arguments.keep.mkdir(parents=True, exist_ok=True)
        number = numbers[0]
        text = dict(total.faults)[number]
        suffix, _ = made(arguments.kind, number)
        kept = arguments.keep / f"{arguments.kind}-{number}.{suffix}"
        with suppress(OSError):
            kept.write_bytes(shrink(arguments.kind, number, text))
        click.echo(f"{len(numbers)} times, first in case {number}, kept as {kept}: {text}")
    sys.exit(bool(total.faults))
