"""Measure one model: latency, time of a block, back to back and paced, start and memory."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import gcd
from typing import Any, TypeVar

import numpy as np

from rtsep.realtime import scheduling
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Float32, Float64

T = TypeVar("T")

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
SEGMENT_S = 5.0
"""A model and an empty loop alternate in segments of this length, under equal conditions."""
TURN_S = 0.1
"""Length of alternating back-to-back runs, in seconds."""
ALLOCATION_CALLS, ALLOCATION_ROUNDS = 1000, 3
MAX_BACKLOG_S = 2.0
"""A paced run ends when it is this far behind."""
LEVEL = 0.1
"""Standard deviation of the noise that is separated."""


def percentiles_us(seconds: Float64) -> dict[str, float]:
    """Return median, p95, p99, p99.9 and maximum in microseconds."""
    found = np.percentile(seconds, list(PERCENTILES.values())) * 1e6
    return {name: round(float(us), 1) for name, us in zip(PERCENTILES, found, strict=True)}


@dataclass(frozen=True)
class Paced:
    """Times of a paced run, of a model or of an empty loop.

    Attributes
    ----------
    late_s, done_s
        (calls,) start and end of each call, relative to when its block was due.
    cpu_s
        Processor time of this thread for all calls.
    """

    late_s: Float64
    done_s: Float64
    cpu_s: float


class Trial:
    """A model in its engine, on noise.

    Parameters
    ----------
    bundle
        The model.
    block
        Samples per block; 0 for one call of the model.
    threads
        Threads of ONNX Runtime.
    streams
        Streams per call.

    Raises
    ------
    BundleError
        The bundle does not run.
    """

    def __init__(self, bundle: Bundle, block: int = 0, threads: int = 1, streams: int = 1) -> None:
        spec = bundle.spec
        self.bundle, self.threads = bundle, threads
        self.block = block or spec.step_length
        self.period_s = self.block / spec.sample_rate
        self.step = make_step(bundle, streams, threads)
        channels = streams * spec.channels
        self.engine = Engine(self.step, spec, channels, self.block)
        self._group = spec.step_length // gcd(self.block, spec.step_length)
        rng = np.random.default_rng(0)
        noise = LEVEL * rng.standard_normal((16, self.block, channels), np.float32)
        self._noise: list[Float32] = list(noise)
        self._out = np.empty((self.block, len(spec.sources), channels), np.float32)
        self._turn = 0
        for _ in range(20):
            self.call()

    def call(self) -> None:
        """Separate the next block."""
        self._turn = (self._turn + 1) & 15
        self.engine.process(self._noise[self._turn], self._out)

    def latency(self) -> dict[str, Any]:
        """Return the declared latency by its terms, and the measured one in samples.

        The stems of most models sum to the mixture. The latency is measured in their sum, as the
        position of an impulse and as the maximum of the cross-correlation with noise.
        """
        spec, terms = self.bundle.spec, asdict(self.engine.latency)
        total = self.engine.latency_samples
        n = -(-(2 * total + 4 * spec.step_length + spec.sample_rate // 4) // self.block)
        x = np.zeros((n * self.block, self.engine.channels), np.float32)
        at = len(x) // 3
        x[at] = 1.0
        impulse = int(np.argmax(np.abs(self._sum(x)))) - at
        x[:] = LEVEL * np.random.default_rng(1).standard_normal(x.shape)
        size = 2 * len(x)
        y = np.fft.irfft(np.fft.rfft(self._sum(x), size) * np.fft.rfft(x[:, 0], size).conj(), size)
        return {
            "samples": total,
            "terms_ms": {k: round(1000 * v / spec.sample_rate, 3) for k, v in terms.items()},
            "ms": round(1000 * total / spec.sample_rate, 3),
            "impulse_samples": impulse,
            "correlation_samples": int(np.argmax(y[: len(x)])),
        }

    def _sum(self, x: Float32) -> Float32:
        self.engine.reset()
        out = np.empty((len(x), *self._out.shape[1:]), np.float32)
        for start in range(0, len(x), self.block):
            part = slice(start, start + self.block)
            self.engine.process(x[part], out[part])
        self.engine.reset()
        total: Float32 = out[:, :, 0].sum(axis=1)
        return total

    def real_time_factor(self, times: Float64) -> float:
        """Return the median of time over duration, over groups of blocks with whole model calls."""
        groups = times[: len(times) // self._group * self._group].reshape(-1, self._group)
        return float(np.median(groups.sum(axis=1))) / (self._group * self.period_s)

    def paced(self, seconds: float) -> tuple[Paced, Paced]:
        """Call at real-time pace, alternating with an empty loop of the same period.

        Returns
        -------
        (Paced, Paced)
            Times of the model and of the empty loop, ``seconds`` each.
        """
        rounds = max(1, round(seconds / SEGMENT_S))
        count = max(1, round(seconds / rounds / self.period_s))
        pairs = [
            [
                _in_worker(partial(_paced, work, self.period_s, count), first=True)
                for work in (self.call, _nothing)
            ]
            for _ in range(rounds)
        ]
        model, floor = (_join(kind) for kind in zip(*pairs, strict=True))
        return model, floor

    def allocated_bytes(self) -> int:
        """Return the bytes that `ALLOCATION_CALLS` calls leave allocated, least of several rounds.

        Other threads of the process allocate occasionally; a leak of the calls is in all rounds.
        """
        kept = []
        tracemalloc.start()
        try:
            for _ in range(1 + ALLOCATION_ROUNDS):
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
                for _ in range(ALLOCATION_CALLS):
                    self.call()
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
                kept.append(after - before)
        finally:
            tracemalloc.stop()
        return max(0, min(kept[1:]))  # the first round includes one-time allocations


def times(call: Callable[[], object], seconds: float) -> Float64:
    """Time back-to-back calls for a duration; (calls,) in seconds."""
    return _in_worker(partial(_times, call, seconds))


def in_turns(calls: Sequence[Callable[[], object]], seconds: float) -> list[Float64]:
    """Time several calls as `times` does, alternating, so that disturbances affect all."""
    turns = max(1, round(seconds / TURN_S / len(calls)))
    turn_s = seconds / turns / len(calls)

    def work() -> list[list[Float64]]:
        return [[_times(call, turn_s) for call in calls] for _ in range(turns)]

    return [np.concatenate(parts) for parts in zip(*_in_worker(work), strict=True)]


def misses(paced: Paced, period_s: float) -> int:
    """Count the blocks that were not done when the next one was due."""
    return int(np.count_nonzero(paced.done_s > period_s))


_START = """
import json, resource, sys
from pathlib import Path
import numpy as np
from rtsep import weights
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step

