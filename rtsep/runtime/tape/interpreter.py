"""The kernel that runs a tape, without allocation, locks or Python."""

from __future__ import annotations

import ctypes
from math import exp, log, sqrt
from typing import Any, NamedTuple

import numpy as np
from numba import types

from rtsep.dsp.held import putter, taker
from rtsep.dsp.kernel import FAST, array, inner, kernel, named
from rtsep.dsp.logistic import logistic, tanh
from rtsep.dsp.product import product
from rtsep.spec import Float32, Int64

WIDTH = 32
"""Number of integers of an operation."""
OP, OUT, LEFT, RIGHT, THIRD, SIZES, LEFT_STEPS, RIGHT_STEPS = 0, 1, 5, 9, 13, 17, 21, 25
"""Indices in an operation: its code; operands of four integers each, see `place`; sizes of the
result; and steps of the operands along each axis."""
AXES = 4
"""Largest number of axes of an operation, after adjacent axes were joined."""

BINARY = {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3, "Max": 4, "Min": 5}
BINARY |= {"Greater": 6, "Less": 7}
UNARY = {
    **{"Copy": 10, "Sqrt": 11, "Reciprocal": 12, "Neg": 13, "Exp": 14, "Log": 15, "Sigmoid": 16},
    **{"Clip": 17, "LeakyRelu": 18, "Pow": 19, "Abs": 20, "Tanh": 21, "Softplus": 22},
}
SUM, PRODUCT, PLACE, NORM, RECURRENT = 30, 31, 32, 33, 34
CODES = {**BINARY, **UNARY, "Sum": SUM, "Product": PRODUCT}
"""Codes by name. Clip has two parameters, LeakyRelu and Pow one, Sum a factor."""

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@inner
def place(operation, at, turn):  # type: ignore[no-untyped-def]
    """Return the start of an operand: its base, plus its copy times the size.

    An operand is (base, copies, size, delay): the value of ``delay`` turns ago is in copy
    ``(turn - delay) % copies``.
    """
    base, copies = operation[at], operation[at + 1]
    if copies == 1:
        return base
    return base + ((turn - operation[at + 3]) % copies) * operation[at + 2]


def _binary(apply: Any) -> Any:
    """Make the loop of an operation on two operands."""
    apply = inner(apply)

    @inner
    def rows(memory, out, left, right, size, left_step, right_step):  # type: ignore[no-untyped-def]
        z = memory[out : out + size]
        if left_step and right_step:
            x, y = memory[left : left + size], memory[right : right + size]
            for i in range(size):
                z[i] = apply(x[i], y[i])
        elif left_step:
            x, b = memory[left : left + size], memory[right]
            for i in range(size):
                z[i] = apply(x[i], b)
        elif right_step:
            a, y = memory[left], memory[right : right + size]
            for i in range(size):
                z[i] = apply(a, y[i])
        else:
            c = apply(memory[left], memory[right])
            for i in range(size):
                z[i] = c

    return rows


_add = _binary(lambda a, b: a + b)
_sub = _binary(lambda a, b: a - b)
_mul = _binary(lambda a, b: a * b)
_div = _binary(lambda a, b: a / b)
_max = _binary(lambda a, b: a if a >= b or a != a else b)
_min = _binary(lambda a, b: a if a <= b or a != a else b)
_greater = _binary(lambda a, b: _ONE if a > b else _ZERO)
_less = _binary(lambda a, b: _ONE if a < b else _ZERO)


@inner
def _combine(code, memory, out, left, right, size, left_step, right_step):  # type: ignore[no-untyped-def]
    if code == 0:
        _add(memory, out, left, right, size, left_step, right_step)
    elif code == 1:
        _sub(memory, out, left, right, size, left_step, right_step)
    elif code == 2:
        _mul(memory, out, left, right, size, left_step, right_step)
    elif code == 3:
        _div(memory, out, left, right, size, left_step, right_step)
    elif code == 4:
        _max(memory, out, left, right, size, left_step, right_step)
    elif code == 5:
        _min(memory, out, left, right, size, left_step, right_step)
    elif code == 6:
        _greater(memory, out, left, right, size, left_step, right_step)
    else:
        _less(memory, out, left, right, size, left_step, right_step)


