"""Detect feedback from loudspeaker to microphone before it howls."""

from __future__ import annotations

import numpy as np

from rtsep.devices.device import Device
from rtsep.dsp.timed_ring import Timeline
from rtsep.spec import Float32

RATE_HZ = 8000
"""Approximate sample rate of the compared signals, in Hz."""
PIECE_S = 0.5
"""Length of the compared pieces, and interval of comparisons, in seconds."""
PATH_S = 0.25
"""Longest delay from output to input, devices included, in seconds."""
ALIKE = 0.4
"""Smallest correlation of input and earlier output that counts as an echo."""
RISE_DB = 3.0
"""Smallest rise of the input level over `LOOKS` successive comparisons, in dB."""
LOOKS = 3
_SAME_S = 0.002


class FeedbackGuard:
    """Compares copies of input and output of a stream; not for the audio path.

    Feedback is an echo with a constant delay and a growing level; both are required. A steady sound
    also correlates with the output that is separated from it, but does not grow.
    """

    def __init__(self) -> None:
        self._looks: list[tuple[int, float]] = []

    def look(self, device: Device) -> bool:
        """Return whether the input is a growing echo of the output; call it every `PIECE_S`."""
        size, path = (round(seconds * device.sample_rate) for seconds in (PIECE_S, PATH_S))
        now = device.input.written
        if now < size + path:
            self._looks.clear()
            return False
        # Decimate: feedback is at middle frequencies, and a long computation would hold the
        # interpreter lock.
        by = max(1, device.sample_rate // RATE_HZ)
        heard = _piece(device.input, now - size, size, by)
        played = _piece(device.output, now - size - path, size + path, by)
        alike, lag = _echo(heard, played)
        if alike < ALIKE:
            self._looks.clear()
            return False
        level_db = 10 * float(np.log10(np.mean(heard**2) + 1e-12))
        self._looks = [*self._looks[1 - LOOKS :], (lag, level_db)]
        lags, levels = zip(*self._looks, strict=True)
        return (
            len(self._looks) == LOOKS
            and max(lags) - min(lags) <= _SAME_S * device.sample_rate / by
            and bool(np.all(np.diff(levels) > 0))
            and levels[-1] - levels[0] >= RISE_DB
        )


def _piece(timeline: Timeline, start: int, length: int, by: int) -> Float32:
    """Copy samples; sum the channels and ``by`` neighbours."""
    samples = np.zeros((length // by * by, timeline.width), np.float32)
    timeline.copy(start, samples)
    return np.asarray(samples.reshape(length // by, -1).sum(axis=1), np.float32)


def _echo(heard: Float32, played: Float32) -> tuple[float, int]:
    """Return the largest correlation of ``heard`` with a part of ``played``, and its position.

    Both are high-pass filtered by the first difference, because low tones correlate over any short
    time.
    """
    heard, played = np.diff(heard), np.diff(played)
    n = 1 << len(played).bit_length()
    product = np.fft.rfft(played, n) * np.conj(np.fft.rfft(heard, n))
    similar = np.fft.irfft(product, n)[: len(played) - len(heard) + 1]
    energy = np.concatenate([[0.0], np.cumsum(played.astype(np.float64) ** 2)])
    windows = energy[len(heard) :] - energy[: len(energy) - len(heard)]
    scale = np.sqrt(np.maximum(windows, 1e-12) * max(float(np.sum(heard**2)), 1e-12))
    alike = np.abs(similar) / scale
    best = int(np.argmax(alike))
    return float(alike[best]), best
