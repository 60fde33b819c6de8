"""Measure everything that docs/learned.md shows.

python -m bench.learned --data ../shared/data

Learns the speakers of ten pairs with every model and separates their mixtures (``protocol``),
varies the updates per frame (``steps``), removes learned noise (``noise``) and learns the notes of
a piano (``notes``). Tables are printed; figures and plots are written to ``runs/learned``, and
existing results are reused. It takes half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from bench.learned import noise, notes, protocol, steps
from bench.learned.material import pairs

PARTS = ("notes", "noise", "protocol", "steps")


def main() -> None:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("RTSEP_DATA"))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="processes that learn; 1")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--runs", type=Path, default=Path("runs/learned"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the data folder is missing: use --data or RTSEP_DATA")
    data, folder = Path(arguments.data), arguments.runs
    wanted = arguments.only or PARTS
    folder.mkdir(parents=True, exist_ok=True)
    if "notes" in wanted:
        notes.draw(folder / "notes.png")
    if "noise" in wanted:
        removed = noise.run(data)
        (folder / "noise.json").write_text(json.dumps(removed, indent=1), "utf-8")
        print(noise.table(removed), "\n")
    found = pairs(data, arguments.pairs) if {"protocol", "steps"} & set(wanted) else []
    if "protocol" in wanted:
        scored = protocol.run(found, folder, arguments.jobs)
        print(protocol.table(scored), "\n")
        protocol.draw(scored, folder / "protocol.png")
    if "steps" in wanted:
        turned = steps.run(found, folder)
        print(steps.table(turned), "\n")
        steps.draw(turned, folder / "steps.png")
    print(f"figures and plots are in {folder}")


if __name__ == "__main__":
    main()
