"""Replace a scan over streams by one copy of its body per stream.

A graph made for one stream becomes a bundle by a ``Scan`` over the axis of streams (see
`rtsep.adopt`). For few streams, copies of its body are faster, and the tape can run them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def unrolled(model: onnx.ModelProto, streams: int) -> onnx.ModelProto:
    """Return the model for a fixed number of streams, without its scan.

    Parameters
    ----------
    model
        Not changed. If its graph is not one ``Scan`` that reads all inputs along their first axis
        and writes all outputs, it is returned as it is.
    streams
        Copies of the body.
    """
    body = body_of(model)
    if body is None:
        return model
    scan = model.graph.node[0]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    shapes = {value.name: _fixed(value) for value in (*model.graph.input, *model.graph.output)}
    parts: dict[str, list[str]] = {name: [] for name in scan.output}
    for stream in range(streams):
        names: dict[str, str] = {
            name: f"{name}@{stream}"
            for name in (
                *(value.name for value in body.input),
                *(name for node in body.node for name in node.output if name),
            )
        }
        index = _constant(result, f"index@{stream}", np.array(stream, np.int64))
        for outer, inner in zip(scan.input, body.input, strict=True):
            if streams == 1:
                shape = _constant(result, f"{inner.name} shape", np.array(shapes[outer], np.int64))
                node = helper.make_node("Reshape", [outer, shape], [names[inner.name]])
            else:
                node = helper.make_node("Gather", [outer, index], [names[inner.name]], axis=0)
            result.graph.node.append(node)
        for tensor in body.initializer:
            names[tensor.name] = f"{tensor.name}@{stream}"
            copy = result.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name]
        for node in body.node:
            result.graph.node.append(renamed(node, names))
        for outer, inner in zip(scan.output, body.output, strict=True):
            whole = outer if streams == 1 else f"{outer}@{stream} of one stream"
            shape = _constant(
                result, f"{outer} shape@{stream}", np.array((1, *shapes[outer]), np.int64)
            )
            made = names.get(inner.name, inner.name)
            result.graph.node.append(helper.make_node("Reshape", [made, shape], [whole]))
            parts[outer].append(whole)
    if streams > 1:
        for outer, pieces in parts.items():
            result.graph.node.append(helper.make_node("Concat", pieces, [outer], axis=0))
    return result


def body_of(model: onnx.ModelProto) -> onnx.GraphProto | None:
    """Return the body of a graph that is one scan over all streams; else None."""
    graph = model.graph
    if len(graph.node) != 1 or graph.node[0].op_type != "Scan" or graph.node[0].domain:
        return None
    scan = graph.node[0]
    attributes = {a.name: helper.get_attribute_value(a) for a in scan.attribute}
    body = attributes.pop("body", None)
    count = attributes.pop("num_scan_inputs", None)
    names = [[value.name for value in values] for values in (graph.input, graph.output)]
    plain = (
        not attributes
        and isinstance(body, onnx.GraphProto)
        and [*scan.input] == names[0]
        and [*scan.output] == names[1]
        and count == len(names[0]) == len(body.input)
        and len(body.output) == len(names[1])
    )
    return body if plain else None


def renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """Return a copy of a node, and of the graphs inside, with other names of values."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    _rename(result, names)
    return result


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename(inner, names)
            for value in attribute.g.output:
                value.name = names.get(value.name, value.name)


def _fixed(value: onnx.ValueInfoProto) -> list[int]:
    """Return the sizes after the axis of streams."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]


def _constant(model: onnx.ModelProto, name: str, values: NDArray[np.int64]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name
