"""Run the demo while every sleep of the process may take 5 ms longer, and count the misses.

``python -m bench.late_wakes [--runs N]``. Clock and worker of the demo sleep between blocks. On
laptops and virtual machines the system wakes them late; here a library that is loaded before
others adds a random delay to one sleep in eight. It needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LATE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int usleep(useconds_t us) {
    static int (*real)(useconds_t);
    static __thread unsigned seed;
    if (!real) real = (int (*)(useconds_t)) dlsym(RTLD_NEXT, "usleep");
    if (!seed) seed = (unsigned) (size_t) &seed;
    return real(us + (rand_r(&seed) % 8 ? 0 : rand_r(&seed) % 5000));
}
"""


def main() -> None:
    """Run and print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=13.0, help="duration of a run; 13")
    parser.add_argument("--in-time", action="store_true", help="do not delay anything")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, library = folder / "late.c", folder / "late.so"
        source.write_text(LATE, "utf-8")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        environment = dict(os.environ)
        if not arguments.in_time:
            environment["LD_PRELOAD"] = str(library)
        summary = folder / "summary.json"
        command = [sys.executable, "-m", "rtsep", "run", "--device", "demo", "--json", summary]
        for _ in range(arguments.runs):
            subprocess.run(
                [*command, "--seconds", str(arguments.seconds)],
                env=environment,
                check=True,
                capture_output=True,
            )
            figures = json.loads(summary.read_text("utf-8"))
            hop = figures["hop_time_us"]
            print(
                f"misses {figures['deadline_misses']}, standstills {figures['standstills']}, "
                f"hop p50 {hop['p50']:.0f} µs, p99 {hop['p99']:.0f} µs",
                flush=True,
            )


if __name__ == "__main__":
    main()
