"""Time of a hop of the engine: one channel, one source, window 1024, hop 256, one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtsep.dsp import fft
from rtsep.runtime.engine import Engine
from rtsep.spec import Spec

WINDOW, HOP = 1024, 256


class PassThrough:
    """A model that copies the mixture."""

    def __init__(self, spec: Spec, streams: int = 1) -> None:
        outer, frame = (streams, spec.chunk), (spec.channels, *spec.frame_shape)
        self.mixture = np.zeros((*outer, *frame), np.float32)
        self.sources = np.zeros((*outer, len(spec.sources), *frame), np.float32)

    def __call__(self) -> None:
        """Copy the mixture to the first source."""
        np.copyto(self.sources[:, :, 0], self.mixture)

    def reset(self, stream: int | None = None) -> None:
        """Do nothing: there is no state."""


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("frontend", ["stft", "waveform"])
def test_hop(benchmark: Any, frontend: Any) -> None:
    spec = Spec(44100, 1, frontend, "hann", WINDOW, HOP, 1, 0, ("voice",))
    engine = Engine(PassThrough(spec), spec, block=HOP)
    block, out = noise(HOP, 1), np.empty((HOP, 1, 1), np.float32)
    benchmark.pedantic(
        engine.process, (block, out), rounds=20_000, iterations=10, warmup_rounds=1000
    )


@pytest.mark.parametrize("length", [256, 512, 1024, 2048])
def test_forward(benchmark: Any, length: int) -> None:
    plan, window, spectrum = fft.plan(length), noise(length), noise(length + 2)
    benchmark(fft.forward, noise(length), window, *plan, spectrum)


@pytest.mark.parametrize("length", [256, 512, 1024, 2048])
def test_inverse(benchmark: Any, length: int) -> None:
    benchmark(fft.inverse, noise(length + 2), *fft.plan(length))
