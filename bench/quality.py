"""Quality on a fixed set of mixtures, measured on what ``rtsep separate`` writes.

python -m bench.quality --data ../shared/data/bench/speech_noise [--model NAME|PATH]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rtsep import weights
from rtsep.train.evaluate import evaluate

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    sources = weights.find(arguments.model).spec.sources[:1]
    print(json.dumps(evaluate(arguments.data, sources, arguments.model), indent=2))
