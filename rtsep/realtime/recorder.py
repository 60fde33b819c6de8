"""Record mixture and stems to disk without blocking the audio path."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.ring import CELLS, READ, WRITTEN, Cells, Ring, write
from rtsep.errors import AudioFileError
from rtsep.files.writers import Take
from rtsep.runtime.engine import Engine
from rtsep.spec import Float32, Int64

DISK_LAG_S = 4.0
"""Audio that is buffered for a slow disk, in seconds, before samples are lost."""
POLL_S = 0.02
"""Interval between checks of the recorder's thread, in seconds."""
_ROWS = 1 << 13  # samples per write

_TIME = 0
"""Index in ``counters``: samples put or lost so far."""
_MISSING = 1
"""Index in ``counters``: lost samples that are not noted yet."""


class Tracks(NamedTuple):
    """Arrays that `put` works on; without counters, there is no recorder."""

    mixture: Cells
    stems: Cells
    counters: Int64
    """(2,)"""


TRACKS = named(Tracks, CELLS, CELLS, types.int64[::1])
_NOTHING = Cells(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int64))
NO_TRACKS = Tracks(_NOTHING, _NOTHING, np.zeros(0, np.int64))
_const_samples = types.Array(types.float32, 2, "C", readonly=True)


@kernel(types.boolean(TRACKS, types.int64))
def room(tracks: Tracks, n: int) -> bool:
    """Return whether `put` accepts ``n`` samples: there is room and no loss to note."""
    if tracks.counters.size == 0:
        return True
    for cells in (tracks.mixture, tracks.stems):
        if cells.data.shape[0] - (cells.cursors[WRITTEN, 0] - cells.cursors[READ, 0]) < n:
            return False
    return bool(tracks.counters[_MISSING] == 0)


@kernel(types.void(TRACKS, _const_samples, _const_samples))
def put(tracks: Tracks, mixture: Float32, stems: Float32) -> None:
    """Append a block, (n, channels) and (n, sources * channels), for which there is `room`."""
    if tracks.counters.size:
        write(tracks.mixture.data, tracks.mixture.cursors, mixture)
        write(tracks.stems.data, tracks.stems.cursors, stems)
        tracks.counters[_TIME] += mixture.shape[0]


