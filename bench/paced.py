"""Count deadline misses at real-time pace, alternating with an empty loop, on a busy machine.

python -m bench.paced [MODEL ...] [--seconds 60] [--json FILE]

A block misses its deadline if it is not done when the next one is due. The empty loop of the same
period shows the delays of the machine itself. Processes of normal priority keep all other cores
busy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rtsep import weights
from rtsep.benchmark.machine import machine
from rtsep.benchmark.trials import Trial, misses, percentiles_us


def paced(model: str, seconds: float) -> dict[str, Any]:
    """Return the misses of one model and of the empty loop."""
    trial = Trial(weights.find(model))
    run, floor = trial.paced(seconds)
    return {
        "model": model,
        "period_ms": round(1000 * trial.period_s, 4),
        "blocks": len(run.done_s),
        "misses": misses(run, trial.period_s),
        "floor_misses": misses(floor, trial.period_s),
        "done_us": percentiles_us(run.done_s),
        "floor_late_us": percentiles_us(floor.late_s),
        "work_us": percentiles_us(run.done_s - run.late_s),
    }


def main() -> None:
    """Measure all models of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all shipped ones by default")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    others = max(1, (os.cpu_count() or 2) - 1)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    results = []
    try:
        for model in arguments.models or weights.names():
            result = paced(model, arguments.seconds)
            results.append(result)
            print(
                f"{model}: {result['misses']} of {result['blocks']} blocks of "
                f"{result['period_ms']} ms missed, the empty loop {result['floor_misses']}\n"
                f"  done after {result['done_us']} µs, empty loop late by "
                f"{result['floor_late_us']} µs",
                flush=True,
            )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    if arguments.json:
        document = {"machine": machine(), "seconds": arguments.seconds, "results": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
