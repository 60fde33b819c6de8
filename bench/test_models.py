"""Time of a hop through whole models, on one core, with random weights.

python -m pytest bench --benchmark-only

`real_time_factor` in the extra info is the median over the hop's duration.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from rtsep import weights
from rtsep.bundle import Bundle
from rtsep.engine import Engine
from rtsep.models import build
from rtsep.nn.onnx import export
from rtsep.separator import Separator
from rtsep.spec import Spec

TEXTS = {"training": "none", "licence": "MIT", "quality": "none", "model": "chandna"}
STEMS = ("vocals", "drums", "bass", "other")


def music(hop: int, lookahead: int) -> Bundle:
    """Chandna et al. at 44.1 kHz with four stems, as in the paper."""
    spec = Spec(44100, 1, "stft", "hann", 1024, hop, 1, lookahead, STEMS)
    torch.manual_seed(0)
    return export(build("chandna", spec, {}), spec, {**TEXTS, "name": "chandna 44.1 kHz"})


def timed(benchmark: BenchmarkFixture, bundle: Bundle, call: object) -> None:
    """Run the benchmark and put the real-time factor beside it."""
    benchmark(call)
    if benchmark.stats is None:  # --benchmark-disable
        return
    duration = bundle.spec.step_length / bundle.spec.sample_rate
    stats = benchmark.stats.stats
    benchmark.extra_info["real_time_factor"] = round(stats.median / duration, 5)
    benchmark.extra_info["p99_us"] = round(float(np.percentile(stats.data, 99)) * 1e6, 1)
    benchmark.extra_info["p99.9_us"] = round(float(np.percentile(stats.data, 99.9)) * 1e6, 1)
    print(f"\n{benchmark.name}: real-time factor {benchmark.extra_info['real_time_factor']}")


@pytest.mark.parametrize(("hop", "lookahead"), [(256, 0), (512, 0), (256, 11)])
def test_chandna_music_step(benchmark: BenchmarkFixture, hop: int, lookahead: int) -> None:
    """The ONNX call alone."""
    bundle = music(hop, lookahead)
    step = Separator(bundle)
    step.mixture[:] = np.random.default_rng(0).standard_normal(step.mixture.shape)
    timed(benchmark, bundle, step)


def test_chandna_music_engine(benchmark: BenchmarkFixture) -> None:
    """Samples in, samples of four stems out."""
    bundle = music(256, 0)
    spec = bundle.spec
    engine = Engine(Separator(bundle), spec, 1, spec.hop_length)
    block = np.random.default_rng(0).uniform(-1, 1, (spec.hop_length, 1)).astype(np.float32)
    out = np.empty((spec.hop_length, len(spec.sources), 1), np.float32)
    timed(benchmark, bundle, lambda: engine.process(block, out))


@pytest.mark.parametrize("name", weights.names())
def test_shipped_engine(benchmark: BenchmarkFixture, name: str) -> None:
    """The shipped bundles, samples in, samples out."""
    bundle = weights.find(name)
    spec = bundle.spec
    engine = Engine(Separator(bundle), spec, spec.channels, spec.step_length)
    block = np.random.default_rng(0).uniform(-1, 1, (spec.step_length, spec.channels))
    out = np.empty((spec.step_length, len(spec.sources), spec.channels), np.float32)
    samples = block.astype(np.float32)
    timed(benchmark, bundle, lambda: engine.process(samples, out))
