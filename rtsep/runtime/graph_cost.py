"""Count the weights of a graph and the multiply-accumulates of one call."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from rtsep.runtime.unroll import unrolled

_FEW = 16  # numbers
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def weights(model: onnx.ModelProto) -> int:
    """Count the weights, without single numbers such as an epsilon or an exponent."""
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.dims and tensor.data_type in FLOATS
    )


def drop_weights(model: onnx.ModelProto) -> None:
    """Replace weights by inputs of the same shape, for shape inference.

    Shape inference copies the whole model several times.
    """
    graph = model.graph
    kept = []
    for tensor in graph.initializer:
        if tensor.data_type in FLOATS and math.prod(tensor.dims) > _FEW:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(value)
        else:
            kept.append(tensor)
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def guard_slices(graph: onnx.GraphProto) -> None:
    """Insert an operation before each Slice that hides shapes with negative sizes.

    Operations with invalid attributes can have such shapes, and the shape inference of Slice then
    aborts the process by a failed assertion (ONNX 1.23 for Linux).
    """
    made = {output: node.op_type for node in graph.node for output in node.output}
    nodes = []
    for number, node in enumerate(graph.node):
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                guard_slices(inner)
        data = node.input[0] if node.input else ""
        if node.op_type == "Slice" and made.get(data) != "Shape":
            shape, zeros, seen, same = (f"{data} of slice {number}, {k}" for k in range(4))
            nodes.append(onnx.helper.make_node("Shape", [data], [shape]))
            nodes.append(onnx.helper.make_node("ConstantOfShape", [shape], [zeros]))
            nodes.append(onnx.helper.make_node("Shape", [zeros], [seen]))
            nodes.append(onnx.helper.make_node("Reshape", [data, seen], [same]))
            node.input[0] = same
        nodes.append(node)
    if len(nodes) > len(graph.node):
        guarded = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(guarded)


def multiply_accumulates(model: onnx.ModelProto) -> tuple[int, int]:
    """Count the multiply-accumulates of products, convolutions and GRUs, for one stream.

    May change ``model``: free sizes become 1, and weights become inputs.

    Returns
    -------
    tuple of int
        Those of one call, and those on weights alone, which run once when the graph is loaded.
    """
    model = unrolled(model, 1)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[0].Clear()
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    sizes: dict[str, list[int]] = {t.name: list(t.dims) for t in model.graph.initializer}
    drop_weights(model)
    guard_slices(model.graph)
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    total = [0, 0]
    for node in graph.node:
        once = constant.issuperset(node.input)
        if once:
            constant.update(node.output)
        left = sizes.get(node.input[0], []) if node.input else []
        out = math.prod(sizes.get(node.output[0], [0]))
        if node.op_type == "MatMul" and left:
            total[once] += out * left[-1]
        elif node.op_type == "Gemm" and left:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total[once] += out * left[0 if transposed else -1]
        elif node.op_type in ("Conv", "ConvTranspose"):
            kernel = sizes.get(node.input[1], [0])
            count = out if node.op_type == "Conv" else math.prod(left)
            total[once] += count * math.prod(kernel[1:])
        elif node.op_type in ("GRU", "LSTM", "RNN") and len(left) == 3:
            weights = math.prod(sizes.get(node.input[1], [0]))
            weights += math.prod(sizes.get(node.input[2], [0]))
            total[once] += left[0] * left[1] * weights
    return total[0], total[1]
