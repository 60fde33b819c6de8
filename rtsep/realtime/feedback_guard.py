"""A loudspeaker that the microphone hears again: noticed before it howls."""

from __future__ import annotations

import numpy as np

from rtsep.devices.device import Device
from rtsep.dsp.timed_ring import Timeline
from rtsep.spec import Float32

RATE_HZ = 8000
"""What is compared has about this sample rate, in Hz."""
PIECE_S = 0.5
"""Length of what is compared, and time between two looks, in seconds."""
PATH_S = 0.25
"""Longest way from our output back to our input, devices included, in seconds."""
ALIKE = 0.4
"""Correlation of input and earlier output from which on one is taken for an echo of the other."""
RISE_DB = 3.0
"""By so much the input's level rises between the first and the last of `LOOKS` in a row."""
LOOKS = 3
_SAME_S = 0.002


class FeedbackGuard:
    """Compares input and output of a stream, on copies; nothing for the audio path.

    An echo has a fixed delay, and what feeds back grows: only both together are taken for it. That
    the output is itself made of the input looks alike for steady sounds, which don't grow.
    """

    def __init__(self) -> None:
        self._looks: list[tuple[int, float]] = []

    def look(self, device: Device) -> bool:
        """Tell whether the input has been an ever louder echo of the output; every `PIECE_S`."""
        size, path = (round(seconds * device.sample_rate) for seconds in (PIECE_S, PATH_S))
        now = device.input.written
        if now < size + path:
            self._looks.clear()
            return False
        # Howling is in the middle of the spectrum; and who holds the interpreter for long holds the
        # worker up.
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
    """Copy samples, their channels and ``by`` neighbours added."""
    samples = np.zeros((length // by * by, timeline.width), np.float32)
    timeline.copy(start, samples)
    return np.asarray(samples.reshape(length // by, -1).sum(axis=1), np.float32)


def _echo(heard: Float32, played: Float32) -> tuple[float, int]:
    """Return the largest correlation of ``heard`` with a part of ``played``, and where that begins.

    Both spectra are flattened by the same filter, the first difference, so that low tones, which
    correlate over any short time, count less.
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
