"""Write the graph of one stream: graphs by others with operations before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from rtsep.adopt.network import Network
from rtsep.errors import AdoptError
from rtsep.runtime.unroll import renamed
from rtsep.spec import Spec


class Body:
    """Collects the nodes and weights of one stream's graph; values are referred to by name.

    Only operations are added that every version of ONNX since opset 7 writes alike.

    Parameters
    ----------
    spec
        Spec of the bundle.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.opsets: dict[str, int] = {}
        self.ir_version = 0
        self.states: dict[str, tuple[tuple[int, ...], str]] = {}
        """Shape and next value of each state, by name."""
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._count = 0
        self.mixture = self._input("mixture", (1, 1, *spec.frame_shape))
        """The mixture's frame, (1, 1, *frame_shape)."""

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return its name."""
        output = self._new()
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def number(self, values: ArrayLike) -> str:
        """Add a float32 weight; return its name."""
        return self._weight(np.ascontiguousarray(values, np.float32))

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Return a value with another shape."""
        return self("Reshape", value, self._weight(np.array(shape, np.int64)))

    def pick(self, value: str, indices: ArrayLike, axis: int) -> str:
        """Return the values at some indices of an axis."""
        where = self._weight(np.ascontiguousarray(indices, np.int64))
        return self("Gather", value, where, axis=axis)

    def state(self, name: str, shape: tuple[int, ...], calls: int = 1) -> str:
        """Add an input with the value that a state had some calls ago; return its name."""
        full = f"state.{name}" if calls == 1 else f"state.{name}@{calls}"
        if f"state.{name}" in self.states:
            raise AdoptError(f"two caches have the name {name!r}")
        self.states[f"state.{name}"] = shape, ""
        return self._input(full, shape)

    def keep(self, name: str, value: str) -> None:
        """Say which value a state has next."""
        shape, _ = self.states[f"state.{name}"]
        self.states[f"state.{name}"] = shape, self.reshape(value, shape)

    def graft(self, network: Network, sound: str, prefix: str) -> str:
        """Add a network with its states; return its output.

        Parameters
        ----------
        network
            The graph.
        sound
            Value of its input, in the shape of that input.
        prefix
            Comes before all names of its values, and before those of its states if not empty.
        """
        model, description = network.model, network.description
        self._agree(model)
        given = {description.input: sound}
        for name in description.states:
            given[name] = self.state(_state_name(prefix, name), network.size(name))
        names = {"": ""}
        mark = f"{prefix or 'net'}/"
        for tensor in model.graph.initializer:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name] = mark + tensor.name
            copy.doc_string = ""
            self._weights.append(copy)
        names |= given
        for node in model.graph.node:
            names |= {name: mark + name for name in node.output if name}
        for node in model.graph.node:
            copied = renamed(node, names)
            copied.doc_string, copied.name = "", ""
            del copied.metadata_props[:]
            self._nodes.append(copied)
        for name, following in description.states.items():
            self.keep(_state_name(prefix, name), names[following])
        return names[description.output]

    def model(self, sources: str) -> onnx.ModelProto:
        """Return the graph of a bundle: a scan of this graph over the streams.

        Parameters
        ----------
        sources
            Value (1, sources, 1, *frame_shape).
        """
        frame = self.spec.frame_shape
        made = [("sources", sources, (1, len(self.spec.sources), 1, *frame))]
        made += [(f"next_{name}", value, shape) for name, (shape, value) in self.states.items()]
        outputs = []
        for name, value, shape in made:
            inner = f"one {name}"
            self._nodes.append(helper.make_node("Identity", [value], [inner]))
            outputs.append(_value(inner, shape))
        names = [value.name.removeprefix("one ") for value in self._inputs]
        shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in self._inputs]
        body = helper.make_graph(self._nodes, "one stream", self._inputs, outputs)
        scan = helper.make_node(
            "Scan", names, [name for name, _, _ in made], body=body, num_scan_inputs=len(names)
        )
        graph = helper.make_graph(
            [scan],
            "adopted",
            [_value(name, ("streams", *shape)) for name, shape in zip(names, shapes, strict=True)],
            [_value(name, ("streams", *shape)) for name, _, shape in made],
            self._weights,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)

    def _agree(self, model: onnx.ModelProto) -> None:
        """Note the operator sets that a graph uses."""
        used = {node.domain for node in model.graph.node}
        for opset in model.opset_import:
            domain = "" if opset.domain == "ai.onnx" else opset.domain
            if domain and domain not in used:
                continue
            if self.opsets.setdefault(domain, opset.version) != opset.version:
                raise AdoptError(
                    f"the networks use versions {self.opsets[domain]} and {opset.version} of the "
                    f"operators: convert them to the same"
                )
        if self.opsets.get("", 0) < 11:
            raise AdoptError(
                f"opset {self.opsets.get('', 0)} is too old: convert the graph to 11 or later"
            )
        self.ir_version = max(self.ir_version, model.ir_version, 6)

    def _input(self, name: str, shape: Sequence[int]) -> str:
        self._inputs.append(_value(f"one {name}", shape))
        return f"one {name}"

    def _new(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _weight(self, array: NDArray[Any]) -> str:
        name = self._new()
        self._weights.append(numpy_helper.from_array(array, name))
        return name


def _state_name(prefix: str, name: str) -> str:
    name = name.replace("@", "_")
    return f"{prefix}.{name}" if prefix else name


def _value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def to_axes(body: Body, value: str, shape: Mapping[str, int], axes: Sequence[str]) -> str:
    """Return a value with named axes in another order; axes that it lacks have size 1.

    Parameters
    ----------
    body
        The graph.
    value
        Its axes are those of ``shape``, in that order.
    shape
        Sizes by the name of the axis.
    axes
        Names of the axes of the result.

    Raises
    ------
    AdoptError
        An axis of more than one value is missing.
    """
    here = [axis for axis in shape if shape[axis] > 1 or axis in axes]
    missing = [axis for axis in here if axis not in axes]
    if missing:
        raise AdoptError(f"the axes {', '.join(axes)} lack {missing[0]!r}")
    order = [here.index(axis) for axis in axes if axis in here]
    value = body.reshape(value, [shape[axis] for axis in here])
    if order != sorted(order):
        value = body("Transpose", value, perm=order)
    return body.reshape(value, [shape.get(axis, 1) for axis in axes])
