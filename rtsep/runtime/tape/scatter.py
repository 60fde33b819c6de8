"""Convert a ScatterND whose constant indices are a box of the value."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from rtsep.errors import NoTapeError
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.memory_plan import Places, joined, strides


def scatter(places: Places, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
    """Place updates in a value: in place if nothing else reads it later, else in a copy.

    Raises
    ------
    NoTapeError
        The indices are not a box, or the updates are combined with the value.
    """
    source, updates = places.operand(node.input[0]), places.operand(node.input[2])
    indices = places.constant(node.input[1])
    depth = indices.shape[-1]
    if attributes.get("reduction", b"none") != b"none" or depth > len(source.shape):
        raise NoTapeError("ScatterND that adds or multiplies")
    rows = indices.reshape(-1, depth) % np.array(source.shape[:depth])
    if not len(rows):
        raise NoTapeError("ScatterND of nothing")
    first, last = rows.min(axis=0), rows.max(axis=0)
    sizes = [int(n) for n in last - first + 1]
    if math.prod(sizes) != len(rows):  # before the box is made, which could be huge
        raise NoTapeError("ScatterND at indices that are not a box")
    box = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, depth)
    if not np.array_equal(rows, first + box):
        raise NoTapeError("ScatterND at indices that are not a box, in order")
    shape = (*sizes, *source.shape[depth:])
    if math.prod(shape) != math.prod(updates.shape):
        raise NoTapeError("ScatterND of updates of another shape")
    name = node.output[0]
    if name not in places.values and places.is_free(node.input[0]):
        out = source
        places.values[name], places.shapes[name] = out, out.shape
    else:
        out = places.result(name, source.shape)
        if math.prod(shape) < math.prod(source.shape):
            places.copy(out, source, strides(source.shape), source.shape)
    steps = strides(source.shape)
    at = sum(int(n) * step for n, step in zip(first, steps, strict=False))
    part = replace(out, base=out.base + at)
    wide, (a, b) = joined(shape, [strides(shape), steps])
    places.emit(interpreter.PLACE, [part, updates], wide, a, b)
