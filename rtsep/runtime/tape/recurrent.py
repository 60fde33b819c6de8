"""Convert recurrent units: one product with all inputs, then step by step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from rtsep.errors import NoTapeError
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.interpreter import BINARY, UNARY
from rtsep.runtime.tape.memory_plan import Operand, Places

_DIRECTIONS = {b"forward": (False,), b"reverse": (True,), b"bidirectional": (False, True)}


def gated(places: Places, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
    """Convert a GRU, in one direction or both.

    Raises
    ------
    NoTapeError
        Its attributes are not supported, or its weights or states have another shape.
    """
    source = places.operand(node.input[0])
    if len(source.shape) != 3:
        raise NoTapeError(f"GRU of {len(source.shape)} axes")
    steps, rows, _ = source.shape
    size = int(attributes["hidden_size"])
    directions = _DIRECTIONS.get(attributes.get("direction", b"forward"), ())
    usual = {"layout": 0, "clip": 0.0, "activations": [b"Sigmoid", b"Tanh"] * len(directions)}
    if not directions or any(attributes.get(name, value) != value for name, value in usual.items()):
        raise NoTapeError("GRU with other activations, a limit or another layout")
    if not attributes.get("linear_before_reset") or (len(node.input) > 4 and node.input[4]):
        raise NoTapeError("GRU that resets before the product, or of several lengths")
    inward, recurrent = (places.constant(node.input[k]) for k in (1, 2))
    wanted = (len(directions), 3 * size, source.shape[2]), (len(directions), 3 * size, size)
    if (inward.shape, recurrent.shape) != wanted:
        raise NoTapeError("GRU with weights of another shape")
    bias = np.zeros((len(directions), 6 * size), np.float32)
    if len(node.input) > 3 and node.input[3]:
        bias = places.constant(node.input[3]).copy()
        if bias.shape != (len(directions), 6 * size):
            raise NoTapeError("GRU with a bias of another shape")
    bias[:, : 2 * size] += bias[:, 3 * size : 5 * size]
    state = places.operand(node.input[5]) if len(node.input) > 5 and node.input[5] else None
    if state is not None and math.prod(state.shape) != len(directions) * rows * size:
        raise NoTapeError("GRU with a state of another shape")
    whole = node.output[0] or f"{node.output[1]} of every step"
    out = places.result(whole, (steps, len(directions), rows, size))
    step = len(directions) * rows * size
    gates = places.new((len(directions), steps, rows, 3 * size))
    third = places.fill(np.ascontiguousarray(bias[:, : 3 * size]))
    for k in range(len(directions)):
        own = replace(gates, base=gates.base + k * steps * rows * 3 * size)
        right = places.fill(np.ascontiguousarray(inward[k].T))
        more = replace(third, base=third.base + k * 3 * size)
        sizes = [1, steps * rows, inward.shape[2], 3 * size]
        places.emit(interpreter.PRODUCT, [own, source, right, more], sizes)
    last = np.zeros((len(directions), 1, 3 * size), np.float32)
    last[:, 0, 2 * size :] = bias[:, 5 * size :]
    weights = places.fill(np.concatenate([recurrent.swapaxes(1, 2), last], axis=1))
    scratch = places.new((len(directions), rows, 3 * size))
    sizes = [steps, rows, size, len(directions)]
    steps_of = [scratch.base, step, int(directions[0]), 0]
    places.emit(interpreter.RECURRENT, [out, gates, weights, state], sizes, steps_of)
    if len(node.output) > 1 and node.output[1] and places.used(node.output[1]):
        if len(directions) > 1:
            raise NoTapeError("GRU in both directions whose last states are used")
        end = 0 if directions[0] else (steps - 1) * step
        final = replace(out, base=out.base + end, shape=(1, rows, size))
        places.same(node.output[1], final, (1, rows, size))


def long_short_term(places: Places, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
    """Convert one step of an LSTM for one row.

    Raises
    ------
    NoTapeError
        It has more steps, rows or directions, or other attributes.
    """
    source = places.operand(node.input[0])
    size = int(attributes["hidden_size"])
    usual = {"layout": 0, "clip": 0.0, "input_forget": 0, "direction": b"forward"}
    usual["activations"] = [b"Sigmoid", b"Tanh", b"Tanh"]
    if any(attributes.get(name, value) != value for name, value in usual.items()):
        raise NoTapeError("LSTM with other activations, a limit, both directions or another layout")
    names = [*node.input, "", "", "", "", ""][:8]
    if source.shape[:2] != (1, 1) or names[4] or names[7]:
        raise NoTapeError("LSTM of several steps or rows")
    inward, recurrent = places.constant(names[1])[0], places.constant(names[2])[0]
    wanted = (4 * size, source.shape[2]), (4 * size, size)
    if (inward.shape, recurrent.shape) != wanted:
        raise NoTapeError("LSTM with weights of another shape")
    bias = np.zeros(8 * size, np.float32)
    if names[3]:
        bias = places.constant(names[3]).reshape(-1)
    zeros = np.zeros(size, np.float32)
    hidden, cell = (places.operand(n) if n else places.fill(zeros) for n in names[5:7])
    if {math.prod(hidden.shape), math.prod(cell.shape)} != {size} or bias.shape != (8 * size,):
        raise NoTapeError("LSTM with states or a bias of another shape")
    gates = places.new((4 * size,))
    both = places.fill((bias[: 4 * size] + bias[4 * size :]).astype(np.float32))
    for left, weights, third in ((source, inward, both), (hidden, recurrent, gates)):
        right = places.fill(np.ascontiguousarray(weights.T))
        sizes = [1, 1, weights.shape[1], 4 * size]
        places.emit(interpreter.PRODUCT, [gates, left, right, third], sizes)

    def gate(k: int, count: int = 1) -> Operand:
        return replace(gates, base=gates.base + k * size, shape=(count * size,))

    def unary(kind: str, to: Operand, value: Operand) -> None:
        sizes = [1, 1, 1, math.prod(to.shape)]
        places.emit(UNARY[kind], [to, value], sizes, [0, 0, 0, 1])

    def binary(kind: str, to: Operand, left: Operand, right: Operand) -> None:
        places.emit(BINARY[kind], [to, left, right], [1, 1, 1, size], [0, 0, 0, 1], [0, 0, 0, 1])

    unary("Sigmoid", gate(0, 3), gate(0, 3))  # input, output and forget gate
    unary("Tanh", gate(3), gate(3))
    following, kept = places.new((1, 1, size)), places.new((size,))
    binary("Mul", kept, gate(2), cell)
    binary("Mul", gate(3), gate(0), gate(3))
    binary("Add", following, kept, gate(3))
    unary("Tanh", kept, following)
    made = places.new((1, 1, size))
    binary("Mul", made, gate(1), kept)
    shapes = (1, 1, 1, size), (1, 1, size), (1, 1, size)
    for name, value, shape in zip(node.output, (made, made, following), shapes, strict=False):
        if name and places.used(name):
            places.same(name, value, shape)
