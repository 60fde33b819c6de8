"""Compare `rtsep run` on a real device with a native pass-through, in alternating runs.

python -m bench.device --device "system, JACK Audio Connection Kit" [--seconds 60] [--rounds 2]

The pass-through shows the faults of the machine itself: late or missing callbacks. Each run is a
separate process, because a process that has used PortAudio remains a client of JACK until its end,
and an xrun of one client affects all. With ``--burn`` (the default), a Python thread of each
process keeps its interpreter busy, and another process of normal priority keeps a core busy.
tests/support/jack.py starts a virtual sound card.
"""

from __future__ import annotations

import argparse
import json
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

from rtsep.cli import main
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
        main(command, standalone_mode=False)
        result: Figures = json.loads(path.read_text())
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--block", type=int)
    parser.add_argument("--model")
    parser.add_argument("--realtime", choices=["on", "off"], default="on")
    parser.add_argument("--burn", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    options = ["--realtime", arguments.realtime]
    options += ["--model", arguments.model] if arguments.model else []
    burn, rows = arguments.burn, []
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if burn else None
    for _ in range(arguments.rounds):
        asked = arguments.device, arguments.seconds, arguments.block
        floor = alone(passthrough, burn, *asked)
        rows.append((floor, alone(separation, burn, *asked, options)))
    if burner is not None:
        burner.kill()
    for floor, run in rows:
        print("pass-through", floor)
        print("rtsep run   ", {name: run[name] for name in FIELDS})
        print("  latency at start and end, ms:", run["latency_at_start_ms"], run["latency_ms"])
        print("  terms at the end, ms:", run["latency_terms_ms"])
        print("  hop time, us:", run["hop_time_us"], "real-time factor", run["real_time_factor"])
    for name in ("missed_callbacks", "xruns"):
        bare, ours = (sum(row[k][name] for row in rows) for k in range(2))
        print(f"{name} in all: pass-through {bare}, rtsep run {ours}")
    print("deadline misses in all:", sum(run["deadline_misses"] for _, run in rows))
