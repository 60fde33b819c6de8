"""Simplify a graph by others, once, so that it runs faster and only ONNX is needed."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from rtsep.errors import AdoptError
from rtsep.runtime.ort_step import CPU, reason


def simplified(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
    """Return the graph with folded constants, fewer products and only operations of ONNX.

    Parameters
    ----------
    model
        Changed; the sizes of its inputs are fixed.
    place
        Name of the file, for messages.

    Raises
    ------
    AdoptError
        ONNX Runtime rejects the graph.
    """
    _without_fused(model.graph)
    made = _folded(model, place)
    _join_products(made)
    return made


def _folded(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
    """Return the graph with folded constants."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory(prefix="rtsep-") as folder:
        path = Path(folder) / "graph.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=[CPU], enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime raises its own types, bare RuntimeError too
            raise AdoptError(f"{place}: ONNX Runtime rejects the graph: {reason(error)}") from None
        return onnx.load(path)


def _without_fused(graph: onnx.GraphProto) -> None:
    """Replace convolutions and products that an optimiser fused by those of ONNX.

    ``com.microsoft.FusedConv`` is a convolution with an activation, ``FusedMatMul`` a product with
    a factor and transposed sides; only ONNX Runtime has them.
    """
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:  # else reading one would create it
                _without_fused(attribute.g)
        made = None
        if node.domain == "com.microsoft" and node.op_type == "FusedConv":
            made = _convolution(node)
        elif node.domain == "com.microsoft" and node.op_type == "FusedMatMul":
            made = _matrix_product(node, graph)
        nodes += made or [node]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _convolution(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kind = attributes.pop("activation", b"").decode()
    numbers = attributes.pop("activation_params", [])
    more = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}.get(kind, ())
    plain = kind in ("Relu", "Sigmoid", "Tanh", *more) or len(more) == len(numbers) > 0
    if not plain or len(node.input) > 3:
        return None
    between = f"{node.output[0]} before {kind}"
    return [
        helper.make_node("Conv", node.input, [between], **attributes),
        helper.make_node(kind, [between], node.output, **dict(zip(more, numbers, strict=True))),
    ]


def _matrix_product(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto] | None:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    factor = attributes.pop("alpha", 1.0)
    if any(attributes.values()) or not math.isfinite(factor):
        return None
    between, number = f"{node.output[0]} before its factor", f"factor of {node.output[0]}"
    graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), number))
    return [
        helper.make_node("MatMul", node.input, [between]),
        helper.make_node("Mul", [between, number], node.output),
    ]


def _join_products(model: onnx.ModelProto) -> None:
    """Replace many products of a vector by one.

    A vector times each matrix of a constant (count, inputs, outputs), and a sum over both leading
    axes (``fi,fij->j``), are written by exporters of transforms. One product with the same numbers
    takes a tenth of the time.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input)
        if value.type.tensor_type.HasField("shape")
    }
    made: dict[str, np.ndarray[Any, Any]] = {}

    def constant(name: str, values: np.ndarray[Any, Any]) -> str:
        made[name] = np.ascontiguousarray(values)
        return name

    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        right = node.input[1] if len(node.input) == 2 else ""
        name = node.output[0] if node.output else ""
        if right not in weights or len(weights[right].dims) != 3:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(weights[right])
        first, second, third = values.shape
        equation = next((a.s.decode() for a in node.attribute if a.name == "equation"), "")
        if node.op_type == "MatMul" and ranks.get(node.input[0]) == 1:
            row, matrix, shape = [1, second], values.swapaxes(0, 1), [first, third]
            wide = matrix.reshape(second, first * third)
        elif node.op_type == "Einsum" and equation.replace(" ", "") == "fi,fij->j":
            row, wide, shape = [1, first * second], values.reshape(-1, third), [third]
        else:
            nodes.append(node)
            continue
        given = constant(f"{name} row", np.array(row, np.int64))
        matrix_name = constant(f"{name} matrix", wide)
        back = constant(f"{name} shape", np.array(shape, np.int64))
        nodes += [
            helper.make_node("Reshape", [node.input[0], given], [f"{name} in a row"]),
            helper.make_node("MatMul", [f"{name} in a row", matrix_name], [f"{name} flat"]),
            helper.make_node("Reshape", [f"{name} flat", back], [name]),
        ]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    used = {name for node in copies for name in node.input}
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in model.graph.initializer]
    del model.graph.initializer[:]
    model.graph.initializer.extend(t for t in kept if t.name in used or _has_graphs(copies))
    model.graph.initializer.extend(
        numpy_helper.from_array(values, name) for name, values in made.items()
    )


def _has_graphs(nodes: list[onnx.NodeProto]) -> bool:
    """Return whether a node has a graph inside, which may read any value."""
    return any(a.type == onnx.AttributeProto.GRAPH for node in nodes for a in node.attribute)
