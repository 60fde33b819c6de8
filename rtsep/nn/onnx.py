"""Export a module as a bundle with explicit state, and check that both agree."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rtsep.controls import PREFIX, ModelControl
from rtsep.controls import describe as describe_controls
from rtsep.errors import ContractError
from rtsep.files.atomic import replacing
from rtsep.nn.checks import check_contract
from rtsep.nn.streaming import (
    Bound,
    Controlled,
    Enrolling,
    Line,
    Streaming,
    flatten,
    random_controls,
    reads,
    unflatten,
)
from rtsep.runtime.bundle import Bundle, describe, parse
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec
from rtsep.version import __version__

OPSET = 18


PACKED = "state.packed"
"""Name of the state that contains all small states, because each input of a graph costs time."""
FEW = 4
"""Up to this number, small states remain separate inputs."""
LONGEST_LINE = 512
"""Longest delay in calls of a `Line`; states with longer delays are plain inputs."""


@dataclass(frozen=True)
class _Layout:
    """The inputs and outputs of the graph for a model's states, chosen for speed.

    Attributes
    ----------
    shapes
        Shapes of one stream's states, by name.
    lines
        States that are only read at delays, with the delays in calls, see
        :class:`rtsep.nn.streaming.Line`.
    packed
        States that are part of `PACKED`.
    inputs
        Shapes of the graph's state inputs, for one stream.
    outputs
        Names of the graph's state outputs.
    """

    shapes: dict[str, tuple[int, ...]]
    lines: dict[str, tuple[int, ...]]
    packed: tuple[str, ...]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: Streaming, spec: Spec) -> _Layout:
        """Make the layout for calls of one chunk."""
        chunk = spec.chunk
        seen = reads(model, torch.zeros(1, chunk, spec.channels, *spec.frame_shape))
        shapes = {k: tuple(v.shape[1:]) for k, v in flatten(model.initial_state(1)).items()}
        lines = {}
        for name, delays in seen.items():
            calls = sorted(set().union(*(Line.needs(delay, chunk) for delay in delays)))
            if calls[-1] <= LONGEST_LINE:
                lines[name] = tuple(calls)
        plain = [name for name in shapes if name not in lines]
        packed = tuple(plain) if len(plain) > FEW else ()
        inputs: dict[str, tuple[int, ...]] = {}
        for name, shape in shapes.items():
            if name in lines:
                inputs |= {f"{name}@{k}": (chunk, *shape[1:]) for k in lines[name]}
            elif name not in packed:
                inputs[name] = shape
        if packed:
            inputs[PACKED] = (sum(math.prod(shapes[name]) for name in packed),)
        outputs = [name for name in shapes if name not in packed]
        return cls(shapes, lines, packed, inputs, (*outputs, PACKED) if packed else tuple(outputs))

    def unpack(self, given: Mapping[str, Tensor]) -> dict[str, Tensor | Line]:
        """Return the model's states from the graph's inputs."""
        leaves: dict[str, Tensor | Line] = {}
        for name in self.shapes:
            if name in self.lines:
                leaves[name] = Line({k: given[f"{name}@{k}"] for k in self.lines[name]})
            elif name in given:
                leaves[name] = given[name]
        if self.packed:
            sizes = [math.prod(self.shapes[name]) for name in self.packed]
            for name, part in zip(self.packed, given[PACKED].split(sizes, 1), strict=True):
                leaves[name] = part.unflatten(1, self.shapes[name])
        return leaves

    def pack(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the graph's outputs from the model's states."""
        given = dict(leaves)
        if self.packed:
            given[PACKED] = torch.cat([leaves[name].flatten(1) for name in self.packed], 1)
        return {name: given[name] for name in self.outputs}


