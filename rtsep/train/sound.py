"""Operations of the mixers on mono float32 sounds; random ones take a generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import soxr
from numpy.random import Generator

from rtsep.spec import Float32
from rtsep.train.corpus import Int16, direct

Sound = TypeVar("Sound", Int16, Float32)

ORDER = 12
"""Highest order of reflections in a simulated room."""


def rms(x: Float32) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


def active_rms(x: Float32) -> float:
    """Return the RMS of speech without pauses (20 ms blocks above -35 dB re the loudest)."""
    power = np.square(x[: len(x) // 320 * 320]).reshape(-1, 320).mean(axis=1)
    loud = power[power > 10**-3.5 * power.max(initial=0.0)]
    return float(np.sqrt(loud.mean())) if len(loud) else 1e-3


def fill(clip: Int16, samples: int, rng: Generator) -> Float32:
    """Cut ``samples`` from a random position of ``clip``, repeated if it is too short."""
    start = rng.integers(len(clip))
    if len(clip) >= samples:
        start = rng.integers(len(clip) - samples + 1)
    out = np.resize(np.roll(clip, -start) if len(clip) < samples else clip[start:], samples)
    return np.divide(out, 32768, dtype=np.float32)


def convolve(x: Float32, response: Float32) -> Float32:
    """Convolve ``x`` (n,) with a room response; the result has n samples."""
    n = 1 << (len(x) + len(response) - 1).bit_length()
    y = np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(response, n), n)[: len(x)]
    return y.astype(np.float32)


def coloured(x: Float32, rng: Generator, range_db: float) -> Float32:
    """Apply a random smooth equaliser: seven gains within ``range_db``, linear between."""
    spectrum = np.fft.rfft(x)
    knots = np.array([0.0, 0.01, 0.03, 0.08, 0.2, 0.45, 1.0])
    gains_db = rng.uniform(-range_db, range_db, len(knots))
    gain = 10 ** (np.interp(np.linspace(0, 1, len(spectrum)), knots, gains_db) / 20)
    return np.fft.irfft(spectrum * gain, len(x)).astype(np.float32)


def synthetic_noise(rng: Generator, samples: int, rate: int) -> Float32:
    """Make noise with a random spectral slope, sometimes with hum, like fans and hiss."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.linspace(0, rate / 2, len(spectrum)), 40.0)
    spectrum *= (frequency / 1000) ** rng.uniform(-1.2, 0.3)
    x = np.fft.irfft(spectrum, samples)
    x /= np.sqrt(np.mean(x**2)) + 1e-9
    if rng.random() < 0.4:
        t = np.arange(samples) / rate
        base = rng.uniform(45, 220)
        for harmonic in range(1, rng.integers(2, 9)):
            phase = rng.uniform(0, 2 * np.pi)
            x += rng.uniform(0, 1.5) / harmonic * np.sin(2 * np.pi * base * harmonic * t + phase)
    return x.astype(np.float32)


def machine(rng: Generator, samples: int, rate: int) -> Float32:
    """Synthesise a machine: up to 40 harmonics of a drifting pitch of 25 to 500 Hz, and hiss."""
    size = 4096
    harmonics = int(rng.integers(3, 41))
    spectrum = np.zeros(size // 2 + 1, complex)
    order = np.arange(1, harmonics + 1)
    size_db = rng.normal(0, 6, harmonics) - 20 * rng.uniform(0.3, 1.3) * np.log10(order)
    spectrum[order] = 10 ** (size_db / 20) * np.exp(2j * np.pi * rng.random(harmonics))
    period = np.fft.irfft(spectrum, size)
    knots = np.linspace(0, samples, max(2, int(samples / rate * rng.uniform(0.3, 6.0))))
    base = 25 * 20 ** rng.random()
    drift = 2 ** (rng.uniform(0, 0.2) * rng.standard_normal(len(knots)))
    pitch = np.interp(np.arange(samples), knots, np.minimum(base * drift, 0.45 * rate / harmonics))
    phase = (np.cumsum(pitch) / rate + rng.random()) % 1.0
    x = period[(phase * size).astype(np.int64)].astype(np.float32)
    x /= rms(x) + 1e-9
    hiss = synthetic_noise(rng, samples, rate)
    return x + hiss * np.float32(10 ** (rng.uniform(-25, 0) / 20) / (rms(hiss) + 1e-9))


def modulated(x: Float32, rng: Generator, rate: int) -> Float32:
    """Modulate the level by up to 12 dB, at 0.5 to 10 Hz."""
    count = max(2, int(len(x) / rate * 0.5 * 20 ** rng.random()))
    gains_db = rng.uniform(0, 12) * rng.uniform(-1, 1, count)
    at = np.linspace(0, len(x), count)
    gain = 10 ** (np.interp(np.arange(len(x)), at, gains_db) / 20)
    return x * gain.astype(np.float32)


def faded(x: Float32, rate: int) -> Float32:
    """Fade a short sound in and out within 4 ms."""
    n = min(len(x) // 2, rate // 250)
    if n:
        ramp = np.linspace(0, 1, n, dtype=np.float32)
        x[:n] *= ramp
        x[-n:] *= ramp[::-1]
    return x


def joined(clips: Sequence[Int16], samples: int, gap: int, rate: int, rng: Generator) -> Float32:
    """Join recordings in random order, ``gap`` samples of silence between, cut at ``samples``."""
    parts: list[Float32] = []
    while sum(map(len, parts)) < samples:
        for index in rng.permutation(len(clips)):
            clip = np.divide(clips[index], 32768, dtype=np.float32)
            parts += [faded(clip, rate), np.zeros(gap, np.float32)]
    return np.concatenate(parts)[:samples]


def room(rng: Generator, rate: int) -> Float32:
    """Simulate the response of a small room with pyroomacoustics' image sources; peak 1.

    The size is random, from a cabin to a living room, with a reverberation time of 0.1 to 0.6 s by
    Sabine's formula. Talker and microphone are at random positions, 20 cm or more from the walls.
    """
    import pyroomacoustics

    size = rng.uniform((2.0, 1.8, 2.0), (7.0, 5.5, 3.2))
    walls = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    absorption = min(0.161 * size.prod() / (walls * rng.uniform(0.1, 0.6)), 0.95)
    shoebox = pyroomacoustics.ShoeBox(
        size, fs=rate, materials=pyroomacoustics.Material(absorption), max_order=ORDER
    )
    shoebox.add_source(rng.uniform(0.2, size - 0.2))
    shoebox.add_microphone(rng.uniform(0.2, size - 0.2))
    shoebox.compute_rir()
    return direct(np.asarray(shoebox.rir[0][0]))


def clipped(x: Float32, rng: Generator) -> Float32:
    """Clip at a random level, 3 to 12 dB below the peak, as an overloaded input does."""
    limit = float(np.max(np.abs(x))) * 10 ** (-rng.uniform(3.0, 12.0) / 20)
    return np.clip(x, -limit, limit)


def faster(x: Sound, ratio: float) -> Sound:
    """Resample ``x`` so that it plays ``ratio`` times as fast and as high."""
    if abs(ratio - 1) < 1e-3:
        return x
    return np.asarray(soxr.resample(x, ratio, 1.0, "LQ"), x.dtype)
