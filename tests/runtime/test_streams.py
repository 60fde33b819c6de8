"""Two streams in one process give what two processes give, to the last bit."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from rtsep import weights
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Step

ALONE = """
import sys
import numpy as np
from rtsep import weights
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step

for folder in sys.argv[2:]:
    bundle = weights.find(folder.rpartition("/")[2])
    engine = Engine(make_step(bundle), bundle.spec)
    blocks = np.split(np.load(f"{folder}/in{sys.argv[1]}.npy"), 40)
    out = np.concatenate([engine.process(np.ascontiguousarray(b)) for b in blocks])
    np.save(f"{folder}/out{sys.argv[1]}.npy", out)
"""
"""One stream of each model, in a process of its own."""


MODELS = ("chandna-speech", "convtasnet-speakers", "dilated-speakers", "speech")
find = cache(weights.find)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each model, with two inputs and what each became in a process without others."""
    folder = tmp_path_factory.mktemp("alone")
    for name in MODELS:
        (folder / name).mkdir()
        for i, samples in enumerate(np.random.default_rng(0).standard_normal((2, 4000, 1))):
            np.save(folder / name / f"in{i}.npy", samples.astype(np.float32))
    folders = [str(folder / name) for name in MODELS]
    for i in ("0", "1"):
        subprocess.run([sys.executable, "-c", ALONE, i, *folders], check=True)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_interleaved_streams_are_as_if_alone(alone: Path, name: str) -> None:
    bundle = find(name)
    inputs, expected_outputs = (
        [np.load(alone / name / f"{kind}{i}.npy") for i in range(2)] for kind in ("in", "out")
    )
    engines = [Engine(make_step(bundle), bundle.spec) for _ in range(2)]
    parts: list[list[np.ndarray]] = [[], []]
    for blocks in zip(*(np.split(samples, 40) for samples in inputs), strict=True):
        for engine, part, block in zip(engines, parts, blocks, strict=True):
            part.append(engine.process(np.ascontiguousarray(block)))
    for part, expected in zip(parts, expected_outputs, strict=True):
        together = np.concatenate(part)
        assert np.any(together) and np.array_equal(together, expected)


@pytest.mark.parametrize("name", MODELS)
def test_streams_join_and_leave_unnoticed(name: str) -> None:
    bundle = find(name)
    spec = bundle.spec
    samples = np.random.default_rng(1).standard_normal((3000, 3)).astype(np.float32)
    joined = 1037  # within a chunk
    together = Engine(make_step(bundle, streams=3), spec, 3)
    parts = [together.process(samples[:joined].copy())]
    together.reset(1)
    parts.append(together.process(samples[joined:].copy()))
    out = np.concatenate(parts)
    for channel in (0, 2):
        alone = Engine(make_step(bundle), spec).process(samples[:, [channel]].copy())
        np.testing.assert_allclose(out[:, :, [channel]], alone, atol=1e-4)
    new = Engine(make_step(bundle), spec)
    new.process(np.zeros((joined % spec.step_length, 1), np.float32))
    alone = new.process(samples[joined:, [1]].copy())
    assert np.abs(alone).max() > 0.1
    np.testing.assert_allclose(out[joined:, :, [1]], alone, atol=1e-4)


class Poisoned:
    """A model that gives its second stream NaN, once."""

    def __init__(self, step: Step) -> None:
        self._step, self.waits = step, False
        self.mixture, self.sources, self.reset = step.mixture, step.sources, step.reset

    def __call__(self) -> None:
        self._step()
        if self.waits:
            self.sources[1] = np.nan
        self.waits = False


@pytest.mark.parametrize("name", MODELS)
def test_a_poisoned_stream_is_alone(name: str) -> None:
    bundle = find(name)
    spec = bundle.spec
    samples = np.random.default_rng(2).standard_normal((2000, 2)).astype(np.float32)
    step = Poisoned(make_step(bundle, streams=2))
    together = Engine(step, spec, 2)
    parts = [together.process(samples[:1000].copy())]
    step.waits = True
    parts.append(together.process(samples[1000:].copy()))
    out = np.concatenate(parts)
    assert np.isfinite(out).all()
    assert together.nonfinite_out == spec.chunk
    whole = Engine(make_step(bundle, streams=2), spec, 2).process(samples)
    np.testing.assert_array_equal(out[:, :, 0], whole[:, :, 0])
    assert not np.array_equal(out[:, :, 1], whole[:, :, 1])
