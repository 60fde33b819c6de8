"""Describe the machine that the figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtsep.version import __version__

PACKAGES = ("numpy", "numba", "onnxruntime-gpu", "onnxruntime", "sounddevice")


def machine() -> dict[str, Any]:
    """Return processor, system and versions, for the JSON."""
    found = {"rtsep": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:  # one of the two onnxruntime packages is installed
            continue
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": platform.platform(terse=True),
        "versions": found,
    }


def processor() -> str:
    """Return the name of the processor as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
