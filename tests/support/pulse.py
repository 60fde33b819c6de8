"""A sound server of PulseAudio: what it has, and what was recorded from it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft

Env = dict[str, str]


def pactl(env: Env, *arguments: str) -> str:
    done = subprocess.run(
        ["pactl", *arguments], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


def modules(env: Env, name: str) -> list[str]:
    return [line for line in pactl(env, "list", "short", "modules").splitlines() if name in line]


def samples(raw: Path) -> np.ndarray[Any, Any]:
    """Read what has been recorded so far."""
    whole = raw.stat().st_size // 4
    return np.fromfile(raw, np.float32, whole)


def audible(raw: Path) -> np.ndarray[Any, Any]:
    """Which of the recorded samples are of a quarter second that is no silence."""
    pieces = samples(raw)
    pieces = pieces[: len(pieces) // 4000 * 4000].reshape(-1, 4000)
    return np.repeat(np.abs(pieces).max(axis=1, initial=0.0) >= 1e-3, 4000)


def likeness(heard: np.ndarray[Any, Any], whole: np.ndarray[Any, Any], length: int) -> list[float]:
    """Largest correlation coefficient of each piece with any part of the whole, but for silence."""
    size = fft.next_fast_len(length + len(whole), real=True)
    spectrum = fft.rfft(whole, size)
    power = np.cumsum(np.concatenate([[0.0], whole.astype(float) ** 2]))
    parts = np.sqrt(np.maximum(power[length:-1] - power[: -length - 1], 1e-6))
    found = []
    for piece in heard[: len(heard) // length * length].reshape(-1, length):
        if np.max(np.abs(piece)) >= 1e-3:
            match = fft.irfft(spectrum * np.conj(fft.rfft(piece, size)), size)[: len(parts)]
            found.append(float(np.max(match / parts) / np.linalg.norm(piece)))
    return found
