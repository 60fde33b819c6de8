"""Products of small matrices in vector instructions, for kernels.

LLVM vectorises loops, but reads and writes the result in memory again for every few inputs, which
takes four times as long as the multiplications. The innermost loop is therefore written in LLVM's
own language: a tile of the result stays in registers until all inputs have been added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from rtsep.dsp.kernel import FAST, kernel

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers in the widest vector; LLVM divides it where the processor has shorter ones."""
ROWS = 4
"""Rows of a tile; with two vectors of each row, eight sums are independent of each other."""
CACHED = 8192
"""Weights, at most, that are read several times; more are read once, in their order."""

AHEAD = 16384
"""How far ahead weights are fetched into the second-level cache, in numbers. Between two hops,
others use the caches; the weights of a tape lie in the order of their use, a matrix has fewer."""

_int64, _int32, _byte, _float = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType()


def _tile(rows: int, vectors: int, lanes: int) -> Any:
    """Make the function that adds the product of rows with a few columns to other values.

    It is called with the memory, the indices in it of the first result, left and right element, the
    number of inputs (at least 1), the number of columns of the right and the resulting matrix, and
    the index of the first value to which the product is added and their step from row to row.
    """
    vector = ir.VectorType(_float, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    first = ir.Constant(ir.VectorType(_int32, lanes), [0] * lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, out, left, right, inputs, outputs, third, rise = arguments
        data = context.make_array(signature.args[0])(context, builder, memory).data
        name = f"llvm.fmuladd.v{lanes}f32"
        kind = ir.FunctionType(vector, [vector] * 3)
        insert: Any = cgutils.get_or_insert_function
        multiply_add = insert(builder.module, kind, name)
        kind = ir.FunctionType(ir.VoidType(), [_byte.as_pointer(), *[_int32] * 3])
        prefetch = insert(builder.module, kind, "llvm.prefetch.p0")

        def place(start: Any, column: int) -> Any:
            index = builder.add(start, _int64(column * lanes))
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        def fetch(address: Any) -> None:
            address = builder.bitcast(address, _byte.as_pointer())
            reading, second_level, of_data = _int32(0), _int32(2), _int32(1)
            builder.call(prefetch, [address, reading, second_level, of_data])

        def everywhere(index: Any) -> Any:
            value = builder.load(builder.gep(data, [index]))
            one = builder.insert_element(undefined, value, _int32(0))
            return builder.shuffle_vector(one, undefined, first)

        at = [builder.add(out, builder.mul(outputs, _int64(row))) for row in range(rows)]
        lefts = [builder.add(left, builder.mul(inputs, _int64(row))) for row in range(rows)]
        cells = [(row, column) for row in range(rows) for column in range(vectors)]
        terms = [builder.add(third, builder.mul(rise, _int64(row))) for row in range(rows)]
        start = [builder.load(place(terms[row], column), align=4) for row, column in cells]
        before = builder.basic_block
        loop, after = builder.append_basic_block("inputs"), builder.append_basic_block("done")
        builder.branch(loop)

        builder.position_at_end(loop)
        k, weights = builder.phi(_int64), builder.phi(_int64)
        sums = [builder.phi(vector) for _ in cells]
        row_of = [builder.load(place(weights, column), align=4) for column in range(vectors)]
        if lanes == LANES:  # never a fault, also beyond the memory's end
            for column in range(vectors):
                fetch(place(builder.add(weights, _int64(AHEAD)), column))
        x = [everywhere(builder.add(index, k)) for index in lefts]
        added = [
            builder.call(multiply_add, [x[row], row_of[column], total])
            for (row, column), total in zip(cells, sums, strict=True)
        ]
        next_k, next_weights = builder.add(k, _int64(1)), builder.add(weights, outputs)
        changes = [(k, _int64(0), next_k), (weights, right, next_weights)]
        changes += zip(sums, start, added, strict=True)
        for value, first_value, next_value in changes:
            value.add_incoming(first_value, before)
            value.add_incoming(next_value, loop)
        builder.cbranch(builder.icmp_signed("<", next_k, inputs), loop, after)

        builder.position_at_end(after)
        for (row, column), total in zip(cells, added, strict=True):
            builder.store(total, place(at[row], column), align=4)
        return context.get_dummy_value()

    @intrinsic
    def tile(
        _: Any, memory: Any, out: Any, left: Any, right: Any, inputs: Any, outputs: Any,
        third: Any, rise: Any,
    ) -> Any:  # fmt: skip
        kinds = memory, out, left, right, inputs, outputs, third, rise
        return types.void(*kinds), generate

    return tile


def _strip(vectors: int, lanes: int) -> Any:
    """Make the function that adds the product of all rows with a few columns to other values."""
    several, single = _tile(ROWS, vectors, lanes), _tile(1, vectors, lanes)

    @kernel(forceinline=True, **FAST)
    def strip(
        memory: Any, out: int, left: int, right: int, rows: int, inputs: int, outputs: int,
        third: int, rise: int,
    ) -> None:  # fmt: skip
        row = 0
        while row + ROWS <= rows:
            z, x, c = out + row * outputs, left + row * inputs, third + row * rise
            several(memory, z, x, right, inputs, outputs, c, rise)
            row += ROWS
        while row < rows:
            z, x, c = out + row * outputs, left + row * inputs, third + row * rise
            single(memory, z, x, right, inputs, outputs, c, rise)
            row += 1

    return strip


_one_row = _tile(1, 4, LANES)
_two_vectors, _vector = _strip(2, LANES), _strip(1, LANES)
_eight, _four, _two, _one = _strip(1, 8), _strip(1, 4), _strip(1, 2), _strip(1, 1)


@kernel(forceinline=True, **FAST)
def _in_tiles(
    memory: Any, out: int, left: int, right: int, rows: int, inputs: int, outputs: int,
    third: int, rise: int,
) -> None:  # fmt: skip
    j = 0
    if rows == 1:
        while j + 4 * LANES <= outputs:
            _one_row(memory, out + j, left, right + j, inputs, outputs, third + j, rise)
            j += 4 * LANES
    while j + 2 * LANES <= outputs:
        _two_vectors(memory, out + j, left, right + j, rows, inputs, outputs, third + j, rise)
        j += 2 * LANES
    if j + LANES <= outputs:
        _vector(memory, out + j, left, right + j, rows, inputs, outputs, third + j, rise)
        j += LANES
    if j + 8 <= outputs:
        _eight(memory, out + j, left, right + j, rows, inputs, outputs, third + j, rise)
        j += 8
    if j + 4 <= outputs:
        _four(memory, out + j, left, right + j, rows, inputs, outputs, third + j, rise)
        j += 4
    if j + 2 <= outputs:
        _two(memory, out + j, left, right + j, rows, inputs, outputs, third + j, rise)
        j += 2
    if j < outputs:
        _one(memory, out + j, left, right + j, rows, inputs, outputs, third + j, rise)


@kernel(forceinline=True, **FAST)
def _in_order(
    memory: Any, out: int, left: int, right: int, rows: int, inputs: int, outputs: int
) -> None:
    """Add the product, reading the right matrix once, from its first to its last element."""
    k = 0
    while k + 8 <= inputs:  # all rows use these weights before the next ones are read
        at = right + k * outputs
        w = memory[at : at + 8 * outputs].reshape(8, outputs)
        for row in range(rows):
            z = memory[out + row * outputs : out + (row + 1) * outputs]
            x = memory[left + row * inputs + k : left + row * inputs + k + 8]
            x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
            for j in range(outputs):
                z[j] += (
                    (x0 * w[0, j] + x1 * w[1, j] + (x2 * w[2, j] + x3 * w[3, j]))
                    + (x4 * w[4, j] + x5 * w[5, j] + (x6 * w[6, j] + x7 * w[7, j]))
                )  # fmt: skip
        k += 8
    while k < inputs:
        w1 = memory[right + k * outputs : right + (k + 1) * outputs]
        for row in range(rows):
            z = memory[out + row * outputs : out + (row + 1) * outputs]
            x0 = memory[left + row * inputs + k]
            for j in range(outputs):
                z[j] += x0 * w1[j]
        k += 1


@kernel(forceinline=True, **FAST)
def product(
    memory: Any,
    out: int,
    left: int,
    right: int,
    third: int,
    rows: int,
    inputs: int,
    outputs: int,
    rise: int,
) -> None:
    """Multiply (rows, inputs) by (inputs, outputs) within one memory.

    Parameters
    ----------
    memory
        Float32 of one axis, with all matrices, each C-contiguous.
    out, left, right
        Index of the first element of the result and of the factors. The result does not overlap
        with them.
    third
        Index of the values to which the product is added, or negative for zeros.
    rows, inputs, outputs
        Sizes.
    rise
        Step of the values at ``third`` from row to row, 0 if all rows have the same.
    """
    in_order = rows < ROWS and inputs * outputs > CACHED
    if third < 0 or in_order or inputs == 0:
        for row in range(rows):
            z = memory[out + row * outputs : out + (row + 1) * outputs]
            if third < 0:
                z[:] = np.float32(0.0)
            else:
                c = memory[third + row * rise : third + row * rise + outputs]
                for j in range(outputs):
                    z[j] = c[j]
        third, rise = out, outputs
    if in_order:
        _in_order(memory, out, left, right, rows, inputs, outputs)
    elif inputs > 0:
        _in_tiles(memory, out, left, right, rows, inputs, outputs, third, rise)