class _Track:
    """A ring of samples, and notes of lost samples that are replaced by silence.

    The time of a track counts samples in the ring and lost samples. The producer notes a gap before
    it writes the following samples, and the consumer checks the ring first, so it never misses a
    gap.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self.ring = Ring(capacity, width)
        self.lost: deque[tuple[int, int]] = deque()
        self._time = 0
        self._silence = 0

    def ready(self) -> int:
        """Number of next samples that are all sound or all silence."""
        if not self._silence:
            sound = self.ring.readable
            if not self.lost:
                return sound
            start, count = self.lost[0]
            if start > self._time:
                return min(sound, start - self._time)
            self.lost.popleft()
            self._silence = count
            self._time += count
        return self._silence

    def read(self, out: Float32) -> None:
        """Fill ``out`` (n, width); n is at most `ready`."""
        if self._silence:
            out[:] = 0.0
            self._silence -= len(out)
        else:
            self._time += self.ring.read(out)


class Recorder:
    """Writes mixture and stems, aligned and of equal length, in its own thread.

    The files have their final names and are valid at any moment, see
    :class:`rtsep.files.writers.Take`. Lost samples are replaced by silence, so the time in the
    files is that of the stream.

    Parameters
    ----------
    folder
        Folder for ``mixture.wav`` and ``<source>.wav``, or ``mixture-2.wav`` and so on if the files
        exist.
    sources
        Names of the stems.
    rate_hz, channels
        Sample rate and channels of the stream.
    latency
        Delay of the stems in samples; as many samples are cut from their start.

    Attributes
    ----------
    tracks
        Arrays that the kernels work on.
    paths
        Paths of the files.
    lost
        Samples that were not recorded, because the disk was slow (silent in the files) or full.
    error
        Error that ended the recording early, if any.

    Raises
    ------
    AudioFileError
        The folder can't be written to.
    """

    def __init__(
        self, folder: Path, sources: tuple[str, ...], rate_hz: int, channels: int, latency: int
    ) -> None:
        self.lost = 0
        self.error: Exception | None = None
        self._rate = rate_hz
        self._latency = self._late = latency
        self._unwritten = 0
        capacity = latency + int(DISK_LAG_S * rate_hz)
        self._mixture = _Track(capacity, channels)
        self._stems = _Track(capacity, len(sources) * channels)
        self.tracks = Tracks(
            self._mixture.ring.cells, self._stems.ring.cells, np.zeros(2, np.int64)
        )
        self._block = np.zeros((_ROWS, 1 + len(sources), channels), np.float32)
        self._parts = [
            np.zeros((_ROWS, track.ring.width), np.float32)
            for track in (self._mixture, self._stems)
        ]
        self._take = Take(folder, ("mixture", *sources), rate_hz, channels)
        self.paths = list(self._take.paths)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep recorder", daemon=True)
        self._thread.start()

    def put(self, mixture: Float32, stems: Float32) -> None:
        """Append a block, (n, channels) and (n, sources, channels), without waiting."""
        n, counters = len(mixture), self.tracks.counters
        rings = self._mixture.ring, self._stems.ring
        if self.error is not None or min(ring.writable for ring in rings) < n:
            self.lost += n
            counters[_MISSING] += n
            counters[_TIME] += n
        else:
            self._note_lost()
            put(self.tracks, mixture, stems.reshape(n, rings[1].width))

    def close(self, tail: Float32) -> None:
        """Append the stems' tail (latency, sources, channels) and complete the files.

        Raises
        ------
        AudioFileError
            The recording ended early; the files are aligned and valid up to that point.
        """
        self._note_lost()
        ring = self._stems.ring
        rest = tail.reshape(len(tail), ring.width)
        while len(rest) and self._thread.is_alive():
            rest = rest[ring.write(rest) :]
            time.sleep(0.01)
        self._closing.set()
        self._thread.join()
        if self.error is not None:
            self.lost += self._unwritten + self._mixture.ring.readable
            raise self.error

    def _note_lost(self) -> None:
        """Note lost samples as silence (producer's side)."""
        now, missing = map(int, self.tracks.counters)
        if missing:
            for track in (self._mixture, self._stems):
                track.lost.append((now - missing, missing))
            self.tracks.counters[_MISSING] = 0

    def _run(self) -> None:
        try:
            try:
                while True:
                    closing = self._closing.is_set()
                    if not self._write():
                        if closing:
                            return
                        time.sleep(POLL_S)
            finally:
                self._take.close()
        except AudioFileError as error:
            seconds = self._take.length / self._rate
            self.error = AudioFileError(f"{error}; the first {seconds:.1f} s are kept")
        except Exception as error:  # raised by close
            self.error = error

    def _write(self) -> bool:
        """Write samples of which mixture and stems are there; return whether there were any."""
        mixture, stems = self._parts
        if self._late:
            n = min(self._late, self._stems.ready(), _ROWS)
            self._stems.read(stems[:n])
            self._late -= n
            return n > 0
        n = min(self._mixture.ready(), self._stems.ready(), _ROWS)
        if not n:
            return False
        self._mixture.read(mixture[:n])
        self._stems.read(stems[:n])
        block = self._block[:n]
        block[:, 0] = mixture[:n]
        block[:, 1:] = stems[:n].reshape(n, -1, block.shape[2])
        self._unwritten = n
        self._take.write(block)
        self._unwritten = 0
        return True


class Takes:
    """The recordings of a stream; each has one rate and one set of sources.

    Parameters
    ----------
    folder
        Folder of the first recording; later ones go to its subfolders 2, 3 and so on.

    Attributes
    ----------
    recorders
        All recorders so far.
    """

    def __init__(self, folder: Path) -> None:
        self.recorders: list[Recorder] = []
        self.move(folder)

    def move(self, folder: Path) -> None:
        """Set another folder for the following recordings."""
        self._folder, self._number = folder, 0

    def begin(self, engine: Engine, rate_hz: int) -> Recorder:
        """Start the next recording, of the output of an engine at a rate in Hz."""
        folder = self._folder / str(self._number + 1) if self._number else self._folder
        sources, latency = engine.spec.sources, engine.latency_samples
        self.recorders.append(Recorder(folder, sources, rate_hz, engine.channels, latency))
        self._number += 1
        return self.recorders[-1]
