"""The stems of a stream, for others to read while it runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.ring import CELLS, Cells, Ring, write
from rtsep.spec import Float32, Int64

KEPT_S = 2.0
"""Sound kept for a reader that is late, in seconds; what does not fit is lost to it."""

_READING = 0
"""Of ``counters``: whether there is a reader."""
_LOST = 1
"""Of ``counters``: samples it was too late for."""


class Tapped(NamedTuple):
    """What `put` works on; without counters, nobody reads."""

    cells: Cells
    counters: Int64
    """(2,)"""


TAPPED = named(Tapped, CELLS, types.int64[::1])
NO_TAP = Tapped(
    Cells(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int64)), np.zeros(0, np.int64)
)
_const_samples = types.Array(types.float32, 2, "C", readonly=True)


@kernel(types.void(TAPPED, _const_samples))
def put(tapped: Tapped, stems: Float32) -> None:
    """Keep (n, sources * channels) for a reader, if there is one."""
    if tapped.counters.size and tapped.counters[_READING]:
        kept = write(tapped.cells.data, tapped.cells.cursors, stems)
        tapped.counters[_LOST] += stems.shape[0] - kept


class Tap:
    """A ring of stems for one reader in another thread.

    Parameters
    ----------
    sources, channels
        Of the stems.
    rate_hz
        In Hz.

    Attributes
    ----------
    tapped
        What the kernel works on.
    """

    def __init__(self, sources: int, channels: int, rate_hz: int) -> None:
        self._shape = (sources, channels)
        self._ring = Ring(round(KEPT_S * rate_hz), sources * channels)
        self.tapped = Tapped(self._ring.cells, np.zeros(2, np.int64))

    @property
    def reading(self) -> bool:
        """Whether there is a reader; nothing is kept where there is none."""
        return bool(self.tapped.counters[_READING])

    @reading.setter
    def reading(self, on: bool) -> None:
        self.tapped.counters[_READING] = on

    @property
    def lost(self) -> int:
        """Samples that the reader was too late for."""
        return int(self.tapped.counters[_LOST])

    def put(self, stems: Float32) -> None:
        """Keep a block, (n, sources, channels), for the reader, if there is one."""
        put(self.tapped, stems.reshape(len(stems), -1))

    @property
    def readable(self) -> int:
        """Samples that can be read now."""
        return self._ring.readable

    def read(self, n: int) -> Float32:
        """Take the oldest samples, at most ``n``: (samples, sources, channels) float32."""
        out = np.empty((min(n, self.readable), self._ring.width), np.float32)
        self._ring.read(out)
        return out.reshape(len(out), *self._shape)
