"""The recorder: mixture and stems to disk without ever holding the audio up."""

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
"""Audio a slow disk may lag behind before a recording loses samples."""
POLL_S = 0.02
"""Between two looks of the recorder's thread for new sound."""
_ROWS = 1 << 13  # samples written at once

_TIME = 0
"""Of ``counters``: samples put, or lost, so far."""
_MISSING = 1
"""Of ``counters``: samples lost of which nothing has been noted yet."""


class Tracks(NamedTuple):
    """What `put` works on; without counters, there is no recorder."""

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
    """Tell whether `put` can take ``n`` samples: there is room, and nothing has been lost."""
    if tracks.counters.size == 0:
        return True
    for cells in (tracks.mixture, tracks.stems):
        if cells.data.shape[0] - (cells.cursors[WRITTEN, 0] - cells.cursors[READ, 0]) < n:
            return False
    return bool(tracks.counters[_MISSING] == 0)


@kernel(types.void(TRACKS, _const_samples, _const_samples))
def put(tracks: Tracks, mixture: Float32, stems: Float32) -> None:
    """Hand over a block, (n, channels) and (n, sources * channels), for which there is `room`."""
    if tracks.counters.size:
        write(tracks.mixture.data, tracks.mixture.cursors, mixture)
        write(tracks.stems.data, tracks.stems.cursors, stems)
        tracks.counters[_TIME] += mixture.shape[0]


class _Track:
    """A ring of sound, and the silence that takes the place of what did not go through it.

    A track's time counts what was put into the ring and what was lost. The producer notes silence
    before the sound that follows it, so the consumer, who looks at the ring first, never reads past
    one.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self.ring = Ring(capacity, width)
        self.lost: deque[tuple[int, int]] = deque()
        self._time = 0
        self._silence = 0

    def ready(self) -> int:
        """Samples of sound, or of silence, that come next without a change between them."""
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
        """Fill ``out`` (n, width), n at most what is `ready`."""
        if self._silence:
            out[:] = 0.0
            self._silence -= len(out)
        else:
            self._time += self.ring.read(out)


class Recorder:
    """Writes mixture and stems, aligned and of one length, from a thread of its own.

    The files have their names from the start and are valid at any moment: see
    :class:`rtsep.files.writers.Take`. Whatever the disk does, time in them is the time of the
    stream: what is missing is silence.

    Parameters
    ----------
    folder
        Gets ``mixture.wav`` and ``<source>.wav``, or ``mixture-2.wav`` and so on where there are
        such files.
    sources
        Names of the stems.
    rate_hz, channels
        Of the stream.
    latency
        Samples by which the stems are late; so many are cut from their start.

    Attributes
    ----------
    tracks
        What the kernels work on.
    paths
        Of the files.
    lost
        Samples that were not recorded because the disk was too slow, silence in the files, or full.
    error
        What ended the recording early, if anything did.

    Raises
    ------
    AudioFileError
        If the folder can't be written to.
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
        """Hand over a block, (n, channels) and (n, sources, channels); never waits."""
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
            The recording ended early. What was written until then is there, aligned and valid.
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
        """Have silence where samples are missing, from the side that puts them."""
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
        except Exception as error:  # close raises it
            self.error = error

    def _write(self) -> bool:
        """Write the samples whose mixture and stems both are here; tell whether there were any."""
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
    """The recordings of one stream: each of them has one rate and one set of sources.

    Parameters
    ----------
    folder
        Of the first; those after it go to folders in it, 2, 3 and so on.

    Attributes
    ----------
    recorders
        All so far.
    """

    def __init__(self, folder: Path) -> None:
        self.recorders: list[Recorder] = []
        self.move(folder)

    def move(self, folder: Path) -> None:
        """Let those to come go to another folder, as of the first."""
        self._folder, self._number = folder, 0

    def begin(self, engine: Engine, rate_hz: int) -> Recorder:
        """Begin the next one, of what an engine makes at its rate; see `Recorder`."""
        folder = self._folder / str(self._number + 1) if self._number else self._folder
        sources, latency = engine.spec.sources, engine.latency_samples
        self.recorders.append(Recorder(folder, sources, rate_hz, engine.channels, latency))
        self._number += 1
        return self.recorders[-1]
