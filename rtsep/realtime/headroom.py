"""Adapt the headroom of a stream to the machine, and remember it.

The headroom is the time the worker has for a block. What it needs differs between machines by a
factor of ten, so it is measured: the stream starts with what the last one on this device needed,
shrinks the headroom while the slowest answers of the worker allow that, and grows it after a
deadline miss. The callback cross-fades each change (see `rtsep.devices.callback`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from rtsep.files.atomic import replacing
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.timing import percentile_s
from rtsep.spec import Int64

PATIENCE_S = 10.0
"""Time without a miss after which the headroom may shrink, in seconds. Each miss doubles it, so in
a time T there are at most log2(T / PATIENCE_S) attempts, and the headroom does not oscillate."""
MOST_PATIENCE_S = 86_400.0
SETTLE_S = 1.0
"""After a change, and after the start, misses are not counted for this time, in seconds."""
MOST_S = 0.05
"""Largest headroom, in seconds. Longer gaps, as of a machine that stands still, change nothing."""
BESIDE_S = 0.3
"""Nor do misses for this time after an xrun or a missed callback of the device, which interrupts
the sound by itself."""
SPARED = 2
"""Misses within `PATIENCE_S` that do not grow the smallest headroom: who asks for it prefers a rare
miss to a later sound."""
PERCENT = 99.99
"""Percentile of the times of answers that must fit into the headroom."""
RESERVE, RESERVE_S = 0.25, 0.0005
"""Time left for late callbacks: a share of a block, and at least this many seconds."""
MOST_KEPT = 100
"""Number of streams that are remembered."""
_MOST_BYTES = 1 << 16


class Need(NamedTuple):
    """What a stream has needed."""

    blocks: int
    """Headroom in blocks."""
    patience_s: float = PATIENCE_S
    """Time without a miss until it may shrink, in seconds."""


class Regulator:
    """Decides about the headroom, in blocks.

    Parameters
    ----------
    block_s
        Duration of a block in seconds.
    need
        What to begin with.
    most
        Largest headroom; `MOST_S` limits it, too.
    spared
        Misses within `PATIENCE_S` that do not make it grow.

    Attributes
    ----------
    blocks
        Wanted headroom.
    patience_s
        Time without a miss until it may shrink.
    slowest_s
        `PERCENT` of the answers took no longer, when that was last determined.
    """

    def __init__(self, block_s: float, need: Need, most: int, spared: int = 0) -> None:
        self.most = max(1, min(most, int(MOST_S / block_s)))
        self.blocks, self.patience_s = min(need.blocks, self.most), need.patience_s
        self.slowest_s = 0.0
        self._block_s, self._spared = block_s, spared
        self._late_s: list[float] = []
        self._interruptions, self._interrupted_s = 0, -math.inf
        self._since = self._changed = 0.0
        self._cells: Int64 | None = None
        self._misses = self._missing = 0

    def look(
        self, now_s: float, misses: int, missing: int, cells: Int64, interruptions: int = 0
    ) -> bool:
        """Update the wanted headroom; return whether it changed.

        Parameters
        ----------
        now_s
            Time in seconds.
        misses, missing
            Deadline misses so far, and their duration in blocks.
        cells
            Counts of the times of all answers so far, see `rtsep.runtime.timing.Histogram`.
        interruptions
            Xruns and missed callbacks of the device so far.
        """
        if interruptions != self._interruptions:
            self._interruptions, self._interrupted_s = interruptions, now_s
        if self._cells is None:
            self._changed = now_s
        if self._cells is None or now_s - self._changed < SETTLE_S:
            self._begin(now_s, misses, missing, cells)
            return False
        before = self.blocks
        if misses > self._misses:
            short = missing - self._missing <= self.most * (misses - self._misses)
            avoidable = short and now_s - self._interrupted_s >= BESIDE_S
            if avoidable and self._too_many(now_s, misses - self._misses):
                self.blocks = min(self.blocks + 1, self.most)
                self.patience_s = min(2 * self.patience_s, MOST_PATIENCE_S)
                self._changed = now_s
            self._begin(now_s, misses, missing, cells)
        elif now_s - self._since >= self.patience_s:
            answers = cells - self._cells
            if 2 * answers.sum() * self._block_s >= self.patience_s:  # the device was not away
                self.slowest_s = percentile_s(answers, PERCENT)
                self.blocks = min(self.blocks, self._needed())
            self._begin(now_s, misses, missing, cells)
            if self.blocks != before:
                self._changed = now_s
        return self.blocks != before

    def _too_many(self, now_s: float, new: int) -> bool:
        recent = [late_s for late_s in self._late_s if now_s - late_s < PATIENCE_S]
        recent += [now_s] * min(new, self._spared + 1)
        self._late_s = [] if len(recent) > self._spared else recent
        return len(recent) > self._spared

    def _begin(self, now_s: float, misses: int, missing: int, cells: Int64) -> None:
        self._since, self._cells = now_s, cells.copy()
        self._misses, self._missing = misses, missing

    def _needed(self) -> int:
        """Return the headroom into which the slowest answers fit."""
        reserve_s = max(RESERVE * self._block_s, RESERVE_S)
        return max(1, math.ceil((self.slowest_s + reserve_s) / self._block_s))


def _path() -> Path:
    """Return the file of what streams have needed."""
    return platformdirs.user_state_path("rtsep") / "headroom.json"


def _read() -> dict[str, Need]:
    """Return what streams have needed, by key, oldest first; a file that is not valid is ignored.

    It only makes a stream start slower, so it is no error.
    """
    try:
        with _path().open("rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    needs = {}
    for key, value in found.items():
        with suppress(TypeError, ValueError, OverflowError):
            blocks, patience_s = value
            patience_s = float(patience_s)
            if type(blocks) is int and blocks >= 1 and PATIENCE_S <= patience_s <= MOST_PATIENCE_S:
                needs[key] = Need(blocks, patience_s)
    return needs


def recall(key: str) -> Need | None:
    """Return what the last stream of this key has needed, if that is known."""
    return _read().get(key)


def remember(key: str, need: Need) -> None:
    """Store what a stream has needed; without a place to write to, nothing happens."""
    needs = _read()
    needs.pop(key, None)
    newest = dict([*needs.items(), (key, need)][-MOST_KEPT:])
    with suppress(OSError), replacing(_path()) as part:
        part.write_text(json.dumps(newest), encoding="utf-8")


class Headroom:
    """Adapts the headroom of a worker's device.

    Parameters
    ----------
    worker
        The worker; its device may change.
    model
        Function that returns the name of the current model.
    say
        Function that receives a message about each change.
    smallest
        Whether to start with one block, spare rare misses and not remember anything.
    """

    def __init__(
        self,
        worker: StreamWorker,
        model: Callable[[], str],
        say: Callable[[str], object],
        *,
        smallest: bool = False,
    ) -> None:
        self._worker, self._model, self._say, self._smallest = worker, model, say, smallest
        self._device: Any = None
        self._key = ""
        self._begin()

    def _begin(self) -> None:
        """Begin with the current device and model."""
        device = self._device = self._worker.device
        latency = max(chain.engine.latency_samples for chain in self._worker.chains)
        most = (device.input.capacity - latency) // device.block - 1
        self._block_s = device.block / device.sample_rate
        self._key = self._current()
        need = Need(1) if self._smallest else recall(self._key)
        if need is None:
            need = Need(max(1, round(device.headroom / device.block)))
        self._misses = device.stats().starvations
        spared = SPARED if self._smallest else 0
        self.regulator = Regulator(self._block_s, need, most, spared)
        device.headroom = self.regulator.blocks * device.block

    def _current(self) -> str:
        device = self._worker.device
        return f"{device.name}|{device.sample_rate}|{device.block}|{self._model()}"

    def adapt(self) -> None:
        """Look at the worker's answers and misses, and change the headroom if necessary."""
        if self._device is not self._worker.device or self._key != self._current():
            self.remember()
            self._begin()
        device, regulator, answers = self._device, self.regulator, self._worker.answers.histogram
        stats, before = device.stats(), regulator.blocks
        missing = stats.starved_samples // device.block
        interruptions = stats.missed + stats.xruns
        cells = answers.cells
        if not regulator.look(time.monotonic(), stats.starvations, missing, cells, interruptions):
            return
        device.headroom = regulator.blocks * device.block
        headroom = f"headroom {1000 * self._block_s * regulator.blocks:.1f} ms now, "
        if regulator.blocks > before:
            self._say(headroom + "because the worker has missed a deadline")
        else:
            self._say(headroom + f"because it answers within {1000 * regulator.slowest_s:.1f} ms")

    def remember(self) -> None:
        """Store what the stream has needed; call it at the end."""
        if self._smallest:
            return
        patience_s = self.regulator.patience_s
        if self._device.stats().starvations == self._misses:
            patience_s = max(PATIENCE_S, patience_s / 2)
        remember(self._key, Need(self.regulator.blocks, patience_s))
