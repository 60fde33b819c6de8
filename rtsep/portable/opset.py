"""Rewrite the nodes of a graph for opset 17, which every ONNX runtime has."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rtsep.errors import BundleError

OPSET = 17
IR_VERSION = 8
"""The version of the file format that came with `OPSET`."""


def lower(model: onnx.ModelProto) -> None:
    """Change the nodes of ``model`` in place to those of `OPSET`.

    Newer forms of an operation become its older form: axes of reductions become attributes, a
    number of equal parts becomes a list of sizes. Where only types were added, nothing changes.

    Raises
    ------
    BundleError
        An operation is newer than `OPSET`, from another domain, or has no such form.
    """
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OPSET:
        try:
            model.CopyFrom(onnx.version_converter.convert_version(model, OPSET))
        except Exception:  # the converter raises several unrelated types
            raise BundleError(f"its opset {opset} can't be converted to {OPSET}") from None
        return
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
    _Lowering(opset, shapes).graph(model.graph)
    _drop_unused(model.graph)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION


class _Lowering:
    """Rewrites nodes of one opset."""

    def __init__(self, opset: int, shapes: dict[str, list[int]]) -> None:
        self._opset, self._shapes = opset, shapes
        self._weights: dict[str, onnx.TensorProto] = {}

    def graph(self, graph: onnx.GraphProto) -> None:
        self._weights |= {tensor.name: tensor for tensor in graph.initializer}
        self._weights |= {
            node.output[0]: attribute.t
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        for node in graph.node:
            self.node(node, graph)
            for attribute in node.attribute:
                for subgraph in (attribute.g, *attribute.graphs):
                    if subgraph.node:
                        self.graph(subgraph)

    def node(self, node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        kind = node.op_type
        if node.domain not in ("", "ai.onnx"):
            raise BundleError(f"its operation {kind} is of the domain {node.domain!r}")
        try:
            new = onnx.defs.get_schema(kind, self._opset, "")
            old = onnx.defs.get_schema(kind, OPSET, "")
        except Exception:  # onnx raises a type of its own
            raise BundleError(f"its operation {kind} is not in opset {OPSET}") from None
        if new.since_version == old.since_version:
            return
        if kind.startswith("Reduce") and len(node.input) > 1 and "axes" in old.attributes:
            self._axes_to_attribute(node)
        elif kind == "Split" and _pop(node, "num_outputs") is not None and len(node.input) < 2:
            self._split_sizes(node, graph)
        elif kind == "Pad" and len(node.input) > 3 and node.input[3]:
            self._pads(node, graph)
        extra = [a.name for a in node.attribute if a.name not in old.attributes]
        if extra or len(node.input) > old.max_input:
            what = f"the attribute {extra[0]}" if extra else f"{len(node.input)} inputs"
            raise BundleError(f"its operation {kind} has {what}, which opset {OPSET} lacks")

    def _constant(self, node: onnx.NodeProto, place: int) -> list[int]:
        name = node.input[place]
        if name not in self._weights:
            raise BundleError(f"input {place} of its operation {node.op_type} is not constant")
        values: list[int] = numpy_helper.to_array(self._weights[name]).ravel().tolist()
        return values

    def _shape(self, node: onnx.NodeProto) -> list[int]:
        shape = self._shapes.get(node.input[0])
        if shape is None:
            raise BundleError(f"the shape of an input of its operation {node.op_type} is unknown")
        return shape

    def _axes_to_attribute(self, node: onnx.NodeProto) -> None:
        if node.input[1]:
            node.attribute.append(helper.make_attribute("axes", self._constant(node, 1)))
            _pop(node, "noop_with_empty_axes")
        del node.input[1]

    def _split_sizes(self, node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        size, parts = self._shape(node)[axis], len(node.output)
        each = -(-size // parts)
        sizes = [each] * (parts - 1) + [size - each * (parts - 1)]
        if not size or sizes[-1] < 1:
            raise BundleError(f"its operation Split has {parts} parts of unknown size")
        node.input.append(_add(graph, f"{node.output[0]}.sizes", sizes))

    def _pads(self, node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        """Pads of some axes become pads of all."""
        rank, axes, pads = (
            len(self._shape(node)),
            self._constant(node, 3),
            self._constant(node, 1),
        )
        full = np.zeros((2, rank), np.int64)
        full[:, axes] = np.array(pads).reshape(2, -1)
        node.input[1] = _add(graph, f"{node.output[0]}.pads", full.ravel().tolist())
        del node.input[3]


def _pop(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """Remove an attribute; return it, or None if there is none."""
    for place, attribute in enumerate(node.attribute):
        if attribute.name == name:
            del node.attribute[place]
            return attribute
    return None


def _add(graph: onnx.GraphProto, name: str, values: Iterable[int]) -> str:
    """Add a weight of integers; return its name."""
    graph.initializer.append(numpy_helper.from_array(np.array([*values], np.int64), name))
    return name


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove weights that no node reads: ONNX Runtime warns of each."""

    def read(graph: onnx.GraphProto) -> Iterable[str]:
        for node in graph.node:
            yield from node.input
            for attribute in node.attribute:
                for subgraph in (attribute.g, *attribute.graphs):
                    yield from read(subgraph)
        yield from (value.name for value in graph.output)

    used = set(read(graph))
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
