"""The first example of Smaragdis and Venkataramani 2017: five piano notes, four of them new.

With rank 4, NMF and a shallow auto-encoder with sparse activations find one basis per note, whose
activation shows when the note is played.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.learned.material import RATE_HZ, spectra
from rtsep.learned.decoder import Decoder
from rtsep.learned.learn import Plan, learn
from rtsep.spec import Float32

NOTES_HZ = (261.63, 392.00, 329.63, 523.25, 329.63)
"""C4, G4, E4, C5 and E4 again."""
ONSETS_S = (0.1, 0.7, 1.3, 1.9, 2.5)
LENGTH_S = 3.2
PLANS = (Plan("nmf", 4), Plan("nae", 4, sparsity=0.05))
"""Models that learn the notes."""


def five_notes() -> Float32:
    """Return (n,) samples: harmonics that decay faster the higher they are, and a hammer noise."""
    n = round(LENGTH_S * RATE_HZ)
    rng = np.random.default_rng(0)
    out = 1e-4 * rng.standard_normal(n)
    for pitch, onset in zip(NOTES_HZ, ONSETS_S, strict=True):
        first = round(onset * RATE_HZ)
        t = np.arange(n - first) / RATE_HZ
        release = np.clip((0.55 - t) / 0.05, 0, 1)
        for k in range(1, 12):
            hz = k * pitch * np.sqrt(1 + 4e-4 * k**2)  # inharmonicity of stiff strings
            if hz < 0.45 * RATE_HZ:
                decay = np.exp(-t * (2.0 + 1.2 * k))
                out[first:] += release * decay * np.sin(2 * np.pi * hz * t) / k**1.3
        out[first:] += 0.05 * np.exp(-t / 0.004) * rng.standard_normal(len(t))
    return np.asarray(0.3 * out / np.abs(out).max(), np.float32)


def played(activations: Float32) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the mean activation of each basis during each note, (notes, rank), maximum 1."""
    hop_s = LENGTH_S / len(activations)
    while_sounding = [
        activations[round((onset + 0.08) / hop_s) : round((onset + 0.5) / hop_s)].mean(axis=0)
        for onset in ONSETS_S
    ]
    level = np.array(while_sounding, np.float64)
    return level / level.max(axis=1, keepdims=True)


def recovered() -> list[tuple[Plan, Decoder, Float32]]:
    """Learn the notes with each plan; return decoders and activations."""
    x = spectra(five_notes())
    return [(plan, *learn(x, plan)) for plan in PLANS]


def draw(path: Path) -> None:
    """Draw bases and activations, one row per plan."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = recovered()
    figure, panels = pyplot.subplots(len(found), 2, figsize=(10, 5), layout="constrained")
    for (plan, decoder, h), (left, right) in zip(found, panels, strict=True):
        order = np.argsort(np.argmax(h, axis=0))
        eye = np.eye(decoder.rank, dtype=np.float32)[order] * h.max(axis=0)[order, None]
        bases = decoder.explain(eye)[0]
        hz = np.fft.rfftfreq(2 * decoder.bins - 2, 1 / RATE_HZ)
        seconds = np.arange(len(h)) * LENGTH_S / len(h)
        for i, atom in enumerate(order):
            left.plot(hz[:130], i + 0.9 * bases[i, :130] / bases[i].max(), lw=1)
            right.plot(seconds, i + 0.9 * h[:, atom] / h[:, atom].max(), lw=1)
        left.set(title=f"{plan.model}: four bases", xlabel="Hz", yticks=[])
        right.set(title=f"{plan.model}: their activations", xlabel="s", yticks=[])
        for onset in ONSETS_S:
            right.axvline(onset, color="black", lw=0.5, ls=":")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