@inner
def _change(code, memory, out, left, size, step, first, second):  # type: ignore[no-untyped-def]
    """Run an operation on one operand; ``first`` and ``second`` are its parameters."""
    z = memory[out : out + size]
    if code == 10:
        if step == 1:
            x = memory[left : left + size]
            for i in range(size):
                z[i] = x[i]
        else:
            for i in range(size):
                z[i] = memory[left + i * step]
        return
    x = memory[left : left + size]
    if code == 11:
        for i in range(size):
            z[i] = sqrt(x[i])
    elif code == 12:
        for i in range(size):
            z[i] = _ONE / x[i]
    elif code == 13:
        for i in range(size):
            z[i] = -x[i]
    elif code == 14:
        for i in range(size):
            z[i] = exp(x[i])
    elif code == 15:
        for i in range(size):
            z[i] = log(x[i])
    elif code == 16:
        for i in range(size):
            z[i] = logistic(x[i])
    elif code == 17:
        for i in range(size):
            value = x[i]
            value = first if value < first else value
            z[i] = second if value > second else value
    elif code == 18:
        for i in range(size):
            z[i] = x[i] if x[i] >= _ZERO else first * x[i]
    elif code == 19:
        if first == np.float32(2.0):
            for i in range(size):
                z[i] = x[i] * x[i]
        else:
            for i in range(size):
                z[i] = np.float32(exp(first * log(x[i]))) if x[i] > _ZERO else x[i] ** first
    elif code == 20:
        for i in range(size):
            z[i] = abs(x[i])
    elif code == 21:
        for i in range(size):
            z[i] = tanh(x[i])
    elif code == 22:
        for i in range(size):
            z[i] = np.float32(max(x[i], _ZERO) + np.log1p(exp(-abs(x[i]))))


@inner
def _sum(memory, out, left, count, length, after, factor):  # type: ignore[no-untyped-def]
    """Sum (count, length, after) over the middle axis and multiply by ``factor``."""
    for i in range(count):
        if after == 1:
            x = memory[left + i * length : left + (i + 1) * length]
            total = _ZERO
            for j in range(length):
                total += x[j]
            memory[out + i] = total * factor
        else:
            z = memory[out + i * after : out + (i + 1) * after]
            z[:] = _ZERO
            for j in range(length):
                at = left + (i * length + j) * after
                x = memory[at : at + after]
                for k in range(after):
                    z[k] += x[k]
            for k in range(after):
                z[k] *= factor


@inner
def _lay(memory, out, left, size, out_step, left_step):  # type: ignore[no-untyped-def]
    """Copy ``size`` values with different steps."""
    if out_step == 1 and left_step == 1:
        z, x = memory[out : out + size], memory[left : left + size]
        for j in range(size):
            z[j] = x[j]
    else:
        for j in range(size):
            memory[out + j * out_step] = memory[left + j * left_step]


@inner
def _norm(memory, out, left, gain, shift, rows, size, epsilon):  # type: ignore[no-untyped-def]
    """Normalise each row to mean 0 and variance 1, then apply ``gain`` and ``shift`` (size,)."""
    g, b = memory[gain : gain + size], memory[shift : shift + size]
    share = _ONE / np.float32(size)
    for row in range(rows):
        x = memory[left + row * size : left + (row + 1) * size]
        z = memory[out + row * size : out + (row + 1) * size]
        mean = _ZERO
        for j in range(size):
            mean += x[j]
        mean *= share
        power = _ZERO
        for j in range(size):
            power += (x[j] - mean) * (x[j] - mean)
        scale = _ONE / np.float32(sqrt(power * share + epsilon))
        for j in range(size):
            z[j] = (x[j] - mean) * scale * g[j] + b[j]


