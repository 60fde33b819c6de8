"""Time of each kernel of the audio path: python -m pytest bench/test_kernels.py."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import pytest

from bench.test_engine import HOP, WINDOW, PassThrough, noise
from rtsep.dsp import overlap_add
from rtsep.dsp.polyphase import Polyphase
from rtsep.dsp.ring import Ring
from rtsep.runtime.engine import Engine
from rtsep.spec import Spec


@pytest.mark.parametrize("sources", [1, 4])
def test_hop_by_sources(benchmark: Any, sources: int) -> None:
    names = tuple(f"source{k}" for k in range(sources))
    spec = Spec(44100, 1, "stft", "hann", WINDOW, HOP, 1, 0, names)
    engine = Engine(PassThrough(spec), spec, block=HOP)
    benchmark(engine.process, noise(HOP, 1), np.empty((HOP, sources, 1), np.float32))


@pytest.mark.parametrize("way", ["analyse", "overlap_add"])
def test_frames(benchmark: Any, way: str) -> None:
    spec = Spec(44100, 1, "stft", "hann", WINDOW, HOP, 1, 0, ("voice",))
    buffers = overlap_add.make_buffers(spec, PassThrough(spec), 1, 0)
    block = noise(HOP, 1) if way == "analyse" else np.empty((HOP, 1, 1), np.float32)
    benchmark(getattr(overlap_add, way), buffers, block, 0, HOP)


def test_ring(benchmark: Any) -> None:
    ring, block, out = Ring(4 * HOP, 2), noise(HOP, 2), noise(HOP, 2)

    def through() -> None:
        ring.write(block)
        ring.read(out)

    benchmark(through)


@pytest.mark.parametrize("rates", [(48000, 16000), (44100, 48000)])
def test_polyphase(benchmark: Any, rates: tuple[int, int]) -> None:
    common = gcd(*rates)
    line = Polyphase(rates[1] // common, rates[0] // common, 0, 0, 1, 480)
    block, out = noise(480, 1), np.empty((960, 1), np.float32)

    def through() -> None:
        line.push(block)
        line.pull(out[: line.ready])

    benchmark(through)
