"""Measure how the time of a hop grows with window, sources, channels, streams and chunk.

python -m bench.growth [--png bench/growth.png] [--json FILE]

Window, sources and channels are measured on the engine with a model that copies, streams on
`speech` with one call for all, and chunk on the full Conv-TasNet with random weights. The exponent
of a curve is its slope over the upper half of the sizes; 1 is linear growth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.test_engine import PassThrough, noise
from bench.test_models import TEXTS, voices
from rtsep import weights
from rtsep.benchmark.machine import machine
from rtsep.benchmark.trials import Trial, times
from rtsep.models import build
from rtsep.nn.onnx import export
from rtsep.runtime.engine import Engine
from rtsep.spec import Spec

SECONDS = 0.4
"""Duration of each measurement."""


def around(window: int = 1024, sources: int = 1, channels: int = 1) -> float:
    """Return the median time of a hop of the engine alone, in seconds."""
    names = tuple(f"source{k}" for k in range(sources))
    spec = Spec(48000, 1, "stft", "hann", window, window // 4, 1, 0, names)
    engine = Engine(PassThrough(spec, channels), spec, channels, spec.hop_length)
    block = noise(spec.hop_length, channels)
    out = np.empty((spec.hop_length, sources, channels), np.float32)
    return float(np.median(times(lambda: engine.process(block, out), SECONDS)))


def streams(count: int) -> float:
    """Return the median time of a hop of `speech` for ``count`` streams, in seconds."""
    return float(np.median(times(Trial(weights.find("speech"), streams=count).call, SECONDS)))


def chunk(frames: int) -> float:
    """Return the median time of a call of Conv-TasNet with ``frames`` frames, in seconds."""
    spec = voices(frames)
    torch.manual_seed(0)
    model = build("convtasnet", spec, {"size": "full"})
    bundle = export(model, spec, {**TEXTS, "name": "full", "model": "convtasnet"})
    return float(np.median(times(Trial(bundle).call, SECONDS)))


CURVES: dict[str, tuple[Callable[[int], float], list[int]]] = {
    "window, samples": (lambda n: around(window=n), [128, 256, 512, 1024, 2048, 4096, 8192]),
    "sources": (lambda n: around(sources=n), [1, 2, 4, 8, 16, 32]),
    "channels": (lambda n: around(channels=n), [1, 2, 4, 8, 16, 32]),
    "streams (speech)": (streams, [1, 2, 4, 8, 16, 32]),
    "chunk, frames (Conv-TasNet)": (chunk, [1, 2, 4, 8, 16, 32, 64]),
}
"""Measurement and sizes of each curve."""


def exponent(sizes: list[int], medians: list[float]) -> float:
    """Return the slope of the upper half on double logarithmic axes."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(medians[half:]), 1)[0])


def draw(path: Path, results: dict[str, Any]) -> None:
    """Plot all curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(13, 3.0), dpi=100)
    figure.set_layout_engine(ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    for axes, (name, result) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        sizes, us = np.array(result["sizes"]), np.array(result["us"])
        axes.loglog(sizes, us, "o-", markersize=4)
        axes.loglog(sizes, us[-1] * sizes / sizes[-1], ":", color="0.5")
        axes.set_title(f"{name}\nexponent {result['exponent']:.2f}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("median time of a hop, µs\n(dotted: linear)", fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Measure, print and save the curves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--png", type=Path, default=Path(__file__).with_name("growth.png"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name, (measure, sizes) in CURVES.items():
        medians = [measure(size) for size in sizes]
        us = [round(1e6 * s, 1) for s in medians]
        results[name] = {"sizes": sizes, "us": us, "exponent": round(exponent(sizes, medians), 2)}
        print(name, results[name], flush=True)
    draw(arguments.png, results)
    if arguments.json:
        document = {"machine": machine(), "results": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
