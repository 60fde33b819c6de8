"""Write samples of the stems of all shipped models, which tests compare on every processor.

python -m bench.golden [--json FILE]

Kernels are compiled for the instruction set of the machine, so their results differ by rounding.
Run it after a change of the weights; a change of the arithmetic must not need it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import soundfile

import rtsep
from rtsep import weights
from rtsep.devices.open import DEMO

FILE = Path(__file__).parent / "results" / "golden.json"
SECONDS = 2.0
EVERY = 997
"""Distance of the samples that are kept, a prime, so that they fall on all phases of a hop."""

ADAPTING = ("isa", "iva", "repet")
"""Models without samples: what they hear changes them, and rounding with it."""


def stems(model: str) -> dict[str, list[float]]:
    """Return every `EVERY`-th sample of each stem of the demo's beginning."""
    info = soundfile.info(DEMO)
    sound, rate = soundfile.read(DEMO, frames=round(SECONDS * info.samplerate), dtype="float32")
    separated = rtsep.separate(sound, rate, model)
    return {
        name: [round(float(x), 7) for x in stem.reshape(len(sound), -1)[::EVERY, 0]]
        for name, stem in separated.items()
    }


def main() -> None:
    """Write the file that the tests read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=FILE)
    arguments = parser.parse_args()
    found = {model: stems(model) for model in weights.names() if model not in ADAPTING}
    arguments.json.write_text(json.dumps(found) + "\n", "utf-8")


if __name__ == "__main__":
    main()
