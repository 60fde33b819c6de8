"""Bundles to test with: one made by hand, one of the real architecture in miniature."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rtsep import controls
from rtsep.controls import ModelControl
from rtsep.errors import BundleError
from rtsep.runtime.bundle import Bundle, describe, load, parse
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec

Array = np.ndarray[Any, np.dtype[np.float32]]
Change = Callable[[onnx.ModelProto], object]

TEXTS = {
    "name": "tiny",
    "model": "made by hand",
    "training": "none",
    "licence": "MIT",
    "quality": "not measured",
    "version": "0",
}
SPEC = Spec(16000, 1, "waveform", "rectangular", 64, 64, 1, 1, ("speech", "noise"))
GAINS = np.array([0.75, 0.25], np.float32)


def handmade(spec: Spec = SPEC, gains: Array = GAINS, **texts: str) -> onnx.ModelProto:
    """The mixture one frame late, times gains: a state, a weight, three nodes."""
    frame = ["streams", spec.chunk, spec.channels, *spec.frame_shape]
    separated = ["streams", spec.chunk, len(spec.sources), *frame[2:]]
    state = frame

    def value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    scale = gains.reshape(-1, *[1] * (len(frame) - 2))
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["state.past", "axes"], ["late"]),
            helper.make_node("Mul", ["late", "gains"], ["sources"]),
            helper.make_node("Identity", ["mixture"], ["next_state.past"]),
        ],
        "handmade",
        [value("mixture", frame), value("state.past", state)],
        [value("sources", separated), value("next_state.past", state)],
        [numpy_helper.from_array(scale, "gains"), numpy_helper.from_array(np.array([2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for key, text in describe(spec, {**TEXTS, **texts}).items():
        model.metadata_props.add(key=key, value=text)
    return model


MIX = ModelControl("gains of the sources", (1.0, 0.0), labels=("speech", "noise"))


def controlled(spec: Spec = SPEC, **texts: str) -> onnx.ModelProto:
    """The mixture times the values of its control ``mix``, one for each source."""
    model = handmade(spec, controls=controls.describe({"mix": MIX}), **texts)
    graph = model.graph
    mix = helper.make_tensor_value_info("control.mix", TensorProto.FLOAT, ["streams", 2])
    graph.input.insert(1, mix)
    shape = np.array([-1, 1, 2, *[1] * (1 + len(spec.frame_shape))])
    graph.initializer.append(numpy_helper.from_array(shape, "shape"))
    graph.node.insert(0, helper.make_node("Reshape", ["control.mix", "shape"], ["mix"]))
    graph.node[2].input[1] = "mix"
    return model


def write(model: onnx.ModelProto | bytes, path: Path) -> Path:
    """Put a model into a file."""
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def bundle(spec: Spec = SPEC, gains: Array = GAINS, **texts: str) -> Bundle:
    """The handmade model as a bundle."""
    return parse(handmade(spec, gains, **texts).SerializeToString())


OPTIONS = {"window": 4, "vertical": 4, "horizontal": 3, "taps": 2, "bottleneck": 5}
CHANDNA = Spec(16000, 1, "stft", "hann", 64, 16, 1, 1, ("speech", "noise"))


@cache
def chandna_module() -> Any:
    """The real architecture, very small, with random weights."""
    import torch

    from rtsep.models import build

    torch.manual_seed(0)
    return build("chandna", CHANDNA, OPTIONS)


@cache
def chandna() -> tuple[Any, Bundle]:
    """The real architecture, very small: the module and its bundle. Takes seconds, once."""
    from rtsep.nn.onnx import export

    model = chandna_module()
    return model, export(model, CHANDNA, {**TEXTS, "model": "chandna"})


def refused(path: Path) -> str:
    """The one sentence with which a file is refused, by loading it or by opening it."""
    with pytest.raises(BundleError) as caught:
        make_step(load(path))
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    assert caught.value.__cause__ is None
    return sentence


def refused_after(tmp_path: Path, change: Change) -> str:
    """The same for the handmade model after a change."""
    model = handmade()
    change(model)
    return refused(write(model, tmp_path / "changed.onnx"))


class PassThrough:
    """A model whose n-th source is n times the mixture, ``lookahead`` frames late."""

    def __init__(self, spec: Spec, channels: int = 1) -> None:
        outer, frame = (spec.streams(channels), spec.chunk), (spec.channels, *spec.frame_shape)
        self.mixture = np.full((*outer, *frame), np.nan, np.float32)
        self.sources = np.full((*outer, len(spec.sources), *frame), np.nan, np.float32)
        self.past = np.zeros((outer[0], spec.lookahead + spec.chunk, *frame), np.float32)
        self.calls = self.resets = 0

    def __call__(self) -> None:
        chunk = self.mixture.shape[1]
        self.calls += 1
        self.past[:, :-chunk] = self.past[:, chunk:].copy()
        self.past[:, -chunk:] = self.mixture
        for source in range(self.sources.shape[2]):
            np.multiply(self.past[:, :chunk], source + 1, out=self.sources[:, :, source])

    def reset(self, stream: int | None = None) -> None:
        self.past[slice(None) if stream is None else stream] = 0.0
        self.resets += 1
