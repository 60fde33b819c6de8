"""Compare --learn-noise with the decision-directed Wiener filter, on the same ten seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.learned.material import RATE_HZ, live, rows, sound
from bench.learned.wiener import wiener
from rtsep import weights
from rtsep.evaluate.metrics import si_sdr_db, stoi
from rtsep.learned.live import REMOVAL, REMOVAL_STEPS, Noise, bundle
from rtsep.spec import Float32

ALONE_S, TOGETHER_S = 10.0, 6.0
VOICES_INSIDE = ("amb_cafe", "amb_crowd", "berlin_street", "berlin_crowd", "sc_miaowing")
"""Categories that are left out because they contain voices."""


def mixtures(
    data: Path, split: str, count: int, speech_split: str = ""
) -> list[tuple[str, Float32, Float32]]:
    """Yield noise followed by noise and speech: name, mixture (n,), speech (m,) at its end.

    The SNR cycles from -5 to 10 dB, the noise cycles through the categories; each recording is used
    once.
    """
    kinds: dict[str, list[str]] = {}
    for row in rows(data, "noise16k", split):
        long = float(row["seconds"]) >= ALONE_S + TOGETHER_S
        if long and row["speaker_or_category"] not in VOICES_INSIDE:
            kinds.setdefault(row["speaker_or_category"], []).append(row["path"])
    turn = max(map(len, kinds.values()))
    noises = [paths[i] for i in range(turn) for paths in kinds.values() if i < len(paths)]
    spoken: dict[str, list[str]] = {}
    for row in rows(data, "speech16k", speech_split or split):
        spoken.setdefault(row["speaker_or_category"], []).append(row["path"])
    speakers = sorted(spoken)
    found = []
    for index, path in enumerate(noises[:count]):
        speech = np.zeros(round(TOGETHER_S * RATE_HZ), np.float32)
        start = 0
        for part in spoken[speakers[index * len(speakers) // count]]:
            piece = sound(data / part)[: len(speech) - start]
            speech[start : start + len(piece)] = piece
            start += len(piece) + RATE_HZ // 4
            if start >= len(speech):
                break
        noise = sound(data / path)[: round((ALONE_S + TOGETHER_S) * RATE_HZ)]
        snr_db = (-5.0, 0.0, 5.0, 10.0)[index % 4]
        power = np.mean(noise[-len(speech) :] ** 2)
        speech *= np.sqrt(power * 10 ** (snr_db / 10) / np.mean(speech**2))
        mixture = noise.copy()
        mixture[-len(speech) :] += speech
        gain = np.float32(0.5 / np.abs(mixture).max())
        found.append((f"{Path(path).stem}, {snr_db:g} dB", gain * mixture, gain * speech))
    return found


def run(data: Path, split: str = "test", count: int = 10) -> list[dict[str, Any]]:
    """Score both and the mixture on the part with speech."""
    noise = Noise("noise", ALONE_S)
    learned = bundle([weights.voice()], noise=noise, steps=REMOVAL_STEPS, **REMOVAL)
    found = []
    for name, mixture, speech in mixtures(data, split, count):
        n = len(speech)
        filtered = wiener(mixture, mixture[:-n])[-n:]
        separated = live(mixture, learned)[-n:, 0]
        before = si_sdr_db(mixture[-n:], speech)
        row = {"mixture": name, "si_sdr_db": before}
        for key, estimate in (("wiener", filtered), ("learned", separated)):
            row[f"{key}_improvement_db"] = si_sdr_db(estimate, speech) - before
            row[f"{key}_stoi"] = stoi(estimate, speech, RATE_HZ)
        found.append(row)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the scores of each mixture and their means."""
    keys = ["wiener_improvement_db", "learned_improvement_db", "wiener_stoi", "learned_stoi"]
    lines = [
        "| noise, SNR | Wiener, SI-SDRi dB | learned, SI-SDRi dB | Wiener, STOI | learned, STOI |",
        "|---|---|---|---|---|",
    ]
    mean = {key: float(np.mean([row[key] for row in found])) for key in keys}
    for row in [*found, {"mixture": "mean", **mean}]:
        db, stois = (f"{row[k]:.2f}" for k in keys[:2]), (f"{row[k]:.3f}" for k in keys[2:])
        lines.append(f"| {row['mixture']} | {' | '.join(db)} | {' | '.join(stois)} |")
    return "\n".join(lines)
