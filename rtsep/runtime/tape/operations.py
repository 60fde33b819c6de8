"""Convert operations of ONNX graphs to operations of a tape."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from rtsep.errors import NoTapeError
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.convolutions import convolution
from rtsep.runtime.tape.interpreter import BINARY, CODES, UNARY
from rtsep.runtime.tape.memory_plan import Places, joined, spread, strides
from rtsep.runtime.tape.recurrent import gated, long_short_term
from rtsep.runtime.tape.scatter import scatter

_SAME = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
_MAX_PARTS = 64


def lay(places: Places, node: onnx.NodeProto) -> None:
    """Place the outputs of a node and add its operations.

    Raises
    ------
    NoTapeError
        The node is not supported, or too irregular.
    """
    kind, name = node.op_type, node.output[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.domain not in ("", "ai.onnx"):
        raise NoTapeError(f"{kind} of {node.domain} is not supported")
    if kind == "Constant":
        places.constants[name] = numpy_helper.to_array(attributes["value"])
    elif kind in _SAME:
        places.same(name, places.operand(node.input[0]), places.shape(name))
    elif kind in BINARY and len(node.input) == 2:
        _binary(places, kind, node)
    elif kind in UNARY or kind in ("Relu", "PRelu"):
        _unary(places, kind, node, attributes)
    elif kind in ("ReduceMean", "ReduceSum"):
        _reduce(places, kind, node, attributes)
    elif kind in ("MatMul", "Gemm"):
        _product(places, kind, node, attributes)
    elif kind == "Concat":
        _concat(places, node, attributes["axis"])
    elif kind == "Split":
        at = 0
        axis = attributes["axis"] % len(places.operand(node.input[0]).shape)
        for part in node.output:
            begins = [0] * len(places.shape(part))
            begins[axis] = at
            at += places.shape(part)[axis]
            places.part(part, node.input[0], begins)
    elif kind == "Slice":
        _slice(places, node)
    elif kind == "Transpose":
        source = places.operand(node.input[0])
        order = attributes["perm"]
        steps = [strides(source.shape)[axis] for axis in order]
        shape = tuple(source.shape[axis] for axis in order)
        moved = [axis for axis in order if source.shape[axis] > 1]
        if moved == sorted(moved):
            places.same(name, source, shape)
        else:
            places.copy(places.result(name, shape), source, steps, shape)
    elif kind == "Expand":
        source = places.operand(node.input[0])
        shape = np.broadcast_shapes(source.shape, places.shape(name))
        places.copy(places.result(name, shape), source, spread(source.shape, shape), shape)
    elif kind == "Gather":
        _gather(places, node, attributes.get("axis", 0))
    elif kind == "Pad":
        _pad(places, node, attributes)
    elif kind == "MaxPool":
        _pool(places, node, attributes)
    elif kind == "LayerNormalization":
        _layer_norm(places, node, attributes)
    elif kind == "GRU":
        gated(places, node, attributes)
    elif kind == "LSTM":
        long_short_term(places, node, attributes)
    elif kind in ("Conv", "ConvTranspose"):
        convolution(places, node, attributes)
    elif kind == "BatchNormalization":
        _batch_norm(places, node, attributes)
    elif kind == "Where":
        _where(places, node)
    elif kind == "ScatterND":
        scatter(places, node, attributes)
    else:
        raise NoTapeError(f"{kind} is not supported")


def _binary(places: Places, kind: str, node: onnx.NodeProto) -> None:
    left, right = map(places.operand, node.input)
    shape = np.broadcast_shapes(left.shape, right.shape)
    sizes, (a, b) = joined(shape, [spread(x.shape, shape) for x in (left, right)])
    places.emit(BINARY[kind], [places.result(node.output[0], shape), left, right], sizes, a, b)


def _unary(places: Places, kind: str, node: onnx.NodeProto, attributes: dict[str, float]) -> None:
    parameters = 0.0, 0.0
    if kind == "Clip":
        ends = [*node.input[1:], "", ""][:2]
        low, high = (places.constant(end).item() if end else math.inf for end in ends)
        parameters = low if ends[0] else -math.inf, high
    elif kind == "LeakyRelu":
        parameters = attributes.get("alpha", 0.01), 0.0
    elif kind == "Relu":
        kind = "LeakyRelu"
    elif kind in ("PRelu", "Pow"):
        number = places.constant(node.input[1])
        if number.size != 1:
            raise NoTapeError(f"{kind} by more than one number")
        kind, parameters = "LeakyRelu" if kind == "PRelu" else kind, (number.item(), 0.0)
    source = places.operand(node.input[0])
    size = math.prod(source.shape)
    out = places.result(node.output[0], source.shape)
    places.emit(UNARY[kind], [out, source], [1, 1, 1, size], [0, 0, 0, 1], None, parameters)


def _reduce(
    places: Places, kind: str, node: onnx.NodeProto, attributes: dict[str, list[int]]
) -> None:
    source = places.operand(node.input[0])
    rank = len(source.shape)
    listed = places.whole(node.input[1]) if len(node.input) > 1 else attributes.get("axes", [])
    axes = sorted(axis % rank for axis in listed) or list(range(rank))
    inside = range(axes[0], axes[-1])
    axes = sorted({*axes, *(axis for axis in inside if source.shape[axis] == 1)})
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise NoTapeError(f"{kind} over axes that are not adjacent")
    before, after = source.shape[: axes[0]], source.shape[axes[-1] + 1 :]
    length = math.prod(source.shape[axes[0] : axes[-1] + 1])
    sizes = [1, math.prod(before), length, math.prod(after)]
    factor = 1 / length if kind == "ReduceMean" else 1.0
    kept = (1,) * len(axes) if attributes.get("keepdims", 1) else ()
    out = places.result(node.output[0], (*before, *kept, *after))
    places.emit(CODES["Sum"], [out, source], sizes, None, None, (factor, 0.0))


def _product(places: Places, kind: str, node: onnx.NodeProto, attributes: dict[str, float]) -> None:
    left, third, rise = places.operand(node.input[0]), None, 0
    if kind == "Gemm":
        factors = {attributes.get(name, 1.0) for name in ("alpha", "beta")}
        if attributes.get("transA") or factors != {1.0}:
            raise NoTapeError("Gemm with factors")
        if attributes.get("transB"):
            weights = np.ascontiguousarray(places.constant(node.input[1]).T)
            right = places.fill(weights)
        else:
            right = places.operand(node.input[1])
    else:
        right = places.operand(node.input[1])
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
        raise NoTapeError("MatMul that broadcasts its left side")
    if kind == "Gemm" and len(node.input) > 2 and node.input[2]:
        third = places.operand(node.input[2])
        size = math.prod(third.shape)
        if size not in (outputs, rows * outputs):
            raise NoTapeError("Gemm that broadcasts its bias")
        rise = outputs if size == rows * outputs and rows > 1 else 0
    out = places.result(node.output[0], shape)
    sizes = [batches, rows, inputs, outputs]
    steps = [rows * inputs, rise, 0, 0], [step, 0, 0, 0]
    places.emit(interpreter.PRODUCT, [out, left, right, third], sizes, *steps)


def _concat(places: Places, node: onnx.NodeProto, axis: int) -> None:
    sources = [places.operand(name) for name in node.input]
    axis %= len(sources[0].shape)
    joined = sum(source.shape[axis] for source in sources)
    before, after = sources[0].shape[:axis], sources[0].shape[axis + 1 :]
    if any((s.shape[:axis], s.shape[axis + 1 :]) != (before, after) for s in sources):
        raise NoTapeError("Concat of parts with other shapes")
    out = places.result(node.output[0], (*before, joined, *after))
    outer, rest = math.prod(out.shape[:axis]), math.prod(out.shape[axis:])
    at = 0
    for source in sources:
        width = math.prod(source.shape[axis:])
        part = replace(out, base=out.base + at)
        steps = [0, 0, width, 1], [0, 0, rest, 1]
        places.emit(interpreter.PLACE, [part, source], [1, 1, outer, width], *steps)
        at += width


def _slice(places: Places, node: onnx.NodeProto) -> None:
    shape = places.operand(node.input[0]).shape
    begins, given = [0] * len(shape), places.whole(node.input[1])
    axes = places.whole(node.input[3]) if len(node.input) > 3 else list(range(len(given)))
    if len(node.input) > 4 and set(places.whole(node.input[4])) != {1}:
        raise NoTapeError("Slice with steps")
    for axis, begin in zip(axes, given, strict=True):
        size = shape[axis % len(shape)]
        begins[axis % len(shape)] = min(max(begin + size if begin < 0 else begin, 0), size)
    places.part(node.output[0], node.input[0], begins)


def _gather(places: Places, node: onnx.NodeProto, axis: int) -> None:
    """Convert a Gather of one index, a range, or a few rows of indices at equal distances."""
    source, indices = places.operand(node.input[0]), places.constant(node.input[1])
    axis %= len(source.shape)
    before, after = source.shape[:axis], source.shape[axis + 1 :]
    shape = (*before, *indices.shape, *after)
    rows = _rows(indices.reshape(-1).astype(np.int64) % source.shape[axis])
    if len(rows) == 1 and rows[0][1] == 1:
        part = f"{node.output[0]} with its axis"
        first, _, count = rows[0]
        places.shapes[part] = (*before, count, *after)
        places.part(part, node.input[0], [first * (k == axis) for k in range(len(source.shape))])
        places.same(node.output[0], places.values[part], shape)
        return
    outer, width = math.prod(before), math.prod(after)
    out = places.result(node.output[0], shape)
    at, total = out.base, indices.size * width
    for first, distance, count in rows:
        piece = replace(source, base=source.base + first * width)
        steps = [0, source.shape[axis] * width, distance * width, 1]
        to = [0, total, width, 1]
        sizes = [1, outer, count, width]
        if width == 1:  # the longest axis last, for few inner loops
            steps, to, sizes = ([0, row[0], row[1], row[2]] for row in (steps, to, sizes))
            sizes[0] = 1
        places.emit(interpreter.PLACE, [replace(out, base=at), piece], sizes, steps, to)
        at += count * width


def _rows(numbers: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Split numbers into rows at equal distances: (start, distance, count) of each."""
    distances, at = np.diff(numbers), 0
    rows: list[tuple[int, int, int]] = []
    while at < len(numbers):
        if len(rows) == _MAX_PARTS:
            raise NoTapeError("Gather of too many rows of indices")
        distance = int(distances[at]) if at < len(distances) else 1
        others = np.flatnonzero(distances[at:] != distance)
        count = int(others[0]) + 1 if len(others) else len(numbers) - at
        rows.append((int(numbers[at]), distance, count))
        at += count
    return rows


