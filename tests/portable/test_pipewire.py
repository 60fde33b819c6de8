"""The filter chain for PipeWire, run as the code of its node does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from rtsep.portable.check import run
from rtsep.portable.graph import build
from rtsep.portable.pipewire import cycle
from tests.support import models
from tests.support.audio import uniform
from tests.support.command import rtsep


@pytest.fixture
def written(tmp_path: Path) -> Path:
    models.write(models.handmade(models.CHANDNA), tmp_path / "b.onnx")
    done = rtsep("portable", tmp_path / "b.onnx", "--pipewire", tmp_path / "out")
    assert done.exit_code == 0 and not done.stderr, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["tiny.conf", "tiny.onnx"]
    return tmp_path / "out/tiny.conf"


def test_names_and_sizes_are_those_of_the_graph(written: Path) -> None:
    text = written.read_text()
    path = re.findall(r'filename = "(.+)"', text)[0]
    assert path == str(written.with_suffix(".onnx"))
    session = onnxruntime.InferenceSession(path)
    shapes = {v.name: v.shape for v in (*session.get_inputs(), *session.get_outputs())}
    tensors = re.findall(
        r'"(\w+)" = \{\s*dimensions = \[ ([\d, ]+) \]\s*(?:data = "(.*)")?\s*\}', text
    )
    assert {name: data for name, _, data in tensors} == {
        "mixture": "port:mixture",
        "state": "tensor:next_state",
        "speech": "port:speech",
        "next_state": "",
    }
    for name, sizes, _ in tensors:
        assert [int(size) for size in sizes.split(",")] == shapes[name]
    assert "blocksize = 16" in text and "audio.rate = 16000" in text
    assert "node.force-rate = 48000" in text and "node.force-quantum = 48" in text
    assert 'outputs = [ "rtsep:speech" ]' in text
    plain = re.sub(r"#.*", "", text)
    assert all(plain.count(a) == plain.count(b) for a, b in ("{}", "[]"))


def test_it_begins_with_memory_as_it_is(written: Path) -> None:
    """The node copies next_state to state before each run, and clears neither at the start."""
    session = onnxruntime.InferenceSession(written.with_suffix(".onnx"))
    mixture, size = uniform(16 * 12, 1), session.get_inputs()[1].shape
    expected = run(build(models.bundle(models.CHANDNA)), mixture)
    rng = np.random.default_rng(0)
    for state in (
        np.zeros(size, np.float32),
        np.full(size, np.nan, np.float32),
        rng.uniform(-1e9, 1e9, size).astype(np.float32),
    ):
        parts = []
        for start in range(0, len(mixture), 16):
            given = {"mixture": mixture[start : start + 16].T[None], "state": state}
            speech, state = session.run(["speech", "next_state"], given)
            parts.append(speech[0, 0])
        np.testing.assert_allclose(np.concatenate(parts), expected[:, 0, 0], atol=1e-6)


def test_a_cycle_is_a_block() -> None:
    assert cycle(16000, 128) == (48000, 384)
    assert cycle(44100, 256) == (44100, 256)
    assert cycle(8000, 64) == (48000, 384)
