"""Read the graph of a model by others, check it against its description, and simplify it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtsep.adopt.description import NetworkDescription
from rtsep.adopt.simplify import simplified
from rtsep.errors import AdoptError
from rtsep.runtime.bundle import MAX_BYTES

_FLOATING = {TensorProto.FLOAT, TensorProto.DOUBLE}


@dataclass(frozen=True)
class Network:
    """A graph with the description of its inputs and outputs.

    Attributes
    ----------
    model
        The graph; its initializers are no inputs, and nothing of ``com.microsoft`` is left that
        ONNX itself has.
    description
        What its inputs and outputs are.
    shapes
        Sizes of the inputs and outputs by name; open sizes of outputs are None.
    """

    model: onnx.ModelProto
    description: NetworkDescription
    shapes: dict[str, tuple[int | None, ...]]

    def size(self, name: str) -> tuple[int, ...]:
        """Return the sizes of an input."""
        return tuple(size or 1 for size in self.shapes[name])


def open_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises
    ------
    AdoptError
        The file can't be read, is larger than a bundle may be, is no ONNX file, has weights in
        other files, or has functions.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise AdoptError(f"{path} is larger than {MAX_BYTES >> 20} MiB, the limit of a bundle")
        data = path.read_bytes()
    except OSError as error:
        raise AdoptError(f"{path} can't be read: {error.strerror}") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf raises several unrelated types
        raise AdoptError(f"{path} is not an ONNX file, or it is truncated") from None
    if not model.graph.node:
        raise AdoptError(f"{path} is not an ONNX file, or it is truncated")
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise AdoptError(f"{path}: weight {tensor.name!r} is in another file")
    if model.functions:
        raise AdoptError(f"{path} contains functions, which are not supported: inline them")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def interface(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the sizes of inputs and outputs by name; None where they are open."""
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in (*model.graph.input, *model.graph.output)
    }


def make_network(model: onnx.ModelProto, description: NetworkDescription, place: str) -> Network:
    """Check a graph against its description; simplify it.

    Parameters
    ----------
    model
        Changed.
    description
        What its inputs and outputs are.
    place
        Name of the file, for messages.

    Raises
    ------
    AdoptError
        An input or output is missing or not described, is not float32, or has an open or another
        size; a cache has no next value of the same shape; there is no cache.
    """
    shapes = interface(model)
    inputs = {value.name: value for value in model.graph.input}
    outputs = {value.name: value for value in model.graph.output}
    named = {description.input, *description.states, *description.options}
    for field, name, there in (
        ("input", description.input, inputs),
        ("output", description.output, outputs),
        *(("states", name, inputs) for name in description.states),
        *(("states", name, outputs) for name in description.states.values()),
        *(("options", name, inputs) for name in description.options),
    ):
        if name not in there:
            raise AdoptError(f"{place}: {field} names {name!r}, but the graph has {_list(there)}")
    if not description.states:
        raise AdoptError(f"{place}: states is empty: a model without caches does not stream")
    for name, value in inputs.items():
        if name not in named:
            raise AdoptError(
                f"{place}: the graph's input {name!r} is neither input, states nor options"
            )
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT and name not in description.options:
            raise AdoptError(f"{place}: input {name!r} is not float32")
    if len({*description.states.values()}) < len(description.states):
        raise AdoptError(f"{place}: states names an output twice")
    for name, following in description.states.items():
        sizes = shapes[name]
        if None in sizes:
            raise AdoptError(f"{place}: cache {name!r} has an open axis: {_shape(sizes)}")
        after = shapes[following]
        same = len(after) == len(sizes) and all(
            b in (None, a) for a, b in zip(sizes, after, strict=True)
        )
        if not same:
            raise AdoptError(
                f"{place}: cache {name!r} {_shape(sizes)} and its next value {following!r} "
                f"{_shape(after)} differ in shape"
            )
    for field, name, axes in (
        ("input_axes", description.input, description.input_axes),
        ("output_axes", description.output, description.output_axes),
    ):
        sizes = shapes[name]
        if len(sizes) != len(axes):
            raise AdoptError(f"{place}: {field} are {len(axes)}, but {name!r} is {_shape(sizes)}")
        for axis, size in zip(axes, sizes, strict=True):
            if axis in ("bin", "sample") and size is None and field == "input_axes":
                raise AdoptError(
                    f"{place}: axis {axis!r} of {name!r} is open: export the model with fixed sizes"
                )
            wanted = {"part": 2, "bin": size, "sample": size}.get(axis, 1)
            if size not in (None, wanted):
                raise AdoptError(f"{place}: axis {axis!r} of {name!r} must be {wanted}, not {size}")
    _set_options(model, description, inputs)
    for name in (description.input, *description.states):
        for dim in inputs[name].type.tensor_type.shape.dim:
            dim.dim_value = dim.dim_value or 1
    return Network(simplified(model, place), description, shapes)


def _list(names: object) -> str:
    return ", ".join(map(repr, names)) or "none"  # type: ignore[call-overload]


def _shape(sizes: tuple[int | None, ...]) -> str:
    return f"({', '.join('open' if size is None else str(size) for size in sizes)})"


def _set_options(
    model: onnx.ModelProto, description: NetworkDescription, inputs: dict[str, onnx.ValueInfoProto]
) -> None:
    """Replace the inputs of options by constants."""
    for name, number in description.options.items():
        tensor = inputs[name].type.tensor_type
        shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
        values = np.full(shape, number, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    kept = [value for value in model.graph.input if value.name not in description.options]
    del model.graph.input[:]
    model.graph.input.extend(kept)
