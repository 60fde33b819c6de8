"""Make ``rtsep/weights/voice.rtsep``: a dictionary of speech, learned from many speakers.

python -m export.voice --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import soundfile

from rtsep.learned.frames import magnitudes
from rtsep.learned.learn import Plan, learn
from rtsep.learned.source import Source, stream, write
from rtsep.runtime.pipeline import BLOCK

SPEAKERS, SECONDS = 60, 4.0
RATE_HZ, WINDOW, HOP = 16000, 512, 128
PLAN = Plan("nmf", 64, updates=100)
WEIGHTS = Path(__file__).parents[1] / "rtsep" / "weights"


def main() -> None:
    """Learn the dictionary and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RTSEP_DATA"))
    data = parser.parse_args().data
    if data is None:
        parser.error("the data folder is missing: use --data or RTSEP_DATA")
    speakers: dict[str, list[Path]] = {}
    with (Path(data) / "MANIFEST.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["path"].startswith("speech16k/") and row["split"] == "train":
                speakers.setdefault(row["speaker_or_category"], []).append(data / row["path"])
    labelled = [name for name in sorted(speakers) if name[:2] in ("so", "vc", "ls", "lv")]
    spec = stream("voice", RATE_HZ, WINDOW, HOP)
    found = []
    for name in labelled[:: max(len(labelled) // SPEAKERS, 1)]:
        x = np.concatenate([soundfile.read(p, dtype="float32")[0] for p in speakers[name][:3]])
        x = x[: round(SECONDS * RATE_HZ), None] / (np.sqrt(np.mean(x**2)) + 1e-9) * 0.05
        pieces = [np.ascontiguousarray(x[i : i + BLOCK]) for i in range(0, len(x), BLOCK)]
        found.append(magnitudes(pieces, spec, 1, RATE_HZ)[0])
    decoder, _ = learn(np.concatenate(found), PLAN)
    told = (
        f"{PLAN.model}, rank {PLAN.rank}, {SECONDS:g} s each of {len(found)} speakers of English; "
        "licences and attribution: rtsep/weights/voice.md"
    )
    write(Source("voice", PLAN.model, decoder, spec, told), WEIGHTS / "voice.rtsep")
    print(told)


if __name__ == "__main__":
    main()