def _pad(places: Places, node: onnx.NodeProto, attributes: dict[str, bytes]) -> None:
    source = places.operand(node.input[0])
    value = places.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    pads = places.whole(node.input[1])
    rank = len(source.shape)
    constant = attributes.get("mode", b"constant") == b"constant"
    if not constant or np.any(value) or len(node.input) > 3 or min(pads) < 0:
        raise NoTapeError("Pad with anything but zeros")
    padded = [axis for axis in range(rank) if pads[axis] or pads[rank + axis]]
    if len(padded) > 1 or node.output[0] in places.values:
        raise NoTapeError("Pad of several axes")
    axis = padded[0] if padded else rank - 1
    size = pads[axis] + source.shape[axis] + pads[rank + axis]
    rows, width = math.prod(source.shape[:axis]), math.prod(source.shape[axis + 1 :])
    out = places.lasting((*source.shape[:axis], size, *source.shape[axis + 1 :]))
    length = source.shape[axis] * width
    part = replace(out, base=out.base + pads[axis] * width)  # the padding stays zero
    steps = [0, 0, length, 1], [0, 0, size * width, 1]
    places.emit(interpreter.PLACE, [part, source], [1, 1, rows, length], *steps)
    places.values[node.output[0]] = out
    places.keep(out)


def _pool(places: Places, node: onnx.NodeProto, attributes: dict[str, list[int]]) -> None:
    """Convert a MaxPool along the axis before the last."""
    source = places.operand(node.input[0])
    *outer, rows, width = source.shape
    count = attributes["kernel_shape"][0]
    plain = {"kernel_shape": [count, 1], "strides": [count, 1], "pads": [0] * 4}
    usual = {"dilations": [1, 1], "ceil_mode": 0, "storage_order": 0, "auto_pad": b"NOTSET"}
    given = {"strides": [1, 1], "pads": [0] * 4, **usual, **attributes}
    if given != plain | usual or len(node.output) > 1:
        raise NoTapeError("MaxPool other than along the axis before the last")
    if not 2 <= count <= _MAX_PARTS or rows % count:
        raise NoTapeError(f"MaxPool of {rows} by {count}")
    out = places.result(node.output[0], (*outer, rows // count, width))
    sizes = [1, 1, math.prod(out.shape[:-1]), width]
    apart, dense = [0, 0, count * width, 1], [0, 0, width, 1]
    largest, steps = source, apart
    for k in range(1, count):
        neighbour = replace(source, base=source.base + k * width)
        places.emit(BINARY["Max"], [out, largest, neighbour], sizes, steps, apart)
        largest, steps = out, dense


def _batch_norm(places: Places, node: onnx.NodeProto, attributes: dict[str, float]) -> None:
    """Convert a BatchNormalization with constant statistics: a factor and a term per channel."""
    source = places.operand(node.input[0])
    if attributes.get("training_mode") or len([name for name in node.output if name]) > 1:
        raise NoTapeError("BatchNormalization in training")
    scale, shift, mean, variance = (places.constant(n).astype(np.float64) for n in node.input[1:5])
    gain = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    channel = (-1, *[1] * (len(source.shape) - 2))
    one, two = (
        places.fill(np.ascontiguousarray(v.reshape(channel), np.float32))
        for v in (gain, shift - mean * gain)
    )
    sizes, (a, b) = joined(source.shape, [strides(source.shape), spread(one.shape, source.shape)])
    out = places.result(node.output[0], source.shape)
    places.emit(BINARY["Mul"], [out, source, one], sizes, a, b)
    places.emit(BINARY["Add"], [out, out, two], sizes, a, b)


def _where(places: Places, node: onnx.NodeProto) -> None:
    """Convert a Where on the result of a comparison, 1 or 0: no + condition * (yes - no)."""
    condition, yes, no = map(places.operand, node.input)
    shape = np.broadcast_shapes(condition.shape, yes.shape, no.shape)
    out = places.result(node.output[0], shape)
    difference = places.new(np.broadcast_shapes(yes.shape, no.shape))
    for kind, target, left, right in (
        ("Sub", difference, yes, no),
        ("Mul", out, condition, difference),
        ("Add", out, out, no),
    ):
        sizes, (a, b) = joined(target.shape, [spread(x.shape, target.shape) for x in (left, right)])
        places.emit(BINARY[kind], [target, left, right], sizes, a, b)


def _layer_norm(places: Places, node: onnx.NodeProto, attributes: dict[str, float]) -> None:
    source = places.operand(node.input[0])
    if int(attributes.get("axis", -1)) % len(source.shape) != len(source.shape) - 1:
        raise NoTapeError("LayerNormalization over several axes")
    if len([name for name in node.output if name]) > 1:
        raise NoTapeError("LayerNormalization with its statistics")
    width = source.shape[-1]
    gain = places.operand(node.input[1])
    shift = (
        places.operand(node.input[2])
        if len(node.input) > 2 and node.input[2]
        else places.fill(np.zeros(width, np.float32))
    )
    if gain.shape != (width,) or shift.shape != (width,):
        raise NoTapeError("LayerNormalization with gains of another shape")
    out = places.result(node.output[0], source.shape)
    sizes = [1, 1, math.prod(source.shape[:-1]), width]
    parameters = attributes.get("epsilon", 1e-5), 0.0
    places.emit(interpreter.NORM, [out, source, gain, shift], sizes, parameters=parameters)
