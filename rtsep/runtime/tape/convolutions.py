"""Convert convolutions to products: the values that each result needs side by side, then a product.

A value of (channels, rows, width) with zeros around it becomes columns, (inputs of a group + 1,
results): the last row has ones, which multiply the bias. The product of the weights with these
columns is the result. A transposed convolution is one of the input with zeros between its values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from rtsep.errors import NoTapeError
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.memory_plan import MAX_VALUES, Operand, Places
from rtsep.spec import Float32

MAX_KERNEL = 64
"""Largest number of taps of a kernel."""
MAX_GROUPS = 512


@dataclass(frozen=True)
class _Plan:
    """Sizes of a convolution along rows and width.

    Attributes
    ----------
    weights
        (results, channels of a group, rows, width).
    groups
        Number of groups.
    strides, dilations
        Steps of the kernel and of its taps.
    before, after
        Zeros around the values.
    apart
        Distance of the values in the padded array; more than 1 in a transposed convolution.
    """

    weights: Float32
    groups: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    apart: tuple[int, int] = (1, 1)


def convolution(places: Places, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
    """Convert a Conv or ConvTranspose of one or two axes.

    Raises
    ------
    NoTapeError
        Its attributes are not supported.
    """
    source = places.operand(node.input[0])
    weights = places.constant(node.input[1])
    axes = weights.ndim - 2
    if axes not in (1, 2) or len(source.shape) != weights.ndim or source.shape[0] != 1:
        raise NoTapeError(f"{node.op_type} of {source.shape}")
    automatic = attributes.get("auto_pad", b"NOTSET")
    one = math.prod(weights.shape[2:]) == 1 and {*attributes.get("strides", [1])} == {1}
    if automatic not in (b"NOTSET", b"VALID") and not one:  # one tap needs no padding
        raise NoTapeError(f"{node.op_type} with automatic padding")
    groups = int(attributes.get("group", 1))

    def pairs(name: str, usual: int) -> tuple[int, int]:
        given = [int(n) for n in attributes.get(name, [usual] * axes)]
        return (given[0], given[1]) if axes == 2 else (usual, given[0])

    pads = [0] * (2 * axes)
    if automatic == b"NOTSET":
        pads = [int(n) for n in attributes.get("pads", pads)]
    before = (pads[0], pads[1]) if axes == 2 else (0, pads[0])
    after = (pads[2], pads[3]) if axes == 2 else (0, pads[1])
    if axes == 1:
        weights = weights[:, :, None, :]
    channels, *size = source.shape[1:]
    if axes == 1:
        size = [1, *size]
    strides, dilations = pairs("strides", 1), pairs("dilations", 1)
    if node.op_type == "Conv":
        plan = _Plan(weights, groups, strides, dilations, before, after)
    else:
        plan = _transposed(weights, groups, strides, dilations, before, after)
        more = pairs("output_padding", 0)
        plan = replace(plan, after=(plan.after[0] + more[0], plan.after[1] + more[1]))
    if plan.weights.shape[1] * groups != channels or plan.weights.shape[0] % groups:
        raise NoTapeError(f"{node.op_type} of {channels} channels in {groups} groups")
    taps = math.prod(plan.weights.shape[2:])
    if taps > MAX_KERNEL or groups > MAX_GROUPS:
        raise NoTapeError(f"{node.op_type} with {taps} taps in {groups} groups")
    if min(*plan.before, *plan.after) < 0:
        raise NoTapeError(f"{node.op_type} that cuts the ends")
    bias = np.zeros(len(plan.weights), np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = places.constant(node.input[2])
    image = Operand((channels, size[0], size[1]), source.base, source.copies, source.size)
    image = replace(image, delay=source.delay)
    _emit(places, node.output[0], image, plan, bias, axes)


def _transposed(
    weights: Float32,
    groups: int,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    before: tuple[int, int],
    after: tuple[int, int],
) -> _Plan:
    """Return the plain convolution that equals a transposed one."""
    inputs, results, *taps = weights.shape
    turned = weights.reshape(groups, inputs // groups, results, *taps).swapaxes(1, 2)
    turned = turned.reshape(groups * results, inputs // groups, *taps)[:, :, ::-1, ::-1]
    reach = [(k - 1) * d for k, d in zip(taps, dilations, strict=True)]
    return _Plan(
        np.ascontiguousarray(turned),
        groups,
        (1, 1),
        dilations,
        (reach[0] - before[0], reach[1] - before[1]),
        (reach[0] - after[0], reach[1] - after[1]),
        strides,
    )


def _emit(
    places: Places, name: str, source: Operand, plan: _Plan, bias: Float32, axes: int
) -> None:
    padded = _padded(places, source, plan)
    _, high, wide = padded.shape
    count, inputs, tall, broad = plan.weights.shape
    out_rows = (high - plan.dilations[0] * (tall - 1) - 1) // plan.strides[0] + 1
    out_width = (wide - plan.dilations[1] * (broad - 1) - 1) // plan.strides[1] + 1
    if min(out_rows, out_width) < 1:
        raise NoTapeError("a convolution without results")
    results = out_rows * out_width
    shape = (1, count, out_rows, out_width) if axes == 2 else (1, count, out_width)
    out = places.result(name, shape)
    own, groups = count // plan.groups, plan.groups
    if results * max(count, groups * (inputs * tall * broad + 1)) > MAX_VALUES:
        raise NoTapeError("a convolution with too many values")
    flat = plan.weights.reshape(count, -1)
    single = results == 1 and groups == 1  # then all results are one row, which is faster
    if tall * broad == 1 and plan.strides == (1, 1) and groups == 1:
        _multiply(places, out, flat, padded, bias, single)
        return
    long = inputs * tall * broad + 1
    ones = np.zeros((groups, long, results), np.float32)
    ones[:, -1] = 1.0
    columns = places.fill(ones)
    _columns(places, padded, columns, plan, (out_rows, out_width))
    flat = np.concatenate([flat, bias[:, None]], axis=1).astype(np.float32)
    if single:
        _multiply(places, out, flat, columns, np.zeros_like(bias), single)
        return
    places.emit(
        interpreter.PRODUCT,
        [out, places.fill(flat), columns],
        [groups, own, long, results],
        [own * long, 0, 0, 0],
        [long * results, 0, 0, 0],
    )


def _multiply(
    places: Places, out: Operand, weights: Float32, values: Operand, bias: Float32, single: bool
) -> None:
    """Emit the product of (count, inputs) with (inputs, results), plus the bias of each row."""
    count, inputs = weights.shape
    if single:
        right, third = places.fill(np.ascontiguousarray(weights.T)), places.fill(bias)
        places.emit(interpreter.PRODUCT, [out, values, right, third], [1, 1, inputs, count])
        return
    results = math.prod(out.shape) // count
    left = places.fill(np.ascontiguousarray(weights))
    third = places.fill(np.repeat(bias[:, None], results, 1).astype(np.float32))
    sizes, steps = [1, count, inputs, results], [0, results, 0, 0]
    places.emit(interpreter.PRODUCT, [out, left, values, third], sizes, steps)


def _padded(places: Places, source: Operand, plan: _Plan) -> Operand:
    """Return the values with zeros around and between them."""
    channels, rows, width = source.shape
    high = (rows - 1) * plan.apart[0] + 1 + plan.before[0] + plan.after[0]
    wide = (width - 1) * plan.apart[1] + 1 + plan.before[1] + plan.after[1]
    if (high, wide) == (rows, width):
        return source
    padded = places.lasting((channels, high, wide))  # zeros, except where values are placed
    first = plan.before[0] * wide + plan.before[1]
    part = replace(padded, base=padded.base + first)
    steps = [0, rows * width, width, 1]
    to = [0, high * wide, plan.apart[0] * wide, plan.apart[1]]
    places.emit(interpreter.PLACE, [part, source], [1, channels, rows, width], steps, to)
    return padded


def _columns(
    places: Places, padded: Operand, columns: Operand, plan: _Plan, size: tuple[int, int]
) -> None:
    """Place the values that each result needs."""
    _, high, wide = padded.shape
    groups, long, results = columns.shape
    _, inputs, tall, broad = plan.weights.shape
    out_rows, out_width = size
    taps = tall * broad
    # One copy has four axes: channels, the rows or the columns of the kernel, and the results.
    whole = groups == 1 or inputs == 1
    for group in range(1 if whole else groups):
        for row in range(tall if out_rows > 1 else 1):
            count = (groups if inputs == 1 else inputs) if whole else inputs
            stride = long * results if whole and inputs == 1 else taps * results
            start = group * inputs * high * wide + row * plan.dilations[0] * wide
            source = replace(padded, base=padded.base + start)
            at = group * long * results + row * broad * results
            target = replace(columns, base=columns.base + at)
            if out_rows > 1:
                sizes = [count, broad, out_rows, out_width]
                steps = [high * wide, plan.dilations[1], plan.strides[0] * wide, plan.strides[1]]
                to = [stride, results, out_width, 1]
            else:
                sizes = [count, tall, broad, out_width]
                steps = [high * wide, plan.dilations[0] * wide, plan.dilations[1], plan.strides[1]]
                to = [stride, broad * results, results, 1]
            places.emit(interpreter.PLACE, [target, source], sizes, steps, to)
