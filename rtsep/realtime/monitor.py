"""Keep the newest mixture and stems for views, which compute levels and spectra from them.

The audio path only copies samples. Views read and compute in their own threads; a late view misses
samples.
"""

from __future__ import annotations

import numpy as np
from numba import types

from rtsep.dsp.kernel import kernel
from rtsep.dsp.ring import Cells, release
from rtsep.dsp.timed_ring import CURSORS, WRITTEN, Timeline
from rtsep.spec import Float32, Int64

KEPT_S = 0.5
"""Length of the kept sound, in seconds."""
WINDOW_S = 0.064
"""Analysis window in seconds, rounded up to a power of two in samples."""
LOWEST_HZ = 60.0
"""Lower edge of the lowest band."""

_samples = types.Array(types.float32, 2, "C")
_const_samples = types.Array(types.float32, 2, "C", readonly=True)
_const_stems = types.Array(types.float32, 3, "C", readonly=True)
_cursors = types.Array(types.int64, 2, "C")


@kernel(types.void(_samples, _cursors, _const_samples, _const_stems))
def keep(data: Float32, cursors: Int64, mixture: Float32, stems: Float32) -> None:
    """Append mixture (n, channels) and stems (n, sources, channels), their channels averaged."""
    mask = data.shape[0] - 1
    start = cursors[WRITTEN, 0]
    sources, channels = stems.shape[1], stems.shape[2]
    share = np.float32(1.0) / np.float32(channels)
    for n in range(mixture.shape[0]):
        cell = (start + n) & mask
        total = np.float32(0.0)
        for channel in range(channels):
            total += mixture[n, channel]
        data[cell, 0] = share * total
        for source in range(sources):
            total = np.float32(0.0)
            for channel in range(channels):
                total += stems[n, source, channel]
            data[cell, 1 + source] = share * total
    release()  # write the samples before the cursor
    cursors[WRITTEN, 0] = start + mixture.shape[0]


class Scope:
    """The newest `KEPT_S` seconds of a mixture and its stems, one channel each.

    Parameters
    ----------
    sources
        Number of stems.
    sample_rate
        In Hz.
    """

    def __init__(self, sources: int, sample_rate: int) -> None:
        if min(sources, sample_rate) < 1:
            raise ValueError(f"sources and rate must be 1 or more, not {sources}, {sample_rate}")
        self.sample_rate = sample_rate
        capacity = 1 << round(KEPT_S * sample_rate).bit_length()
        self._timeline = Timeline(
            np.zeros((capacity, 1 + sources), np.float32), np.zeros(CURSORS, np.int64)
        )

    def put(self, mixture: Float32, stems: Float32) -> None:
        """Append a block, (n, channels) and (n, sources, channels) float32 (audio path)."""
        keep(self._timeline.data, self._timeline.cursors, mixture, stems)

    @property
    def cells(self) -> Cells:
        """Arrays that `keep` works on."""
        return self._timeline.cells

    @property
    def signals(self) -> int:
        """Number of signals: the mixture and the stems."""
        return self._timeline.width

    @property
    def written(self) -> int:
        """Number of samples so far."""
        return self._timeline.written

    def latest(self, n: int) -> Float32:
        """Return the newest samples, (n, 1 + sources), mixture first; silence before the start.

        The stems are delayed by the latency, as in the output.
        """
        return self.read(self.written - n, n)

    def read(self, start: int, n: int) -> Float32:
        """Return the samples from number ``start`` on, (n, 1 + sources)."""
        out = np.zeros((n, self._timeline.width), np.float32)
        self._timeline.copy(start, out)
        return out


class Bands:
    """Computes levels of bands, equally wide in mel, from `LOWEST_HZ` to half the rate.

    Parameters
    ----------
    sample_rate
        In Hz.
    count
        Number of bands.

    Attributes
    ----------
    window_length
        Samples of the analysis window.
    edges_hz
        (count + 1,)
    """

    def __init__(self, sample_rate: int, count: int) -> None:
        self.window_length = 1 << (round(WINDOW_S * sample_rate) - 1).bit_length()
        mels = np.linspace(_mel(LOWEST_HZ), _mel(sample_rate / 2), count + 1)
        self.edges_hz = 700 * (10 ** (mels / 2595) - 1)
        bins = np.round(self.edges_hz * self.window_length / sample_rate).astype(int)
        self._first = bins[:-1]
        self._last = np.maximum(bins[1:], bins[:-1] + 1)
        window = np.hanning(self.window_length + 1)[:-1]
        self._window = (window / (0.5 * window.sum()))[:, None].astype(np.float32)

    def levels_db(self, samples: Float32) -> Float32:
        """Compute the largest magnitude in each band.

        Parameters
        ----------
        samples
            (window_length, signals) float32.

        Returns
        -------
        levels_db
            (signals, count) in dB; a full-scale sine is 0.
        """
        magnitude = np.abs(np.fft.rfft(self._window * samples, axis=0))
        largest = [
            magnitude[first:last].max(axis=0)
            for first, last in zip(self._first, self._last, strict=True)
        ]
        return (20 * np.log10(np.maximum(largest, 1e-9))).T.astype(np.float32)


def _mel(hz: float) -> float:
    return float(2595 * np.log10(1 + hz / 700))
