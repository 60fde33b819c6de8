"""A few lines to write an ONNX graph by hand."""

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
    """Collects nodes, weights, inputs and outputs; every value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def __call__(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output; return its name."""
        output = name or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def number(self, value: ArrayLike) -> str:
        """Add a weight, float32; equal ones are one."""
        return self._weight(np.ascontiguousarray(value, np.float32))

    def integers(self, *values: int) -> str:
        """Add a list of whole numbers, for shapes and axes."""
        return self._weight(np.array(values, np.int64))

    def indices(self, values: ArrayLike) -> str:
        """Add an array of whole numbers."""
        return self._weight(np.ascontiguousarray(values, np.int64))

    def _weight(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._weights:
            self._weights[key] = numpy_helper.from_array(array, f"w{len(self._weights)}")
        return self._weights[key].name

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Add an input of one stream's ``shape``."""
        self._inputs.append(_value(name, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int]) -> None:
        """Make a value an output of one stream's ``shape``."""
        self("Identity", value, name=name)
        self._outputs.append(_value(name, shape))

    def model(self, name: str) -> onnx.ModelProto:
        """Everything as a model."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, [*self._weights.values()]
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def _value(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["streams", *shape])
