"""The recorder: mixture and stems to disk without ever holding the audio up."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from rtsep.io.files import StemWriter
from rtsep.ring import Float32, Ring

DISK_LAG_S = 4.0
"""Audio a slow disk may lag behind before a recording loses samples."""


class Recorder:
    """Writes mixture and stems, aligned and of one length, from a thread of its own.

    Parameters
    ----------
    folder
        Gets ``mixture.wav`` and ``<source>.wav``, all together at :meth:`close`.
    sources
        Names of the stems.
    rate_hz, channels
        Of the stream.
    latency
        Samples by which the stems are late; so many are cut from their start.

    Attributes
    ----------
    paths
        Of the files.
    lost
        Samples that were not recorded because the disk was too slow. Around such a gap, stems are
        as late as they were made.
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
        self.paths = [folder / f"{name}.wav" for name in ("mixture", *sources)]
        self.lost = 0
        self._late = latency
        capacity = latency + int(DISK_LAG_S * rate_hz)
        self._mixture = Ring(capacity, channels)
        self._stems = Ring(capacity, len(sources) * channels)
        self._rows = np.zeros((1 << 13, len(self.paths), channels), np.float32)
        self._parts = [
            np.zeros((1 << 13, ring.width), np.float32) for ring in (self._mixture, self._stems)
        ]
        self._writer = StemWriter(self.paths, rate_hz, channels)
        self.error: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtsep recorder", daemon=True)
        self._thread.start()

    def put(self, mixture: Float32, stems: Float32) -> None:
        """Hand over a block, (n, channels) and (n, sources, channels); never waits."""
        n = len(mixture)
        if min(self._mixture.writable, self._stems.writable) < n:
            self.lost += n
            return
        self._mixture.write(mixture)
        self._stems.write(stems.reshape(n, self._stems.width))

    def close(self, tail: Float32) -> None:
        """Append the stems' tail (latency, sources, channels), complete and name the files.

        Raises
        ------
        AudioFileError
            If the recording could not be written; nothing is left of it then.
        """
        rest = tail.reshape(len(tail), self._stems.width)
        while len(rest) and self._thread.is_alive():
            rest = rest[self._stems.write(rest) :]
            time.sleep(0.01)
        self._closing.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with self._writer:
                while True:
                    closing = self._closing.is_set()
                    if not self._write():
                        if closing:
                            return
                        time.sleep(0.02)
        except Exception as error:  # close raises it
            self.error = error

    def _write(self) -> bool:
        """Write the samples whose mixture and stems both are here; tell whether there were any."""
        self._late -= self._stems.skip(self._late)
        n = min(self._mixture.readable, self._stems.readable, len(self._rows))
        if self._late or not n:
            return False
        rows = self._rows[:n]
        mixture, stems = self._parts
        self._mixture.read(mixture[:n])
        self._stems.read(stems[:n])
        rows[:, 0] = mixture[:n]
        rows[:, 1:] = stems[:n].reshape(n, -1, rows.shape[2])
        self._writer.write(rows)
        return True
