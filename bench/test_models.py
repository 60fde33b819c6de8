"""Time of a hop through whole models, on one core.

python -m pytest bench/test_models.py --benchmark-only

Models of `MODELS` have random weights, shipped ones their own. In the extra info,
`real_time_factor` is the median over the hop's duration, and `roofline_share` the model's
operations over the measured peak of the core in that time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from rtsep import weights
from rtsep.benchmark.roofline import core_peak, share
from rtsep.models import build
from rtsep.nn.onnx import export
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec

TEXTS = {"training": "none", "licence": "MIT", "quality": "none"}
STEMS = ("vocals", "drums", "bass", "other")


def music(hop: int, lookahead: int) -> Spec:
    """Return the spec of the paper of Chandna et al.: 44.1 kHz, four stems."""
    return Spec(44100, 1, "stft", "hann", 1024, hop, 1, lookahead, STEMS)


def voices(chunk: int) -> Spec:
    """Return the spec of the paper of Luo and Mesgarani: 8 kHz windows, two speakers."""
    return Spec(8000, 1, "waveform", "rectangular", 16, 8, chunk, 0, ("first", "second"))


def spectra(lookahead: int) -> Spec:
    """Return the spec of the paper of Mobin et al.: 8 kHz spectra, two speakers."""
    return Spec(8000, 1, "stft", "hann", 256, 64, 1, lookahead, ("first", "second"))


MODELS: dict[str, tuple[str, Spec, dict[str, Any]]] = {
    "chandna-music": ("chandna", music(256, 0), {}),
    "chandna-music-hop-512": ("chandna", music(512, 0), {}),
    "chandna-music-lookahead-11": ("chandna", music(256, 11), {}),
    "convtasnet-full-chunk-8": ("convtasnet", voices(8), {"size": "full"}),
    "convtasnet-full-chunk-32": ("convtasnet", voices(32), {"size": "full"}),
    "dilated-full": ("dilated", spectra(0), {"size": "full"}),
    "dilated-full-lookahead-127": ("dilated", spectra(127), {"size": "full"}),
    "dilated-half": ("dilated", spectra(0), {"size": "half"}),
}
"""Architecture, spec and options by name."""
NAMES = [*MODELS, *weights.names()]


@cache
def bundle(name: str) -> Bundle:
    """Return a model of the table, or a shipped one."""
    if name not in MODELS:
        return weights.find(name)
    model, spec, options = MODELS[name]
    torch.manual_seed(0)
    return export(build(model, spec, options), spec, {**TEXTS, "name": name, "model": model})


@pytest.fixture(scope="session")
def peak() -> float:
    """Return the peak of one core in FLOP/s."""
    found = core_peak()
    print(f"\npeak of one core: {found / 1e9:.0f} GFLOP/s")
    return found


def timed(
    benchmark: BenchmarkFixture, model: Bundle, peak: float, call: Callable[[], object]
) -> None:
    """Run the benchmark and add figures of the model to its info."""
    parameters, macs = model.cost()
    info = benchmark.extra_info
    info |= {
        "parameters": parameters,
        "macs_per_second": macs,
        "state_bytes": model.state_bytes,
        "core_peak_flops": round(peak),
    }
    benchmark(call)
    if benchmark.stats is None:  # --benchmark-disable
        return
    stats = benchmark.stats.stats
    duration = model.spec.step_length / model.spec.sample_rate
    info["real_time_factor"] = round(stats.median / duration, 5)
    info["roofline_share"] = round(share(model, stats.median, peak), 4)
    info["p99_us"] = round(float(np.percentile(stats.data, 99)) * 1e6, 1)
    info["p99.9_us"] = round(float(np.percentile(stats.data, 99.9)) * 1e6, 1)
    print(
        f"\n{benchmark.name}: {stats.median * 1e6:.1f} µs, real-time factor "
        f"{info['real_time_factor']}, {info['roofline_share']:.1%} of the core's peak; "
        f"{parameters:,} parameters, {macs / 1e6:.1f} million MAC/s, {model.state_bytes:,} bytes "
        "of state"
    )


@pytest.mark.parametrize("name", NAMES)
def test_call(benchmark: BenchmarkFixture, peak: float, name: str) -> None:
    """Time the model alone."""
    step = make_step(bundle(name))
    step.mixture[:] = np.random.default_rng(0).standard_normal(step.mixture.shape)
    timed(benchmark, bundle(name), peak, step)


@pytest.mark.parametrize("name", NAMES)
def test_engine(benchmark: BenchmarkFixture, peak: float, name: str) -> None:
    """Time the engine with the model, from samples to stems."""
    spec = bundle(name).spec
    engine = Engine(make_step(bundle(name)), spec, spec.channels, spec.step_length)
    block = np.random.default_rng(0).uniform(-1, 1, (spec.step_length, spec.channels))
    samples = block.astype(np.float32)
    out = np.empty((spec.step_length, len(spec.sources), spec.channels), np.float32)
    timed(benchmark, bundle(name), peak, lambda: engine.process(samples, out))
