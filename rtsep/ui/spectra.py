"""Compute scrolling spectrograms for the page, with few bytes per column.

They are computed from a `rtsep.realtime.monitor.Scope` outside the audio path. If that is too slow,
columns are missing; the sound is not affected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.realtime.monitor import KEPT_S, Scope
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
_TINY = 1e-12


def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert Hz to the mel scale (O'Shaughnessy 1987)."""
    return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))


def hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert `mel`."""
    return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))


class Spectra:
    """Computes spectrograms of a mixture and its sources, for one view.

    Parameters
    ----------
    scope
        Source of the samples.
    top_hz
        Highest frequency, at most half the rate.
    latency
        Delay of the stems behind the mixture, in samples; the mixture is shown equally delayed.

    Attributes
    ----------
    peaks
        (signals,) largest absolute values of the new samples of the last columns.
    """

    def __init__(self, scope: Scope, top_hz: float, latency: int) -> None:
        self._scope, self._seen, self._latency = scope, scope.written, latency
        rate_hz, signals = scope.sample_rate, scope.signals
        self.top_hz = min(top_hz, rate_hz / 2)
        self.peaks = np.zeros(signals, np.float32)
        self._hop = round(rate_hz / COLUMNS_HZ)
        self._shape = self._hop, signals
        self._most = round(KEPT_S * rate_hz)
        self._length = 1 << round(np.log2(_WINDOW_S * rate_hz))
        # Samples of the current window, the newest last.
        self._history = np.zeros((self._length + latency, signals), np.float32)
        window = np.hanning(self._length + 1)[:-1]
        self._window = (window / (window.sum() / 2)).astype(np.float32)[:, None]
        self._edges = self._bands(rate_hz)

    def _bands(self, rate_hz: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the edges of the bands in bins; each band is at least a bin wide."""
        ends = mel(np.array([_LOWEST_HZ, self.top_hz]))
        edges = hertz(np.linspace(ends[0], ends[1], BANDS + 1)) * self._length / rate_hz
        centres, widths = (edges[1:] + edges[:-1]) / 2, np.maximum(np.diff(edges), 1.0)
        last = self._length // 2 + 1
        return np.clip(centres - widths / 2 + 0.5, 0, last), np.clip(
            centres + widths / 2 + 0.5, 0, last
        )

    def columns(self) -> Bytes:
        """Return the columns since the last call, (columns, signals, bands)."""
        start = max(self._seen, self._scope.written - self._most)
        count = (self._scope.written - start) // self._hop
        self._seen = start + count * self._hop
        fresh = self._scope.read(start, count * self._hop)
        np.nan_to_num(fresh, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        if count:
            self.peaks = np.max(np.abs(fresh), axis=0)
        found = np.zeros((count, len(self.peaks), BANDS), np.uint8)
        for column, hop in zip(found, fresh.reshape(count, *self._shape), strict=True):
            self._history = np.concatenate([self._history[self._hop :], hop])
            column[:] = self._column()
        return found

    def _column(self) -> Bytes:
        stems = self._history[self._latency :, 1:]
        frame = np.concatenate([self._history[: self._length, :1], stems], axis=1)
        spectrum = np.fft.rfft(frame * self._window, axis=0)
        power = np.square(spectrum.real, dtype=np.float64) + np.square(spectrum.imag)
        total = np.concatenate([np.zeros((1, frame.shape[1])), np.cumsum(power, axis=0)])
        low, high = (_between(total, edge) for edge in self._edges)
        mean = (high - low) / (self._edges[1] - self._edges[0])[:, None]
        return to_bytes(10 * np.log10(np.maximum(mean, _TINY)), LEVELS_DB).T


def _between(rows: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate ``rows`` (n, ...) linearly at fractional indices."""
    first = np.minimum(at.astype(np.int64), len(rows) - 2)
    part = (at - first)[:, None]
    return np.asarray(rows[first] * (1 - part) + rows[first + 1] * part)


def peaks_to_bytes(peaks: Float32) -> Bytes:
    """Convert linear peaks to bytes for the page."""
    level_db = 20 * np.log10(np.maximum(peaks, 1e-6))
    return to_bytes(level_db, PEAKS_DB)


def to_bytes(level_db: NDArray[Any], ends_db: tuple[float, float]) -> Bytes:
    """Convert levels in dB to 0 ... 255."""
    share = (level_db - ends_db[0]) / (ends_db[1] - ends_db[0])
    return np.asarray(np.clip(np.rint(255 * share), 0, 255), np.uint8)
