"""Sound as voice frameworks exchange it, and what `rtsep.separate` makes of it."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import rtsep
from tests.support.audio import band

RATES = (8000, 16000, 24000, 48000)
FRAMES_MS = (10, 20, 50)
FORMATS = [*itertools.product(RATES, FRAMES_MS)]
"""Sample rates and lengths of frames that adapters are tested with."""
SECONDS = 0.6

Int16 = np.ndarray[Any, np.dtype[np.int16]]


@cache
def mixture(rate: int, channels: int = 1) -> Int16:
    """(n, channels) of noise; some samples clip."""
    sound = np.clip(1.5 * band(round(SECONDS * rate), channels, rate), -1, 1)
    return np.rint(sound * 32767).astype(np.int16)


def expected(rate: int, model: str | Path, source: str, channels: int = 1) -> Int16:
    """(n, channels): the source as `rtsep.separate` gives it, aligned, in 16 bits."""
    sound = mixture(rate, channels).astype(np.float32) / np.float32(32768)
    stem = rtsep.separate(sound, rate, model)[source]
    return np.clip(np.rint(stem * 32768), -32768, 32767).astype(np.int16)


def frames(rate: int, length_ms: int, channels: int = 1) -> list[bytes]:
    sound, size = mixture(rate, channels), rate * length_ms // 1000
    return [sound[start : start + size].tobytes() for start in range(0, len(sound), size)]


def samples(audio: bytes, channels: int = 1) -> Int16:
    return np.frombuffer(audio, np.int16).reshape(-1, channels)
