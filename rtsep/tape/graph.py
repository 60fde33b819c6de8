"""A graph laid out as a tape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from rtsep.cost import drop_weights
from rtsep.spec import Float32
from rtsep.tape import kernel
from rtsep.tape.kernel import AXES, BINARY, CODES, UNARY, WIDTH

Shape = tuple[int, ...]

_ALIGN = 16  # float32: a line of the cache
_SAME = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
_MAX_PARTS = 64
MAX_VALUES = 1 << 26
"""Of weights, states and all between: 256 MB."""


class NoTapeError(ValueError):
    """A graph that can't be laid out; the message says which of its operations is in the way."""


@dataclass(frozen=True)
class Operand:
    """Where a value lies; see `rtsep.tape.kernel.place`.

    Attributes
    ----------
    shape
        Of the value, which is contiguous.
    base, copies, size, delay
        Of the four numbers, the first two choose where; ``size`` is that of one copy.
    """

    shape: Shape
    base: int
    copies: int = 1
    size: int = 0
    delay: int = 0

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """As an operation holds it."""
        return self.base, self.copies, self.size, self.delay


class Tape:
    """A graph that can be run.

    Parameters
    ----------
    model
        Constants folded, every size fixed.
    rings
        Copies to keep of each state, by its name: more than the oldest that is read.
    inputs
        Which state an input of the graph reads, and how many runs back, by its name.

    Attributes
    ----------
    memory
        All numbers.
    operations
        (n, WIDTH) int64.

    Raises
    ------
    NoTapeError
        An operation is not known, or too irregular.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        rings: Mapping[str, int],
        inputs: Mapping[str, tuple[str, int]],
    ) -> None:
        self._constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        del model.graph.value_info[:]  # whatever it says, the sizes are those of the operations
        drop_weights(model)
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self._shapes: dict[str, Shape] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            sizes = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            self._shapes[value.name] = sizes
        self._values: dict[str, Operand] = {}
        self._end = 0
        self._filled: list[tuple[int, NDArray[np.float32]]] = []
        self._rows: list[list[int]] = []
        self._parameters: list[tuple[float, float]] = []

        states = {}
        for name, copies in rings.items():
            shape = self._shape(f"next_{name}")
            size = _aligned(math.prod(shape))
            states[name] = Operand(shape, self._take(copies * size), copies, size)
            self._values[f"next_{name}"] = states[name]
        for name, (state, delay) in inputs.items():
            self._values[name] = replace(states[state], delay=delay)
        for name in ("mixture", "sources"):
            self._values[name] = self._new(self._shape(name))
        wanted = {output.name for output in graph.output}
        nodes = []
        for node in reversed(graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                nodes.append(node)
        for node in reversed(nodes):
            self._lay(node)

        self.memory: Float32 = np.zeros(self._end, np.float32)
        for base, values in self._filled:
            self.memory[base : base + values.size] = values.reshape(-1)
        self.operations = np.array(self._rows, np.int64).reshape(-1, WIDTH)
        self.parameters = np.array(self._parameters, np.float32).reshape(-1, 2)
        self._constants.clear()

    def run(self, turn: int) -> None:
        """Run once."""
        kernel.run(self.memory, self.operations, self.parameters, turn)

    def view(self, name: str) -> Float32:
        """An input or output of the graph; a state's copies in a row, (copies, *shape)."""
        value = self._values[name]
        length = math.prod(value.shape)
        if value.copies == 1:
            return self.memory[value.base : value.base + length].reshape(value.shape)
        cells = self.memory[value.base : value.base + value.copies * value.size]
        return cells.reshape(value.copies, -1)[:, :length].reshape(value.copies, *value.shape)

    # Values

    def _take(self, values: int) -> int:
        if self._end + values > MAX_VALUES:
            raise NoTapeError(f"more than {MAX_VALUES} numbers")
        base, self._end = self._end, self._end + _aligned(values)
        return base

    def _new(self, shape: Shape) -> Operand:
        return Operand(shape, self._take(math.prod(shape)))

    def _shape(self, name: str) -> Shape:
        shape = self._shapes.get(name)
        if shape is None or 0 in shape:
            raise NoTapeError(f"the shape of {name!r} is not known")
        return shape

    def _result(self, name: str, shape: Shape) -> Operand:
        """Where a node's output goes: to an output of the graph, or to a new place."""
        if name not in self._values:
            self._values[name] = self._new(shape)
        elif self._values[name].shape != shape:
            raise NoTapeError(f"{name!r} is of shape {shape}, not {self._values[name].shape}")
        self._shapes[name] = shape
        return self._values[name]

    def _operand(self, name: str) -> Operand:
        if name not in self._values:
            self._values[name] = self._fill(self._constant(name))
        return self._values[name]

    def _fill(self, values: NDArray[np.float32]) -> Operand:
        if values.dtype != np.float32:
            raise NoTapeError(f"a constant is of {values.dtype}")
        placed = self._new(values.shape)
        self._filled.append((placed.base, values))
        return placed

    def _constant(self, name: str) -> NDArray[np.float32]:
        if name not in self._constants:
            raise NoTapeError(f"{name!r} must be a constant")
        return self._constants[name]

    def _whole(self, name: str) -> list[int]:
        return [int(n) for n in self._constant(name).reshape(-1)]

    # Operations

    def _emit(
        self,
        code: int,
        operands: list[Operand | None],
        sizes: list[int],
        left: list[int] | None = None,
        right: list[int] | None = None,
        parameters: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        row = [code]
        for k in range(4):
            operand = operands[k] if k < len(operands) else None
            row += (-1, 1, 0, 0) if operand is None else operand.numbers
        row += [*sizes, *(left or [0] * AXES), *(right or [0] * AXES)]
        self._rows.append(row + [0] * (WIDTH - len(row)))
        self._parameters.append(parameters)

    def _copy(self, out: Operand, source: Operand, steps: list[int], shape: Shape) -> None:
        sizes, (left,) = _joined(shape, [steps])
        self._emit(CODES["Copy"], [out, source], sizes, left)

    def _same(self, name: str, source: Operand, shape: Shape) -> None:
        """Let ``name`` be ``source`` in another shape: nothing moves, unless it must."""
        if math.prod(shape) != math.prod(source.shape):
            raise NoTapeError(f"{name!r} is of shape {shape}, and made of {source.shape}")
        if name in self._values:  # an output of the graph
            self._copy(self._result(name, shape), source, _steps(source.shape), source.shape)
        else:
            self._values[name] = replace(source, shape=shape)

    def _lay(self, node: onnx.NodeProto) -> None:
        kind, name = node.op_type, node.output[0]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.domain not in ("", "ai.onnx"):
            raise NoTapeError(f"{kind} of {node.domain} is not known")
        if kind == "Constant":
            self._constants[name] = numpy_helper.to_array(attributes["value"])
        elif kind in _SAME:
            self._same(name, self._operand(node.input[0]), self._shape(name))
        elif kind in BINARY and len(node.input) == 2:
            self._binary(kind, node)
        elif kind in UNARY or kind in ("Relu", "PRelu"):
            self._unary(kind, node, attributes)
        elif kind in ("ReduceMean", "ReduceSum"):
            self._reduce(kind, node, attributes)
        elif kind in ("MatMul", "Gemm"):
            self._product(kind, node, attributes)
        elif kind == "Concat":
            self._concat(node, attributes["axis"])
        elif kind == "Split":
            at = 0
            axis = attributes["axis"] % len(self._operand(node.input[0]).shape)
            for part in node.output:
                begins = [0] * len(self._shape(part))
                begins[axis] = at
                at += self._shape(part)[axis]
                self._part(part, node.input[0], begins)
        elif kind == "Slice":
            self._slice(node)
        elif kind == "Transpose":
            source = self._operand(node.input[0])
            order = attributes["perm"]
            steps = [_steps(source.shape)[axis] for axis in order]
            shape = tuple(source.shape[axis] for axis in order)
            self._copy(self._result(name, shape), source, steps, shape)
        elif kind == "Expand":
            source = self._operand(node.input[0])
            shape = np.broadcast_shapes(source.shape, self._shape(name))
            self._copy(self._result(name, shape), source, _spread(source.shape, shape), shape)
        elif kind == "Gather":
            self._gather(node, attributes.get("axis", 0))
        elif kind == "Pad":
            self._pad(node, attributes)
        else:
            raise NoTapeError(f"{kind} is not known")

    def _binary(self, kind: str, node: onnx.NodeProto) -> None:
        left, right = map(self._operand, node.input)
        shape = np.broadcast_shapes(left.shape, right.shape)
        sizes, (a, b) = _joined(shape, [_spread(x.shape, shape) for x in (left, right)])
        self._emit(BINARY[kind], [self._result(node.output[0], shape), left, right], sizes, a, b)

    def _unary(self, kind: str, node: onnx.NodeProto, attributes: dict[str, float]) -> None:
        parameters = 0.0, 0.0
        if kind == "Clip":
            ends = [*node.input[1:], "", ""][:2]
            low, high = (self._constant(end).item() if end else math.inf for end in ends)
            parameters = low if ends[0] else -math.inf, high
        elif kind == "LeakyRelu":
            parameters = attributes.get("alpha", 0.01), 0.0
        elif kind == "Relu":
            kind = "LeakyRelu"
        elif kind in ("PRelu", "Pow"):
            number = self._constant(node.input[1])
            if number.size != 1:
                raise NoTapeError(f"{kind} by more than one number")
            kind, parameters = "LeakyRelu" if kind == "PRelu" else kind, (number.item(), 0.0)
        source = self._operand(node.input[0])
        size = math.prod(source.shape)
        out = self._result(node.output[0], source.shape)
        self._emit(UNARY[kind], [out, source], [1, 1, 1, size], [0, 0, 0, 1], None, parameters)

    def _reduce(self, kind: str, node: onnx.NodeProto, attributes: dict[str, list[int]]) -> None:
        source = self._operand(node.input[0])
        rank = len(source.shape)
        listed = self._whole(node.input[1]) if len(node.input) > 1 else attributes.get("axes", [])
        axes = sorted(axis % rank for axis in listed) or list(range(rank))
        if axes != list(range(axes[0], axes[-1] + 1)):
            raise NoTapeError(f"{kind} over axes that are apart")
        before, after = source.shape[: axes[0]], source.shape[axes[-1] + 1 :]
        length = math.prod(source.shape[axes[0] : axes[-1] + 1])
        sizes = [1, math.prod(before), length, math.prod(after)]
        factor = 1 / length if kind == "ReduceMean" else 1.0
        kept = (1,) * len(axes) if attributes.get("keepdims", 1) else ()
        out = self._result(node.output[0], (*before, *kept, *after))
        self._emit(CODES["Sum"], [out, source], sizes, None, None, (factor, 0.0))

    def _product(self, kind: str, node: onnx.NodeProto, attributes: dict[str, float]) -> None:
        left, third, rise = self._operand(node.input[0]), None, 0
        if kind == "Gemm":
            factors = {attributes.get(name, 1.0) for name in ("alpha", "beta")}
            if attributes.get("transA") or factors != {1.0}:
                raise NoTapeError("Gemm with factors")
            if attributes.get("transB"):
                weights = np.ascontiguousarray(self._constant(node.input[1]).T)
                right = self._fill(weights)
            else:
                right = self._operand(node.input[1])
        else:
            right = self._operand(node.input[1])
        if min(len(left.shape), len(right.shape)) < 2:
            raise NoTapeError("MatMul of vectors")
        (rows, inputs), outputs = left.shape[-2:], right.shape[-1]
        if right.shape[-2] != inputs:
            raise NoTapeError(f"{kind} of {left.shape} and {right.shape}")
        shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), rows, outputs)
        batches = math.prod(left.shape[:-2])
        if math.prod(right.shape[:-2]) == 1:
            rows, batches, step = rows * batches, 1, 0
        elif left.shape[:-2] == right.shape[:-2]:
            step = inputs * outputs
        else:
            raise NoTapeError("MatMul that spreads its left side")
        if kind == "Gemm" and len(node.input) > 2 and node.input[2]:
            third = self._operand(node.input[2])
            size = math.prod(third.shape)
            if size not in (outputs, rows * outputs):
                raise NoTapeError("Gemm that spreads what it adds")
            rise = outputs if size == rows * outputs and rows > 1 else 0
        out = self._result(node.output[0], shape)
        sizes = [batches, rows, inputs, outputs]
        steps = [rows * inputs, rise, 0, 0], [step, 0, 0, 0]
        self._emit(kernel.PRODUCT, [out, left, right, third], sizes, *steps)

    def _concat(self, node: onnx.NodeProto, axis: int) -> None:
        sources = [self._operand(name) for name in node.input]
        axis %= len(sources[0].shape)
        joined = sum(source.shape[axis] for source in sources)
        before, after = sources[0].shape[:axis], sources[0].shape[axis + 1 :]
        if any((s.shape[:axis], s.shape[axis + 1 :]) != (before, after) for s in sources):
            raise NoTapeError("Concat of parts that do not fit")
        out = self._result(node.output[0], (*before, joined, *after))
        outer, rest = math.prod(out.shape[:axis]), math.prod(out.shape[axis:])
        if outer * len(node.input) > _MAX_PARTS:
            raise NoTapeError("Concat of too many parts")
        at = 0
        for source in sources:
            width = math.prod(source.shape[axis:])
            for k in range(outer):
                part = replace(out, base=out.base + k * rest + at)
                piece = replace(source, base=source.base + k * width)
                self._emit(CODES["Copy"], [part, piece], [1, 1, 1, width], [0, 0, 0, 1])
            at += width

    def _slice(self, node: onnx.NodeProto) -> None:
        shape = self._operand(node.input[0]).shape
        begins, given = [0] * len(shape), self._whole(node.input[1])
        axes = self._whole(node.input[3]) if len(node.input) > 3 else list(range(len(given)))
        if len(node.input) > 4 and set(self._whole(node.input[4])) != {1}:
            raise NoTapeError("Slice in steps")
        for axis, begin in zip(axes, given, strict=True):
            size = shape[axis % len(shape)]
            begins[axis % len(shape)] = min(max(begin + size if begin < 0 else begin, 0), size)
        self._part(node.output[0], node.input[0], begins)

    def _part(self, name: str, whole: str, begins: list[int]) -> None:
        """Let ``name`` be the part of a value from ``begins`` on."""
        source, shape = self._operand(whole), self._shape(name)
        ends = [begin + size for begin, size in zip(begins, shape, strict=True)]
        if len(shape) != len(source.shape) or any(map(int.__gt__, ends, source.shape)):
            raise NoTapeError(f"no part of {source.shape} from {begins} on is {shape}")
        steps = _steps(source.shape)
        moved = replace(source, base=source.base + sum(map(int.__mul__, begins, steps)))
        first = next((k for k, size in enumerate(shape) if size != 1), len(shape))
        if shape[first + 1 :] == source.shape[first + 1 :]:  # one piece
            self._same(name, replace(moved, shape=shape), shape)
        else:
            self._copy(self._result(name, shape), moved, steps, shape)

    def _gather(self, node: onnx.NodeProto, axis: int) -> None:
        """Take one index of an axis, or a row of neighbours."""
        source, indices = self._operand(node.input[0]), self._constant(node.input[1])
        axis %= len(source.shape)
        places = indices.reshape(-1).astype(np.int64) % source.shape[axis]
        first, count = int(places[0]), len(places)
        if indices.ndim > 1 or not np.array_equal(places, np.arange(first, first + count)):
            raise NoTapeError("Gather of indices that are apart")
        before, after = source.shape[:axis], source.shape[axis + 1 :]
        part = f"{node.output[0]} with its axis"
        self._shapes[part] = (*before, count, *after)
        self._part(part, node.input[0], [first * (k == axis) for k in range(len(source.shape))])
        shape = (*before, *([count] if indices.ndim else []), *after)
        self._same(node.output[0], self._values[part], shape)

    def _pad(self, node: onnx.NodeProto, attributes: dict[str, bytes]) -> None:
        source = self._operand(node.input[0])
        value = self._constant(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
        pads = self._whole(node.input[1])
        rank = len(source.shape)
        constant = attributes.get("mode", b"constant") == b"constant"
        if not constant or np.any(value) or len(node.input) > 3 or min(pads) < 0:
            raise NoTapeError("Pad with anything but zeros")
        if any(pads[: rank - 1]) or any(pads[rank:-1]) or node.output[0] in self._values:
            raise NoTapeError("Pad of other axes than the last")
        width, rows = sum(pads) + source.shape[-1], math.prod(source.shape[:-1])
        if rows > _MAX_PARTS:
            raise NoTapeError("Pad of too many rows")
        out = self._new((*source.shape[:-1], width))
        for row in range(rows):  # nothing is ever written beside them
            part = replace(out, base=out.base + row * width + pads[rank - 1])
            piece = replace(source, base=source.base + row * source.shape[-1])
            sizes = [1, 1, 1, source.shape[-1]]
            self._emit(CODES["Copy"], [part, piece], sizes, [0, 0, 0, 1])
        self._values[node.output[0]] = out


def _aligned(values: int) -> int:
    return -(-max(values, 1) // _ALIGN) * _ALIGN


def _steps(shape: Shape) -> list[int]:
    """Steps of a contiguous value along its axes."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _spread(shape: Shape, to: Shape) -> list[int]:
    """Steps of a contiguous value that is broadcast."""
    steps = [step if size > 1 else 0 for step, size in zip(_steps(shape), shape, strict=True)]
    return [0] * (len(to) - len(shape)) + steps


def _joined(shape: Shape, steps: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes that all operands walk through as one, down to `AXES`."""
    sizes: list[int] = []
    walked: list[list[int]] = [[] for _ in steps]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if sizes and all(w[-1] == s[axis] * size for w, s in zip(walked, steps, strict=True)):
            sizes[-1] *= size
            for w, s in zip(walked, steps, strict=True):
                w[-1] = s[axis]
        else:
            sizes.append(size)
            for w, s in zip(walked, steps, strict=True):
                w.append(s[axis])
    if len(sizes) > AXES:
        raise NoTapeError(f"an operation over {len(sizes)} axes")
    missing = AXES - len(sizes)
    if missing == AXES:
        return [1] * AXES, [[0] * (AXES - 1) + [1] for _ in steps]
    return [1] * missing + sizes, [[0] * missing + w for w in walked]