@inner
def _recur(memory, out, gates, weights, first, scratch, steps, rows, size, both, turned, step):  # type: ignore[no-untyped-def]
    """Run a gated recurrent unit; the gates are update, reset and new, as in ONNX.

    Two directions, the second one from the last step to the first, run side by side: the processor
    works on one while it waits for results of the other.

    Parameters, each with its directions before all else: ``gates`` (steps, rows, 3 * size), the
    products with the input; ``weights`` (size + 1, 3 * size), recurrent weights and, last, their
    bias; ``first`` (rows, size), negative for zeros; ``scratch`` (rows, 3 * size). ``out`` has
    (directions, rows, size) every ``step``.
    """
    wide, count = 3 * size, rows * size
    for k in range(steps):
        for way in range(1 + both):
            t = k if way == turned else steps - 1 - k
            before = first + way * count if first >= 0 else -1
            if k > 0:
                before = out + (t - 1 if way == turned else t + 1) * step + way * count
            w = weights + way * (size + 1) * wide
            u = scratch + way * 3 * count
            inputs = size if before >= 0 else 0
            product(memory, u, before, w, w + size * wide, rows, inputs, wide, 0)
        for way in range(1 + both):
            t = k if way == turned else steps - 1 - k
            before = first + way * count if first >= 0 else -1
            if k > 0:
                before = out + (t - 1 if way == turned else t + 1) * step + way * count
            for row in range(rows):
                at = gates + ((way * steps + t) * rows + row) * wide
                g, start = memory[at : at + wide], scratch + (way * rows + row) * wide
                u, n = memory[start : start + 2 * size], memory[start + 2 * size : start + wide]
                for j in range(2 * size):
                    u[j] = logistic(g[j] + u[j])
                for j in range(size):
                    n[j] = tanh(g[2 * size + j] + u[size + j] * n[j])
                at = out + t * step + way * count + row * size
                z = memory[at : at + size]
                if before >= 0:
                    h = memory[before + row * size : before + (row + 1) * size]
                    for j in range(size):
                        z[j] = n[j] + u[j] * (h[j] - n[j])
                else:
                    for j in range(size):
                        z[j] = n[j] - u[j] * n[j]


@kernel(inline="always")
def _run(memory: Float32, operations: Int64, parameters: Float32, turn: int) -> None:
    """Run all operations; ``turn`` is the number of the run, which selects the copies of states."""
    for i in range(operations.shape[0]):
        operation = operations[i]
        code = operation[OP]
        out, left = place(operation, OUT, turn), place(operation, LEFT, turn)
        n0, n1, n2 = operation[SIZES], operation[SIZES + 1], operation[SIZES + 2]
        size = operation[SIZES + 3]
        if code == PRODUCT:
            right = place(operation, RIGHT, turn)
            third = place(operation, THIRD, turn) if operation[THIRD] >= 0 else -1
            for batch in range(n0):
                product(
                    memory, out + batch * n1 * size, left + batch * operation[LEFT_STEPS],
                    right + batch * operation[RIGHT_STEPS], third, n1, n2, size,
                    operation[LEFT_STEPS + 1],
                )  # fmt: skip
        elif code == RECURRENT:
            _recur(
                memory, out, left, place(operation, RIGHT, turn),
                place(operation, THIRD, turn) if operation[THIRD] >= 0 else -1,
                operation[LEFT_STEPS], n0, n1, n2, size - 1,
                operation[LEFT_STEPS + 2], operation[LEFT_STEPS + 1],
            )  # fmt: skip
        elif code == NORM:
            right, third = place(operation, RIGHT, turn), place(operation, THIRD, turn)
            _norm(memory, out, left, right, third, n2, size, parameters[i, 0])
        elif code == PLACE:
            a = operation[LEFT_STEPS : LEFT_STEPS + AXES]
            b = operation[RIGHT_STEPS : RIGHT_STEPS + AXES]
            for i0 in range(n0):
                for i1 in range(n1):
                    for i2 in range(n2):
                        x = left + i0 * a[0] + i1 * a[1] + i2 * a[2]
                        y = out + i0 * b[0] + i1 * b[1] + i2 * b[2]
                        _lay(memory, y, x, size, b[3], a[3])
        elif code == SUM:
            _sum(memory, out, left, n1, n2, size, parameters[i, 0])
        else:
            a = operation[LEFT_STEPS : LEFT_STEPS + AXES]
            b = operation[RIGHT_STEPS : RIGHT_STEPS + AXES]
            binary = code < 10
            right = place(operation, RIGHT, turn) if binary else left
            for i0 in range(n0):
                for i1 in range(n1):
                    for i2 in range(n2):
                        x = left + i0 * a[0] + i1 * a[1] + i2 * a[2]
                        if binary:
                            y = right + i0 * b[0] + i1 * b[1] + i2 * b[2]
                            _combine(code, memory, out, x, y, size, a[3], b[3])
                        else:
                            _change(
                                code, memory, out, x, size, a[3], parameters[i, 0], parameters[i, 1]
                            )
                        out += size


