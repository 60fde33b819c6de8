"""Measure the round trip: play sweeps, record them through a cable or the air, and correlate.

A. Farina, "Simultaneous measurement of impulse response and distortion with a swept-sine
technique", AES 108, 2000: the autocorrelation of an exponential sweep is a sharp peak, even in
noise.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from rtsep.devices.device import Device
from rtsep.errors import DeviceError
from rtsep.spec import Float32

SWEEPS = 5
"""Number of measurements; the median ignores one that an xrun spoils."""
SWEEP_S = 0.4
PAUSE_S = 0.6
"""Pause after each sweep; the longest round trip that can be found."""
LEVEL = 0.1
"""Amplitude of the sweep re full scale: -20 dB."""
CLEAR = 8.0
"""Smallest height of a peak in standard deviations; noise alone reaches 5."""
_PATIENCE_S = 5.0  # longest time without a block from the device


@dataclass(frozen=True)
class RoundTrip:
    """Delays between writing and reading, in samples, of each detected sweep."""

    delays: tuple[int, ...]

    @property
    def samples(self) -> float:
        """Return the median of the delays."""
        return float(np.median(self.delays))

    @property
    def spread(self) -> int:
        """Return the largest delay minus the smallest."""
        return max(self.delays) - min(self.delays)


def sweep(rate_hz: int, seconds: float = SWEEP_S) -> Float32:
    """Make an exponential sweep from 100 Hz to 0.4 of the rate, (n,), faded in and out."""
    n = round(seconds * rate_hz)
    ratio = np.log(0.4 * rate_hz / 100.0)
    t = np.arange(n) / n
    phase = 2 * np.pi * 100.0 * seconds / ratio * (np.exp(ratio * t) - 1)
    fade = np.minimum(1.0, 20 * np.minimum(t, 1 - t))
    return np.asarray(LEVEL * fade * np.sin(phase), np.float32)


def delay(heard: Float32, played: Float32) -> int | None:
    """Find ``played`` in ``heard``, in either polarity.

    Parameters
    ----------
    heard
        (n,) recorded samples.
    played
        (m,) samples of the sweep.

    Returns
    -------
    int or None
        Position of ``played`` in ``heard``, in samples; None if no peak exceeds the noise.
    """
    size = 1 << (len(heard) + len(played)).bit_length()
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size))
    match = np.abs(np.fft.irfft(product, size)[: len(heard)])
    peak = int(np.argmax(match))
    near = np.abs(np.arange(len(match)) - peak) < len(played) // 8
    noise = float(np.sqrt(np.mean(match[~near] ** 2))) if not near.all() else 0.0
    return peak if match[peak] > CLEAR * noise else None


def measure(device: Device) -> RoundTrip | None:
    """Play sweeps on all outputs and find them on all inputs.

    Blocks are processed one by one, as in `rtsep run`, so the delay is comparable with the sum of
    ``device.latency_terms()``.

    Parameters
    ----------
    device
        A device that is not started; it is stopped at the end.

    Returns
    -------
    RoundTrip or None
        None if no sweep was detected.

    Raises
    ------
    DeviceError
        The device stopped, or it delivers no blocks.
    """
    rate, block = device.sample_rate, device.block
    played = sweep(rate)
    period = len(played) + round(PAUSE_S * rate)
    signal = np.tile(np.concatenate([played, np.zeros(period - len(played), np.float32)]), SWEEPS)
    length = -(-len(signal) // block) * block
    signal = np.pad(signal, (0, length - len(signal)))
    heard = np.zeros((length, device.input.width), np.float32)
    out = np.ascontiguousarray(np.repeat(signal[:, None], device.output.width, axis=1))
    with device:
        _exchange(device, out, heard)
    delays = []
    for start in range(0, SWEEPS * period, period):
        found = (delay(piece, played) for piece in heard[start : start + period].T)
        delays += [first for first in found if first is not None][:1]
    return RoundTrip(tuple(delays)) if delays else None


def _exchange(device: Device, out: Float32, heard: Float32) -> None:
    """Write ``out`` and read as many samples, block by block."""
    position, block = 0, device.block
    last = time.monotonic()
    while position < len(out):
        if device.input.readable >= block:
            here = slice(position, position + block)
            device.input.read(heard[here])
            device.output.append(out[here])
            position += block
            last = time.monotonic()
        elif not device.active or time.monotonic() - last > _PATIENCE_S:
            raise DeviceError(f"{device.name} stopped by itself")
        else:
            time.sleep(0.5 * block / device.sample_rate)
