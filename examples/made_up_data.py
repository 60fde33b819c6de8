"""A folder of made-up voices and noises, to train on where there is nothing better yet.

python examples/made_up_data.py DATA
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

from rtsep.train.sound import synthetic_noise

RATE, SECONDS = 16000, 4


def voice(rng):
    """Syllables of gliding harmonics, with an RMS of 1: enough of speech to tell it from noise."""
    t = np.arange(SECONDS * RATE) / RATE
    pitch = rng.uniform(90, 250) * 2 ** (0.3 * np.sin(rng.uniform(3, 12) * t))
    wave = np.exp(2j * np.pi * np.cumsum(pitch) / RATE)
    tone = sum(rng.uniform(0.1, 2) / k * (wave**k).imag for k in range(1, 25))
    sound = tone * np.sin(rng.uniform(5, 15) * t + rng.uniform(0, 6)).clip(0)
    return sound / np.sqrt(np.mean(sound**2))


def noise(rng):
    """A fan, or rushing air, with an RMS of 1."""
    return synthetic_noise(rng, SECONDS * RATE, RATE)


folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
folder.mkdir(parents=True, exist_ok=True)
rows = [("path", "split", "speaker_or_category", "role")]
for role, make in (("speech", voice), ("noise", noise)):
    for number in range(32):
        path = f"{role}-{number}.wav"
        soundfile.write(folder / path, (0.05 * make(rng)).clip(-1, 1), RATE)
        rows.append((path, "val" if number % 8 == 7 else "train", f"{role}{number}", role))
with (folder / "MANIFEST.csv").open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows(rows)
print(f"{folder}: {len(rows) - 1} files")
