"""Write an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 10


class Writer:
    """Collects nodes, weights, inputs and outputs; values are referred to by name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._included: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def __call__(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output; return its name."""
        output = name or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def number(self, value: ArrayLike) -> str:
        """Add a float32 weight, or reuse an equal one; return its name."""
        return self._weight(np.ascontiguousarray(value, np.float32))

    def integers(self, *values: int) -> str:
        """Add a list of integers, for shapes and axes; return its name."""
        return self._weight(np.array(values, np.int64))

    def indices(self, values: ArrayLike) -> str:
        """Add an array of integers; return its name."""
        return self._weight(np.ascontiguousarray(values, np.int64))

    def _weight(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._weights:
            self._weights[key] = numpy_helper.from_array(array, f"w{len(self._weights)}")
        return self._weights[key].name

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Add an input of ``shape`` per stream; return its name."""
        self._inputs.append(_value(name, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int]) -> None:
        """Declare a value as output ``name`` of ``shape`` per stream."""
        self("Identity", value, name=name)
        self._outputs.append(_value(name, shape))

    def include(self, graph: onnx.GraphProto) -> None:
        """Add nodes and weights of another graph, whose names must differ from ``v0``, ``w0``."""
        self._nodes.extend(graph.node)
        self._included.extend(graph.initializer)

    def model(self, name: str, opset: int = OPSET, ir_version: int = IR_VERSION) -> onnx.ModelProto:
        """Return the graph as an ONNX model."""
        weights = [*self._weights.values(), *self._included]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, weights)
        imports = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def _value(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["streams", *shape])