TURN, TURNS = 0, 1
"""Indices in ``cursors``: the run, modulo the period of all rings; and this period."""
OLDEST = 2
"""Index in ``cursors``: runs after which no state from before is read."""
SETTLED = 3
"""Index in ``cursors``: whether all streams only read states from after their reset."""
BASE, COPIES, COPY_STEP, STREAM_STEP, SIZE, CALLS = range(6)
"""Indices in a read of a state: start of its copies in the memory, number of copies, step from copy
to copy and from stream to stream, size per stream, and delay in runs."""


class Program(NamedTuple):
    """A tape with its states. Without operations, ONNX Runtime runs the graph on the states."""

    memory: Float32
    """(values,): weights, states, inputs, intermediate values, outputs."""
    operations: Int64
    """(n, WIDTH), see `OP` and following."""
    parameters: Float32
    """(n, 2): two parameters of each operation."""
    reads: Int64
    """(n, 6), see `BASE` and following."""
    known: Int64
    """(streams,): runs since the reset of each."""
    cursors: Int64


PROGRAM = named(
    Program,
    *(array(1), array(2, types.int64), array(2)),
    *(array(2, types.int64), array(1, types.int64), array(1, types.int64)),
)
NO_TAPE = Program(
    *(np.zeros(0, np.float32), np.zeros((0, WIDTH), np.int64), np.zeros((0, 2), np.float32)),
    reads=np.zeros((0, CALLS + 1), np.int64),
    known=np.zeros(0, np.int64),
    cursors=np.array([0, 1, 0, 1], np.int64),
)
"""Program of a step with its own state, without streams."""


@kernel(types.void(PROGRAM), **FAST)
def forget(program: Program) -> None:
    """Clear the states that the next run would read from before a stream's reset.

    Only these, because clearing all states, tens of megabytes for some models, would miss the
    deadline.
    """
    memory, reads, known, cursors = program.memory, program.reads, program.known, program.cursors
    settled = 1
    for stream in range(known.size):
        if known[stream] < cursors[OLDEST]:
            for i in range(reads.shape[0]):
                read = reads[i]
                if read[CALLS] > known[stream]:
                    copy = (cursors[TURN] - read[CALLS]) % read[COPIES]
                    start = read[BASE] + copy * read[COPY_STEP] + stream * read[STREAM_STEP]
                    memory[start : start + read[SIZE]] = _ZERO
            known[stream] += 1
            if known[stream] < cursors[OLDEST]:
                settled = 0
    cursors[SETTLED] = settled


_put = putter(PROGRAM)
_take = taker(PROGRAM)


@kernel(types.void(PROGRAM, types.int64))
def hold(program: Program, address: int) -> None:
    """Store a program at an address."""
    _put(program, address)


@kernel(types.void(types.int64), callback=True, **FAST)
def step(address: int) -> None:
    """Run the program at an address once and advance its turn."""
    program = _take(address)
    cursors = program.cursors
    if not cursors[SETTLED]:
        forget(program)
    _run(program.memory, program.operations, program.parameters, cursors[TURN])
    cursors[TURN] = (cursors[TURN] + 1) % cursors[TURNS]


run = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(step.address)
"""`step` for Python, called with the lock of the interpreter."""
