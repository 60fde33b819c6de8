"""Run the checks of a bundle and print each result as a line of JSON; the child of `report`.

python -m rtsep.conformance BUNDLE STRICTNESS SEED
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rtsep.conformance.checks import CHECKS, Subject
from rtsep.errors import RtsepError
from rtsep.runtime.bundle import load


def main(path: str, strictness: str, seed: str) -> None:
    """Run all checks, also after one that failed."""
    try:
        subject = Subject(load(Path(path)), int(strictness), int(seed))
        subject.step()
    except RtsepError as error:
        _say("loading", False, str(error))
        return
    _say("loading", True, f"{len(subject.bundle.graph) / 1e6:.2f} MB")
    for name, check in CHECKS.items():
        print(json.dumps({"begin": name}), flush=True)
        try:
            _say(name, True, check(subject))
        except RtsepError as error:
            _say(name, False, str(error))


def _say(name: str, passed: bool, text: str) -> None:
    print(json.dumps({"name": name, "passed": passed, "text": text}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
