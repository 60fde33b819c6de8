"""Test signals, samples first: noise, sines and speech-band noise, and what is done to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000
Array = np.ndarray[Any, np.dtype[np.float32]]


def gaussian(n: int, channels: int = 1) -> Array:
    """Normal noise of unit variance; its seed is its length."""
    return np.random.default_rng(n).standard_normal((n, channels)).astype(np.float32)


def quiet(n: int, channels: int = 2, seed: int = 0) -> Array:
    """Normal noise at -20 dB, which 16-bit files hold without clipping."""
    noise = np.random.default_rng(seed).standard_normal((n, channels)) * 0.1
    return noise.astype(np.float32)


def uniform(n: int, *shape: int, seed: int = 0) -> Array:
    """Uniform noise between -1 and 1."""
    return np.random.default_rng(seed).uniform(-1, 1, (n, *shape)).astype(np.float32)


def sines(n: int, *shape: int) -> Array:
    hz = np.linspace(200, 3000, int(np.prod(shape))).reshape(shape)
    times = np.arange(n).reshape(-1, *[1] * len(shape)) / RATE
    return np.ascontiguousarray(np.sin(2 * np.pi * hz * times + hz), np.float32)


def delayed(x: Array, n: int) -> Array:
    return np.concatenate([np.zeros((n, *x.shape[1:]), x.dtype), x])[: len(x)]


def steps(x: Array) -> Array:
    return np.abs(np.diff(x.astype(np.float64), axis=0))


def band(length: int, channels: int, rate: int) -> np.ndarray[Any, Any]:
    """Noise from 300 Hz to 3 kHz, which any rate carries, each channel another."""
    spectrum = np.fft.rfft(
        np.random.default_rng(length).standard_normal((length, channels)), axis=0
    )
    hz = np.fft.rfftfreq(length, 1 / rate)
    spectrum[(hz < 300) | (hz > 3000)] = 0.0
    x: np.ndarray[Any, Any] = np.fft.irfft(spectrum, length, axis=0)
    return x / np.abs(x).max() / 2


def recording(path: Path, length: int = 16000, channels: int = 1, rate: int = 16000) -> Path:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, band(length, channels, rate), rate, subtype="FLOAT")
    return path


def tone(hz: float, seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    """A sine, (samples,)."""
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")
