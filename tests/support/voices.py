"""Two synthetic voices that a small network can learn to tell apart in seconds."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rtsep.spec import Float32

PITCH_HZ = ((90.0, 140.0), (180.0, 260.0))
TRACT = (1.0, 1.18)
"""Formants of the high voice lie higher: its vocal tract is shorter."""
VOWELS_HZ = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480]])
"""Formants of a, i, u, e: Peterson and Barney 1952, men."""
BANDWIDTH_HZ = np.array([80.0, 110.0, 160.0])


def mixtures(streams: int, samples: int, rate: int, seed: int) -> tuple[Float32, Float32]:
    """Make mixtures of a low and a high voice.

    Returns
    -------
    (array, array)
        Mixtures (streams, samples, 1) and sources (streams, samples, 2, 1), float32: source 0 is
        the low voice, source 1 the high one. ``seed`` decides everything.
    """
    rng = np.random.default_rng(seed)
    sources = np.empty((streams, samples, 2, 1), np.float32)
    for stream in range(streams):
        for source in range(2):
            voice = _voice(rng, samples, rate, source)
            sources[stream, :, source, 0] = voice * 10 ** (rng.uniform(-26, -20) / 20)
    return sources.sum(axis=2), sources


def _voice(rng: Generator, samples: int, rate: int, source: int) -> NDArray[np.float64]:
    """Syllables of one voice, with an RMS of 1."""
    syllables = int(8 * samples / rate) + 3
    ends = np.cumsum(rng.uniform(0.12, 0.3, syllables)) - rng.uniform(0.0, 0.3)
    t = np.arange(samples) / rate
    position = np.interp(t, ends, np.arange(syllables))
    nearest = np.minimum(np.round(position).astype(int), syllables - 1)
    pitch = np.interp(position, np.arange(syllables), rng.uniform(*PITCH_HZ[source], syllables))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = VOWELS_HZ[rng.integers(len(VOWELS_HZ), size=syllables)] * TRACT[source]
    formants = np.stack([np.interp(position, np.arange(syllables), f) for f in formants.T], axis=1)
    stress = rng.uniform(0.3, 1.0, syllables) * (rng.random(syllables) > 0.15)
    loudness = stress[nearest] * np.cos(np.pi * (position - nearest)) ** 2
    wave = np.zeros(samples)
    for harmonic in range(1, int(rate / 2 / PITCH_HZ[source][0])):
        frequency = harmonic * pitch
        resonance = 1 / (1 + ((frequency[:, None] - formants) / BANDWIDTH_HZ) ** 2)
        heard = (frequency < 0.48 * rate) / harmonic**0.5
        wave += heard * (0.02 + resonance.sum(axis=1)) * np.sin(harmonic * phase)
    wave *= loudness
    return wave / (np.sqrt(np.mean(wave**2)) + 1e-9)
