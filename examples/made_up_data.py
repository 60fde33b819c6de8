"""Write a folder of synthetic voices and noises, as placeholder training data.

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
    """Return syllables of gliding harmonics with RMS 1, which a network can tell from noise."""
    t = np.arange(SECONDS * RATE) / RATE
    pitch = rng.uniform(90, 250) * 2 ** (0.3 * np.sin(rng.uniform(3, 12) * t))
    wave = np.exp(2j * np.pi * np.cumsum(pitch) / RATE)
    tone = sum(rng.uniform(0.1, 2) / k * (wave**k).imag for k in range(1, 25))
    sound = tone * np.sin(rng.uniform(5, 15) * t + rng.uniform(0, 6)).clip(0)
    return sound / np.sqrt(np.mean(sound**2))


def noise(rng):
    """Return the noise of a fan or of air, with RMS 1."""
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
