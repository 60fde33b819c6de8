"""A voice with typing beside it, for a browser's microphone, and scores of what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.demo import keyboard
from rtsep.evaluate.metrics import si_sdr_db
from tests.support import voices

SECONDS = 8


def speech_and_mixture() -> tuple[Any, Any]:
    """A synthetic voice, and it with typing beside it, (n,) at 16 kHz; ends meet in silence."""
    n = SECONDS * 16000
    _, sources = voices.mixtures(1, n, 16000, seed=4)
    speech = sources[0, :, 1, 0].astype(np.float64)
    noise = keyboard(np.random.default_rng(2), n)
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2))
    ends = np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / 1600, 0, 1)
    scale = 0.3 / np.max(np.abs(speech + noise))
    return speech * ends * scale, (speech + noise) * ends * scale


def scores(sound: Any, clean: Any, rate: int) -> tuple[float, float]:
    """SI-SDR and gain, in dB: medians over seconds, each at its place in the clean sound.

    The clean sound comes over and over, and the fake microphone hiccups on busy machines.
    """
    found = []
    for first in range(0, len(sound) - rate, rate // 2):
        piece = sound[first : first + rate]
        spectrum = np.fft.rfft(clean) * np.conj(np.fft.rfft(piece, len(clean)))
        place = int(np.argmax(np.fft.irfft(spectrum, len(clean))))
        wanted = np.roll(clean, -place)[:rate]
        gain = max(float(piece @ wanted) / float(wanted @ wanted), 1e-9)
        found.append((si_sdr_db(piece, wanted), 20 * np.log10(gain)))
    si_sdr, gain_db = np.median(found, axis=0)
    return float(si_sdr), float(gain_db)