class _Graph(nn.Module):
    """One call of a model with controls and states as separate arguments, for the exporter."""

    def __init__(self, model: Streaming, layout: _Layout) -> None:
        super().__init__()
        self.model = model
        self.layout = layout

    def forward(self, mixture: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        controls = _controls(self.model)
        set_, states = inputs[: len(controls)], inputs[len(controls) :]
        control = [dict(zip(controls, set_, strict=True))] if controls else []
        leaves = self.layout.unpack(dict(zip(self.layout.inputs, states, strict=True)))
        sources, following = self.model(mixture, unflatten(leaves), *control)
        return (sources, *self.layout.pack(flatten(following)).values())


def export(model: Streaming, spec: Spec, texts: Mapping[str, str]) -> Bundle:
    """Turn a model into a checked bundle.

    Parameters
    ----------
    model
        A module that obeys the contract for the frames of ``spec``.
    spec
        Spec of the bundle.
    texts
        The texts of :data:`rtsep.runtime.bundle.KEYS`: name, model, training, licence,
        quality.

    Raises
    ------
    ContractError
        The model breaks the contract, or the graph does not equal the module.
    BundleError
        The graph can't be run as a bundle.
    """
    model = model.eval()
    shape = (spec.channels, *spec.frame_shape)
    check_contract(model, shape, spec.lookahead)
    if controls := _controls(model):
        texts = {**texts, "controls": describe_controls(controls)}
    if isinstance(model, Enrolling):
        texts = {**texts, "enroller": _enroller(model, spec)}
    proto = _graph(model, spec)
    for key, value in describe(spec, {**texts, "version": __version__}).items():
        proto.metadata_props.add(key=key, value=value)
    bundle = parse(proto.SerializeToString())
    check_parity(model, bundle)
    return bundle


def write(bundle: Bundle, path: Path) -> None:
    """Write the file of a bundle, atomically."""
    with replacing(path) as part:
        part.write_bytes(bundle.graph)


@torch.no_grad()
def check_parity(model: Streaming, bundle: Bundle, tolerance: float = 1e-5) -> float:
    """Check that bundle and module agree, on silence, noise and full scale, for any controls.

    Returns
    -------
    float
        Largest difference, relative to the largest value of each output.
    """
    spec = bundle.spec
    shape = (2, 40 * spec.chunk, spec.channels, *spec.frame_shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    loud = spec.window_length**0.5 if spec.frontend == "stft" else 1.0  # of full-scale noise
    step = make_step(bundle, streams=2)
    if isinstance(model, Controlled):
        control = random_controls(model, streams=2)
        model = Bound(model, control)
        for name, values in control.items():
            step.controls[name][:] = values.numpy()
    worst = 0.0
    for name, x in {
        "silence": torch.zeros_like(noise),
        "noise": noise,
        "full scale": loud * torch.sign(noise),
    }.items():
        offline, _ = model(x, model.initial_state(2))
        step.reset()
        parts = []
        for chunk in x.numpy().reshape(2, -1, spec.chunk, *shape[2:]).swapaxes(0, 1):
            step.mixture[:] = chunk
            step()
            parts.append(step.sources.copy())
        live = np.concatenate(parts, axis=1)
        scale = max(float(offline.abs().max()), 1e-6)
        difference = float(np.max(np.abs(live - offline.numpy()))) / scale
        if not difference <= tolerance:
            raise ContractError(
                f"the ONNX graph differs from the module by {difference:.1e} ({name})"
            )
        worst = max(worst, difference)
    return worst


def _enroller(model: Enrolling, spec: Spec) -> str:
    """Return the network that makes a control from a recording, for the metadata of a bundle."""
    proto = _exported(
        model.enroller,
        (torch.randn(1, 100, spec.channels, *spec.frame_shape),),
        input_names=["frames"],
        output_names=[PREFIX + model.enrolled],
        dynamic_shapes=({1: torch.export.Dim("frames", min=16)},),
    )
    for node in proto.graph.node:
        del node.metadata_props[:]
    return base64.b64encode(proto.SerializeToString()).decode()


def _controls(model: nn.Module) -> Mapping[str, ModelControl]:
    return model.controls if isinstance(model, Controlled) else {}


def _graph(model: Streaming, spec: Spec) -> onnx.ModelProto:
    layout = _Layout.of(model, spec)
    # Two streams, because the exporter takes a size of 1 for a constant.
    mixture = torch.randn(2, spec.chunk, spec.channels, *spec.frame_shape)
    controls = _controls(model)
    inputs = [torch.zeros(2, len(control.default)) for control in controls.values()]
    inputs += [torch.zeros(2, *shape) for shape in layout.inputs.values()]
    streams = {0: torch.export.Dim.DYNAMIC}
    proto = _exported(
        _Graph(model, layout),
        (mixture, *inputs),
        input_names=["mixture", *(PREFIX + name for name in controls), *layout.inputs],
        output_names=["sources", *(f"next_{name}" for name in layout.outputs)],
        dynamic_shapes=(streams, tuple(streams for _ in inputs)),
    )
    _clean(proto)
    return proto


def _exported(module: nn.Module, inputs: tuple[Tensor, ...], **options: Any) -> onnx.ModelProto:
    """Trace a module, without the exporter's own messages."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            inputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
            **options,
        )
    assert program is not None
    return program.model_proto


def _clean(proto: onnx.ModelProto) -> None:
    """Name the free axis ``streams``, and remove the exporter's references to source lines."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "streams"
        del value.metadata_props[:]
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        _name_leaky_relu(node, weights)
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    for tensor in proto.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def _name_leaky_relu(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> None:
    """Replace a PRelu of one slope by LeakyRelu, which ONNX Runtime fuses with products."""
    if node.op_type == "PRelu" and node.input[1] in weights:
        slope = onnx.numpy_helper.to_array(weights[node.input[1]])
        if slope.size == 1:
            node.op_type = "LeakyRelu"
            node.attribute.append(onnx.helper.make_attribute("alpha", slope.item()))
            del node.input[1]
