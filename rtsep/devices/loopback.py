"""The true round trip: play sweeps, hear them come back by cable or air, and correlate.

A. Farina, "Simultaneous measurement of impulse response and distortion with a swept-sine
technique", AES 108, 2000: an exponential sweep, correlated with itself, is a sharp peak however
much noise lies on it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from rtsep.devices.device import Device
from rtsep.errors import DeviceError
from rtsep.spec import Float32

SWEEPS = 5
"""Each is a measurement of its own: one that an xrun spoils is outvoted."""
SWEEP_S = 0.4
PAUSE_S = 0.6
"""After each sweep: the longest round trip that is found."""
LEVEL = 0.1
"""Of the sweep, re full scale: -20 dB."""
CLEAR = 8.0
"""How far a peak must stand out of the rest, in standard deviations; noise alone reaches 5."""
_PATIENCE_S = 5.0  # without a block from the device


@dataclass(frozen=True)
class RoundTrip:
    """What came back: samples from writing to reading, of each sweep that was heard."""

    delays: tuple[int, ...]

    @property
    def samples(self) -> float:
        """Median of the delays."""
        return float(np.median(self.delays))

    @property
    def spread(self) -> int:
        """Largest delay minus smallest."""
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
    """Find ``played`` in ``heard``, either polarity.

    Parameters
    ----------
    heard
        (n,) samples.
    played
        (m,) samples.

    Returns
    -------
    int or None
        Samples from the start of ``heard`` to that of ``played`` in it; None where nothing stands
        out of the noise.
    """
    size = 1 << (len(heard) + len(played)).bit_length()
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size))
    match = np.abs(np.fft.irfft(product, size)[: len(heard)])
    peak = int(np.argmax(match))
    near = np.abs(np.arange(len(match)) - peak) < len(played) // 8
    noise = float(np.sqrt(np.mean(match[~near] ** 2))) if not near.all() else 0.0
    return peak if match[peak] > CLEAR * noise else None


def measure(device: Device) -> RoundTrip | None:
    """Play sweeps on all outputs and look for them on all inputs.

    Blocks are answered one by one, as `rtsep run` does, so the delay is the sum of what
    ``device.latency_terms()`` declares, if that is true.

    Parameters
    ----------
    device
        Not started yet; stopped at the end.

    Returns
    -------
    RoundTrip or None
        None if no sweep came back.

    Raises
    ------
    DeviceError
        The device stopped, or gives no blocks.
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
    """Read as much as was written, block by block, from the first one on."""
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
