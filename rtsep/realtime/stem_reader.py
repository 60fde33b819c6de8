"""Read the stems of a running stream from another thread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.ring import CELLS, Cells, Ring, write
from rtsep.spec import Float32, Int64

KEPT_S = 2.0
"""Sound kept for a late reader, in seconds; it loses what exceeds this."""

_READING = 0
"""Index in ``counters``: whether there is a reader."""
_LOST = 1
"""Index in ``counters``: samples that the reader has lost."""


class Tapped(NamedTuple):
    """Arrays that `put` works on; without counters, there is no reader."""

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
    """Append (n, sources * channels) if there is a reader."""
    if tapped.counters.size and tapped.counters[_READING]:
        kept = write(tapped.cells.data, tapped.cells.cursors, stems)
        tapped.counters[_LOST] += stems.shape[0] - kept


class Tap:
    """A queue of stems for one reader in another thread.

    Parameters
    ----------
    sources, channels
        Number of stems, and channels of each.
    rate_hz
        Sample rate in Hz.

    Attributes
    ----------
    tapped
        Arrays that the kernel works on.
    """

    def __init__(self, sources: int, channels: int, rate_hz: int) -> None:
        self._shape = (sources, channels)
        self._ring = Ring(round(KEPT_S * rate_hz), sources * channels)
        self.tapped = Tapped(self._ring.cells, np.zeros(2, np.int64))

    @property
    def reading(self) -> bool:
        """Whether there is a reader; without one, no samples are kept."""
        return bool(self.tapped.counters[_READING])

    @reading.setter
    def reading(self, on: bool) -> None:
        self.tapped.counters[_READING] = on

    @property
    def lost(self) -> int:
        """Number of samples that the reader has lost."""
        return int(self.tapped.counters[_LOST])

    def put(self, stems: Float32) -> None:
        """Append a block, (n, sources, channels), if there is a reader."""
        put(self.tapped, stems.reshape(len(stems), -1))

    @property
    def readable(self) -> int:
        """Number of readable samples."""
        return self._ring.readable

    def read(self, n: int) -> Float32:
        """Return and remove the oldest samples, at most ``n``: (samples, sources, channels)."""
        out = np.empty((min(n, self.readable), self._ring.width), np.float32)
        self._ring.read(out)
        return out.reshape(len(out), *self._shape)
