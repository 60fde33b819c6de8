"""Compare `rtsep run` on a real device with a native pass-through, in alternating runs.

python -m bench.device --device "system, JACK Audio Connection Kit" [--seconds 60] [--rounds 2]
    [--run "" --run "--low-latency --model speech-fast"]

The pass-through shows the faults of the machine itself: late or missing callbacks. Each run is a
separate process, because a process that has used PortAudio remains a client of JACK until its end,
and an xrun of one client affects all. With ``--burn`` (the default), a Python thread of each
process keeps its interpreter busy, and another process of normal priority keeps a core busy.
tests/support/jack.py starts a virtual sound card.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rtsep import cli
from rtsep.devices.blocks import USUAL
from rtsep.devices.portaudio.client import Process
from rtsep.devices.portaudio.device import Hosted

FIELDS = ("callbacks", "missed_callbacks", "xruns", "deadline_misses", "starved_samples")


Figures = dict[str, Any]


def alone(trial: Callable[..., Figures], burn: bool, *arguments: Any) -> Figures:
    """Run a trial in a separate process; with ``burn``, keep its interpreter busy."""
    with ProcessPoolExecutor(1, get_context("spawn"), _burn_interpreter if burn else None) as pool:
        return pool.submit(trial, *arguments).result()


def _burn_interpreter() -> None:
    def burn() -> None:
        count = 0
        while True:
            count += 1

    threading.Thread(target=burn, daemon=True).start()


def passthrough(device: str, seconds: float, block: int | None) -> Figures:
    """Copy input to output natively; return the faults, which are those of the machine."""
    process = Process()
    found = process.find(device, "input")
    rate = round(found["default_samplerate"])
    block = block or found["period"] or USUAL
    with Hosted(process, found, found, rate, 1, 2, block, 0, passthrough=True) as stream:
        time.sleep(seconds)
        stats = stream.stats()
    return {
        "callbacks": stats.callbacks,
        "missed_callbacks": stats.missed,
        "xruns": stats.xruns,
    }


def separation(device: str, seconds: float, block: int | None, options: list[str]) -> Figures:
    """Run `rtsep run`; return its summary."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        command = ["run", "--device", device, "--seconds", str(seconds), "--json", str(path)]
        command += [*options, *(["--block", str(block)] if block else [])]
        cli.main(command, standalone_mode=False)
        result: Figures = json.loads(path.read_text())
    return result


def main() -> None:
    """Run the rounds and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of a run; 60")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--block", type=int)
    parser.add_argument(
        "--run",
        action="append",
        metavar="OPTIONS",
        help="run with these options of rtsep run, such as --run=--low-latency; may be repeated",
    )
    parser.add_argument("--burn", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    runs = list(dict.fromkeys(arguments.run or [""]))
    asked = arguments.device, arguments.seconds, arguments.block
    rows: dict[str, list[Figures]] = {name: [] for name in ("pass-through", *runs)}
    busy = [sys.executable, "-c", "while True: pass"]
    burner = subprocess.Popen(busy) if arguments.burn else None
    try:
        for _ in range(arguments.rounds):
            rows["pass-through"].append(alone(passthrough, arguments.burn, *asked))
            for options in runs:
                found = alone(separation, arguments.burn, *asked, shlex.split(options))
                rows[options].append(found)
    finally:
        if burner is not None:
            burner.kill()
    for number in range(arguments.rounds):
        print("pass-through", rows["pass-through"][number])
        for options in runs:
            _show(options, rows[options][number])
    for name, figures in rows.items():
        sums = {f: sum(row[f] for row in figures) for f in FIELDS if all(f in r for r in figures)}
        print("in all:", name if name == "pass-through" else f"rtsep run {name}", sums)


def _show(options: str, run: Figures) -> None:
    print("rtsep run", options, {name: run[name] for name in FIELDS})
    print("  latency at start and end, ms:", run["latency_at_start_ms"], run["latency_ms"])
    print("  terms at the end, ms:", run["latency_terms_ms"])
    print("  hop time, us:", run["hop_time_us"], "real-time factor", run["real_time_factor"])


if __name__ == "__main__":
    main()
