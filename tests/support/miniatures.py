"""The architectures of the literature in miniature, and sources that they learn in seconds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtsep.spec import Spec

RATE, BATCH = 8000, 8
SOURCES = ("tone", "hiss")
SPECTRA = Spec(RATE, 1, "stft", "hann", 128, 64, 1, 0, SOURCES)
BLOCKS = Spec(RATE, 1, "waveform", "rectangular", 64, 64, 1, 0, SOURCES)
LAYERS = {"filters": (4, 8), "taps": (3, 3), "widths": (5, 5)}
MINIATURES: dict[str, tuple[Spec, dict[str, Any]]] = {
    "banded": (SPECTRA, {"features": 8, "bands": 8, "channels": 16, "blocks": 2}),
    "cdae": (SPECTRA, {"filters": (8, 12, 12, 8)}),
    "clustering": (SPECTRA, {"hidden": 48, "layers": 1, "embedding": 8}),
    "complexunet": (SPECTRA, LAYERS),
    "conditionedunet": (
        SPECTRA,
        {"filters": 6, "levels": 2, "taps": 3, "hidden": (8,), "stems": SOURCES},
    ),
    "keptvoice": (
        SPECTRA,
        {"features": 8, "bands": 8, "channels": 16, "blocks": 1, "level_frames": 20.0},
    ),
    "demucs": (BLOCKS, {"hidden": 12, "levels": 2}),
    "feedforward": (SPECTRA, {"patch": 5, "hidden": 64}),
    "openunmix": (SPECTRA, {"hidden": 48, "layers": 1}),
    "recurrent": (SPECTRA, {"hidden": 48}),
    "segan": (BLOCKS, {"filters": (8, 16)}),
    "tasnet": (BLOCKS, {"filters": 64, "hidden": 64, "layers": 1}),
    "unet": (SPECTRA, {"filters": 6, "levels": 2, "taps": 3}),
    "waveunet": (BLOCKS, {"filters": 6, "levels": 2}),
}
"""Stream and options of each."""


def _sources(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Return a tone and a hiss of equal power, (samples, 2)."""
    t = np.arange(samples) / RATE
    pitch = rng.uniform(100, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 3) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = np.sum([np.sin(k * phase) / k for k in range(1, 8)], axis=0)
    tone *= np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * t + rng.uniform(0, 6)) + 0.5, 0, 1)
    hiss = np.diff(rng.standard_normal(len(t)), prepend=0.0)
    made = np.stack([tone, hiss], axis=1)
    return (0.1 * made / np.sqrt(np.mean(made**2, axis=0))).astype(np.float32)


def batches(seed: int, samples: int = RATE // 2) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mixtures (streams, samples, 1) and targets (streams, samples, 2, 1), without end.

    The sources are gliding harmonic tones with pauses, and noise above them.
    """
    rng = np.random.default_rng(seed)
    while True:
        targets = torch.from_numpy(
            np.stack([_sources(rng, samples) for _ in range(BATCH)])
        ).unsqueeze(3)
        yield targets.sum(dim=2), targets
