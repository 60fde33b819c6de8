"""Plan the memory of a tape: place the values of a graph and collect the operations."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import NoTapeError
from rtsep.runtime.tape import huge_pages
from rtsep.runtime.tape.interpreter import AXES, PLACE, WIDTH
from rtsep.runtime.tape.reuse import Block, share
from rtsep.spec import Float32, Int64

Shape = tuple[int, ...]

MAX_VALUES = 1 << 26
"""Largest number of values, weights and states included: 256 MB."""
SHORT = 8
"""A copy whose innermost axis is shorter loops along its longest axis instead."""
_ALIGN = 16  # float32 values of a cache line


@dataclass(frozen=True)
class Operand:
    """The place of a value, see `rtsep.runtime.tape.interpreter.place`.

    Attributes
    ----------
    shape
        Shape of the value, which is contiguous.
    base, copies, size, delay
        Start, number of copies, size of a copy, and delay in runs.
    """

    shape: Shape
    base: int
    copies: int = 1
    size: int = 0
    delay: int = 0

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """The four integers of an operation."""
        return self.base, self.copies, self.size, self.delay


class Places:
    """Collects placed values and operations.

    Parameters
    ----------
    shapes
        Shapes of values by name, as far as known.
    constants
        Known values; placed when an operation uses them.

    Attributes
    ----------
    values
        Operands of placed values, by name.
    last_use
        Number of the last node that reads a value, by name; outputs of the graph have none after.
    now
        Number of the node that is being converted.
    """

    def __init__(self, shapes: dict[str, Shape], constants: dict[str, NDArray[np.float32]]) -> None:
        self.shapes, self.constants = shapes, constants
        self.values: dict[str, Operand] = {}
        self.last_use: dict[str, int] = {}
        self.now = 0
        self._kept: list[tuple[int, int]] = []
        self._end = 0
        self._blocks: list[Block] = []
        self._filled: list[tuple[int, NDArray[np.float32]]] = []
        self._rows: list[list[int]] = []
        self._parameters: list[tuple[float, float]] = []

    def finish(self) -> tuple[Float32, int, Int64, Float32]:
        """Let temporary values share memory.

        Returns
        -------
        (numpy.ndarray, int, numpy.ndarray, numpy.ndarray)
            The memory, with the constants and zeros elsewhere; the start of its temporary values;
            operations (n, WIDTH) and their parameters (n, 2), for
            `rtsep.runtime.tape.interpreter.Program`.
        """
        rows = np.array(self._rows, np.int64).reshape(-1, WIDTH)
        moved, start, end = share(rows, self._blocks)
        starts = [block.base for block in self._blocks]

        def now(base: int) -> int:
            return base + int(moved[bisect_right(starts, base) - 1])

        memory = huge_pages.zeros(end)
        for base, values in self._filled:
            memory[now(base) : now(base) + values.size] = values.reshape(-1)
        self.values = {name: replace(v, base=now(v.base)) for name, v in self.values.items()}
        return memory, start, rows, np.array(self._parameters, np.float32).reshape(-1, 2)

    def _take(self, values: int, temporary: bool = False) -> int:
        """Reserve room for values; return its start."""
        if self._end + values > MAX_VALUES:
            raise NoTapeError(f"more than {MAX_VALUES} values")
        size = aligned(values)
        self._blocks.append(Block(self._end, size, temporary))
        base, self._end = self._end, self._end + size
        return base

    def new(self, shape: Shape) -> Operand:
        """Place a value that is written before it is read, in each run."""
        return Operand(shape, self._take(math.prod(shape), temporary=True))

    def lasting(self, shape: Shape) -> Operand:
        """Place a value that is zeros until it is written, and then stays."""
        return Operand(shape, self._take(math.prod(shape)))

    def ring(self, shape: Shape, copies: int) -> Operand:
        """Place several copies of a value in sequence."""
        size = aligned(math.prod(shape))
        return Operand(shape, self._take(copies * size), copies, size)

    def shape(self, name: str) -> Shape:
        """Return the shape of a value; raise if it is unknown."""
        shape = self.shapes.get(name)
        if shape is None or 0 in shape:
            raise NoTapeError(f"the shape of {name!r} is not known")
        return shape

    def result(self, name: str, shape: Shape) -> Operand:
        """Return the place of a node's output: an output of the graph, or a new place."""
        if name not in self.values:
            self.values[name] = self.new(shape)
        elif self.values[name].shape != shape:
            raise NoTapeError(f"{name!r} has shape {shape}, not {self.values[name].shape}")
        self.shapes[name] = shape
        return self.values[name]

    def operand(self, name: str) -> Operand:
        """Return the place of a value; place it if it is a constant."""
        if name not in self.values:
            self.values[name] = self.fill(self.constant(name))
        return self.values[name]

    def fill(self, values: NDArray[np.float32]) -> Operand:
        """Place a constant."""
        if values.dtype != np.float32:
            raise NoTapeError(f"a constant has type {values.dtype}")
        placed = self.lasting(values.shape)
        self._kept.append((placed.base, placed.base + max(values.size, 1)))
        self._filled.append((placed.base, values))
        return placed

    def used(self, name: str) -> bool:
        """Return whether a node reads a value, or it is an output of the graph."""
        return name in self.last_use

    def is_free(self, name: str) -> bool:
        """Return whether a value may be changed: no later node reads any part of its memory.

        Constants, inputs and outputs of the graph, and states may not.
        """
        value = self.values[name]
        start, end = value.base, value.base + math.prod(value.shape)
        if value.copies > 1 or any(a < end and start < b for a, b in self._kept):
            return False
        return not any(
            self.last_use.get(other, -1) > self.now
            for other, place in self.values.items()
            if place.base < end
            and start < place.base + place.copies * max(place.size, math.prod(place.shape))
        )

    def keep(self, operand: Operand) -> None:
        """Never change a value that was placed."""
        end = operand.base + operand.copies * max(operand.size, math.prod(operand.shape))
        self._kept.append((operand.base, end))

    def constant(self, name: str) -> NDArray[np.float32]:
        """Return a constant; raise if the value is not constant."""
        if name not in self.constants:
            raise NoTapeError(f"{name!r} must be a constant")
        return self.constants[name]

    def whole(self, name: str) -> list[int]:
        """Return constant integers."""
        return [int(n) for n in self.constant(name).reshape(-1)]

    def emit(
        self,
        code: int,
        operands: list[Operand | None],
        sizes: list[int],
        left: list[int] | None = None,
        right: list[int] | None = None,
        parameters: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add an operation, see `rtsep.runtime.tape.interpreter.OP` and following."""
        row = [code]
        for k in range(4):
            operand = operands[k] if k < len(operands) else None
            row += (-1, 1, 0, 0) if operand is None else operand.numbers
        row += [*sizes, *(left or [0] * AXES), *(right or [0] * AXES)]
        self._rows.append(row + [0] * (WIDTH - len(row)))
        self._parameters.append(parameters)

    def copy(self, out: Operand, source: Operand, steps: list[int], shape: Shape) -> None:
        """Add a copy that reads the source with the given steps."""
        sizes, (left, right) = joined(shape, [steps, strides(shape)])
        if sizes[-1] < SHORT:  # longest axis innermost, for fewer inner loops
            order = sorted(range(AXES), key=lambda axis: sizes[axis])
            sizes, left, right = ([row[axis] for axis in order] for row in (sizes, left, right))
        self.emit(PLACE, [out, source], sizes, left, right)

    def same(self, name: str, source: Operand, shape: Shape) -> None:
        """Let ``name`` refer to ``source`` with another shape; copy only if necessary."""
        if math.prod(shape) != math.prod(source.shape):
            raise NoTapeError(f"{name!r} has shape {shape}, but its source {source.shape}")
        if name in self.values:  # an output of the graph
            self.copy(self.result(name, shape), source, strides(source.shape), source.shape)
        else:
            self.values[name] = replace(source, shape=shape)

    def part(self, name: str, whole: str, begins: list[int]) -> None:
        """Let ``name`` refer to the part of a value from ``begins`` on."""
        source, shape = self.operand(whole), self.shape(name)
        ends = [begin + size for begin, size in zip(begins, shape, strict=True)]
        if len(shape) != len(source.shape) or any(map(int.__gt__, ends, source.shape)):
            raise NoTapeError(f"{source.shape} from {begins} on has no part {shape}")
        steps = strides(source.shape)
        moved = replace(source, base=source.base + sum(map(int.__mul__, begins, steps)))
        first = next((k for k, size in enumerate(shape) if size != 1), len(shape))
        if shape[first + 1 :] == source.shape[first + 1 :]:  # contiguous
            self.same(name, replace(moved, shape=shape), shape)
        else:
            self.copy(self.result(name, shape), moved, steps, shape)


def aligned(values: int) -> int:
    """Round up to whole cache lines."""
    return -(-max(values, 1) // _ALIGN) * _ALIGN


def strides(shape: Shape) -> list[int]:
    """Return the steps of a contiguous value along its axes."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def spread(shape: Shape, to: Shape) -> list[int]:
    """Return the steps of a contiguous value broadcast to a shape."""
    steps = [step if size > 1 else 0 for step, size in zip(strides(shape), shape, strict=True)]
    return [0] * (len(to) - len(shape)) + steps


def joined(shape: Shape, steps: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Join adjacent axes that are contiguous for all operands, to at most `AXES`."""
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