bundle = weights.find(sys.argv[1])
spec = bundle.spec
engine = Engine(make_step(bundle), spec, spec.channels, spec.step_length)
engine.process(np.zeros((spec.step_length, spec.channels), np.float32))
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.platform == "linux":  # ru_maxrss includes the parent's
    status = Path("/proc/self/status").read_text()
    memory = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps({"memory": memory * (1 if sys.platform == "darwin" else 1024)}), flush=True)
"""
"""A program that separates one block."""


def start(model: str) -> dict[str, float]:
    """Measure time and memory of a new process until its first separated block, warm caches.

    Parameters
    ----------
    model
        Shipped name, or path of a bundle.

    Returns
    -------
    dict
        ``first_block_s`` from the start of the process; ``memory_mb``, its peak until then.
    """
    for _ in range(2):
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", _START, model], stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            line = program.stdout.readline()
            took = time.perf_counter() - began
    return {
        "first_block_s": round(took, 3),
        "memory_mb": round(json.loads(line)["memory"] / 1e6, 1),
    }


def _nothing() -> None:
    """Do nothing; the empty loop shows the delays of the machine itself."""


def _times(call: Callable[[], object], seconds: float) -> Float64:
    clock = time.perf_counter
    start = clock()
    call()
    most = max(1000, int(1.5 * seconds / max(clock() - start, 1e-6)))
    times = np.zeros(min(most, 10_000_000))
    end = clock() + seconds
    for i in range(len(times)):
        before = clock()
        if before >= end and i:
            return times[:i]
        call()
        times[i] = clock() - before
    return times


def _paced(call: Callable[[], object], period_s: float, count: int) -> Paced:
    clock, sleep = time.perf_counter, time.sleep
    late, done = np.zeros(count), np.zeros(count)
    call()
    cpu = time.thread_time()
    start = clock() + period_s
    for i in range(count):
        due = start + i * period_s
        wait = due - clock()
        if wait > 0:
            sleep(wait)
        elif wait < -MAX_BACKLOG_S:  # this machine is too slow for the model
            late, done = late[:i], done[:i]
            break
        late[i] = clock() - due
        call()
        done[i] = clock() - due
    return Paced(late, done, time.thread_time() - cpu)


def _join(parts: tuple[Paced, ...]) -> Paced:
    return Paced(
        np.concatenate([part.late_s for part in parts]),
        np.concatenate([part.done_s for part in parts]),
        sum(part.cpu_s for part in parts),
    )


def _in_worker(work: Callable[[], T], first: bool = False) -> T:
    """Run in a thread with the settings of the live worker; with real-time priority if ``first``.

    Real-time priority is only for work that sleeps in between.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        scheduling.flush_denormals()
        if first:
            scheduling.go_first()
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    with scheduling.undisturbed(ask=True):
        thread = threading.Thread(target=run, name="rtsep bench")
        thread.start()
        thread.join()
    if errors:
        raise errors[0]
    return results[0]
