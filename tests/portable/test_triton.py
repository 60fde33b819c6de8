"""The model repository, read by Triton's own protobuf and run as its sequence batcher would."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from rtsep.portable.check import run
from rtsep.portable.graph import build
from rtsep.portable.triton import plain_name
from tests.support import models
from tests.support.audio import uniform
from tests.support.command import rtsep


def model_config() -> ModuleType:
    """Triton's ``model_config_pb2`` alone: its package would import gRPC."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("tritonclient is not installed")
    path = Path(found.submodule_search_locations[0]) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.write(models.handmade(models.CHANDNA, name="my model"), tmp_path / "b.onnx")
    done = rtsep("portable", tmp_path / "b.onnx", "--triton", tmp_path / "models")
    assert done.exit_code == 0 and not done.stderr, done.output
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["my-model"]
    return tmp_path / "models/my-model"


def parsed(repository: Path) -> Any:
    from google.protobuf import text_format

    return text_format.Parse(
        (repository / "config.pbtxt").read_text(), model_config().ModelConfig()
    )


def test_triton_reads_the_configuration_of_this_graph(repository: Path) -> None:
    found = parsed(repository)
    assert found.name == repository.name and found.backend == "onnxruntime"
    session = onnxruntime.InferenceSession(repository / "1/model.onnx")
    shapes = {v.name: v.shape for v in (*session.get_inputs(), *session.get_outputs())}
    (state,) = found.sequence_batching.state
    declared = {v.name: [*v.dims] for v in (*found.input, *found.output)}
    declared |= {state.input_name: [*state.dims], state.output_name: [*state.dims]}
    assert {name: shape[1:] for name, shape in shapes.items()} == declared
    assert found.max_batch_size > 1 and all(isinstance(s[0], str) for s in shapes.values())
    (initial,) = state.initial_state
    assert initial.zero_data and [*initial.dims] == [*state.dims]
    assert initial.data_type == state.data_type == model_config().TYPE_FP32
    assert found.parameters["sources"].string_value == "speech,noise"


def test_sequences_in_one_batch_equal_the_engine(repository: Path) -> None:
    """Three streams that start at different times, batched as they come."""
    found = parsed(repository)
    (state,) = found.sequence_batching.state
    session = onnxruntime.InferenceSession(repository / "1/model.onnx")
    block, (count, starts) = found.input[0].dims[1], (12, (0, 3, 5))
    sounds = [uniform(count * block, 1, seed=seed) for seed in range(3)]
    kept: dict[int, Any] = {}
    outputs: list[list[Any]] = [[], [], []]
    for turn in range(count):
        live = [stream for stream in range(3) if turn >= starts[stream]]
        for stream in live:
            kept.setdefault(stream, np.zeros(state.dims, np.float32))
        rows = [sounds[s][(turn - starts[s]) * block :][:block].T for s in live]
        given = {"mixture": np.stack(rows), state.input_name: np.stack([kept[s] for s in live])}
        sources, following = session.run(["sources", state.output_name], given)
        for row, stream in enumerate(live):
            kept[stream] = following[row]
            outputs[stream].append(sources[row])
    portable = build(models.bundle(models.CHANDNA))
    for stream in range(3):
        stems = np.concatenate(outputs[stream], axis=2).transpose(2, 0, 1)
        np.testing.assert_allclose(stems, run(portable, sounds[stream])[: len(stems)], atol=1e-6)


def test_names_are_those_of_folders() -> None:
    assert plain_name("me + fan") == "me-fan" and plain_name("../..") == "rtsep"
    assert plain_name("speech") == "speech"
