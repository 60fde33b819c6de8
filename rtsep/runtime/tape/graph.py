"""Convert a graph to a tape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
from onnx import numpy_helper

from rtsep.runtime.graph_cost import drop_weights
from rtsep.runtime.tape.memory_plan import Places, Shape
from rtsep.runtime.tape.operations import lay
from rtsep.spec import Float32


def _reads(node: onnx.NodeProto) -> list[str]:
    """Return the names of the values that a node reads, also inside its graphs."""
    inside = [
        name
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
        for inner in attribute.g.node
        for name in _reads(inner)
    ]
    return [*node.input, *inside]


class Tape:
    """A graph as a tape.

    Parameters
    ----------
    model
        Graph with folded constants and fixed sizes.
    rings
        Number of copies of each state, by name; more than its longest delay.
    inputs
        State and delay in runs of each input of the graph, by name.
    kept
        Names of the other inputs, beside the mixture, which keep their values between runs.

    Attributes
    ----------
    memory
        All values.
    temporary
        Index of the first of the values that each run writes before it reads them.
    operations
        (n, WIDTH) int64.

    Raises
    ------
    NoTapeError
        An operation is not supported, or too irregular.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        rings: Mapping[str, int],
        inputs: Mapping[str, tuple[str, int]],
        kept: Sequence[str] = (),
    ) -> None:
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        del model.graph.value_info[:]  # ignored: the sizes are derived from the operations
        drop_weights(model)
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        shapes: dict[str, Shape] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        places = Places(shapes, constants)
        for name, copies in rings.items():
            places.values[f"next_{name}"] = places.ring(places.shape(f"next_{name}"), copies)
        for name, (state, delay) in inputs.items():
            places.values[name] = replace(places.values[f"next_{state}"], delay=delay)
        for name in ("mixture", "sources", *kept):
            places.values[name] = places.lasting(places.shape(name))
            places.keep(places.values[name])
        wanted = {output.name for output in graph.output}
        nodes = []
        for node in reversed(graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                nodes.append(node)
        nodes.reverse()
        for number, node in enumerate(nodes):
            for name in _reads(node):
                places.last_use[name] = number
        places.last_use |= {output.name: len(nodes) for output in graph.output}
        for number, node in enumerate(nodes):
            places.now = number
            lay(places, node)
        self.memory, self.temporary, self.operations, self.parameters = places.finish()
        self._values = places.values

    def view(self, name: str) -> Float32:
        """Return a view of an input or output; of a state, all copies, (copies, *shape)."""
        value = self._values[name]
        length = math.prod(value.shape)
        if value.copies == 1:
            return self.memory[value.base : value.base + length].reshape(value.shape)
        cells = self.memory[value.base : value.base + value.copies * value.size]
        return cells.reshape(value.copies, -1)[:, :length].reshape(value.copies, *value.shape)
