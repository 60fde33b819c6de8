"""Scrolling spectrograms for the page: few bytes per column, and no work where the audio is made.

The worker puts samples into a ring; whoever draws takes them out in its own time. Where it is too
slow, columns are missing, never sound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.ring import Ring
from rtsep.spec import Float32

Bytes = NDArray[np.uint8]

BANDS = 128
"""Rows of a spectrogram, equally wide in mel."""
COLUMNS_HZ = 60.0
"""Columns per second."""
LEVELS_DB = -95.0, -25.0
"""Levels shown as 0 and 255, in dB re a sine of full scale."""
PEAKS_DB = -60.0, 0.0
"""Peaks shown as 0 and 255, in dB re full scale."""
_WINDOW_S = 0.043
_LOWEST_HZ = 60.0
_RING_S = 0.5
_TINY = 1e-12


def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pitch on the mel scale (O'Shaughnessy 1987)."""
    return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))


def hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undo `mel`."""
    return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))


class Spectra:
    """Spectrograms of a mixture and its sources.

    Parameters
    ----------
    sources
        How many.
    rate_hz
        Of the samples.
    top_hz
        Highest frequency shown, at most half the rate.
    latency
        Samples that the stems are later than the mixture, which is shown as late.
    """

    def __init__(self, sources: int, rate_hz: int, top_hz: float, latency: int) -> None:
        self.signals = 1 + sources
        self.top_hz = min(top_hz, rate_hz / 2)
        self._hop = round(rate_hz / COLUMNS_HZ)
        self._length = 1 << round(np.log2(_WINDOW_S * rate_hz))
        self._latency = latency
        self._ring = Ring(round(_RING_S * rate_hz), self.signals)
        # What the present columns are made of, the newest last.
        self._history = np.zeros((self._length + latency, self.signals), np.float32)
        self._fresh = np.zeros((self._hop, self.signals), np.float32)
        window = np.hanning(self._length + 1)[:-1]
        self._window = (window / (window.sum() / 2)).astype(np.float32)[:, None]
        self._edges = self._bands(rate_hz)

    def _bands(self, rate_hz: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Edges of the bands, in bins, none narrower than a bin."""
        ends = mel(np.array([_LOWEST_HZ, self.top_hz]))
        edges = hertz(np.linspace(ends[0], ends[1], BANDS + 1)) * self._length / rate_hz
        centres, widths = (edges[1:] + edges[:-1]) / 2, np.maximum(np.diff(edges), 1.0)
        last = self._length // 2 + 1
        return np.clip(centres - widths / 2 + 0.5, 0, last), np.clip(
            centres + widths / 2 + 0.5, 0, last
        )

    def put(self, mixture: Float32, stems: Float32) -> None:
        """Hand over what was separated (the worker's side); channels are averaged.

        Parameters
        ----------
        mixture, stems
            (n, channels) and (n, sources, channels).
        """
        block = np.empty((len(mixture), self.signals), np.float32)
        np.mean(mixture, axis=1, out=block[:, 0])
        np.mean(stems, axis=2, out=block[:, 1:])
        if self._ring.writable >= len(block):
            self._ring.write(block)

    def columns(self) -> Bytes:
        """(columns, signals, bands) since the last call (the drawer's side)."""
        found = []
        while self._ring.readable >= self._hop:
            self._ring.read(self._fresh)
            self._history = np.concatenate([self._history[self._hop :], self._fresh])
            found.append(self._column())
        return np.array(found, np.uint8).reshape(-1, self.signals, BANDS)

    def _column(self) -> Bytes:
        stems = self._history[self._latency :, 1:]
        frame = np.concatenate([self._history[: self._length, :1], stems], axis=1)
        np.nan_to_num(frame, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        spectrum = np.fft.rfft(frame * self._window, axis=0)
        power = np.square(spectrum.real, dtype=np.float64) + np.square(spectrum.imag)
        total = np.concatenate([np.zeros((1, self.signals)), np.cumsum(power, axis=0)])
        low, high = (_between(total, edge) for edge in self._edges)
        mean = (high - low) / (self._edges[1] - self._edges[0])[:, None]
        return to_bytes(10 * np.log10(np.maximum(mean, _TINY)), LEVELS_DB).T


def _between(rows: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate ``rows`` (n, ...) linearly at fractional indices."""
    first = np.minimum(at.astype(np.int64), len(rows) - 2)
    part = (at - first)[:, None]
    return np.asarray(rows[first] * (1 - part) + rows[first + 1] * part)


def peaks_to_bytes(peaks: Float32) -> Bytes:
    """Peaks, linear, as the page shows them."""
    level_db = 20 * np.log10(np.maximum(np.nan_to_num(peaks), 1e-6))
    return to_bytes(level_db, PEAKS_DB)


def to_bytes(level_db: NDArray[Any], ends_db: tuple[float, float]) -> Bytes:
    """Levels as 0 to 255."""
    share = (level_db - ends_db[0]) / (ends_db[1] - ends_db[0])
    return np.asarray(np.clip(np.rint(255 * share), 0, 255), np.uint8)
