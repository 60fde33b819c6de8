"""Let values that are never needed at once share memory, which then stays in the caches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtsep.runtime.tape.interpreter import LEFT, LEFT_STEPS, OP, OUT, RECURRENT, RIGHT, THIRD
from rtsep.spec import Int64


class Block(NamedTuple):
    """A part of a memory.

    Attributes
    ----------
    base, size
        First value and number of values.
    temporary
        Whether it is written before it is read in each run, and not needed after the run.
    """

    base: int
    size: int
    temporary: bool


def share(rows: Int64, blocks: list[Block]) -> tuple[Int64, int, int]:
    """Move blocks: first those that last, in their order, then the others over each other.

    Parameters
    ----------
    rows
        Operations (n, WIDTH), whose operands are changed in place. An operand lies within a block.
    blocks
        All blocks, in ascending order.

    Returns
    -------
    (numpy.ndarray, int, int)
        How far each block moved, and in the new memory the start of the temporary blocks and the
        number of values.
    """
    starts = np.array([block.base for block in blocks], np.int64)
    uses = [_uses(rows, column, starts) for column in (OUT, LEFT, RIGHT, THIRD)]
    recurrent = np.flatnonzero(rows[:, OP] == RECURRENT)  # they have a place for scratch, too
    uses.append((LEFT_STEPS, recurrent, _block_of(rows[recurrent, LEFT_STEPS], starts)))
    first = np.full(len(blocks), len(rows), np.int64)
    last = np.full(len(blocks), -1, np.int64)
    for _, operations, used in uses:
        np.minimum.at(first, used, operations)
        np.maximum.at(last, used, operations)
    bases = np.zeros(len(blocks), np.int64)
    start = 0
    for i, block in enumerate(blocks):
        if not block.temporary:
            bases[i], start = start, start + block.size
    end = _overlay(blocks, first, last, bases, start)
    moved: Int64 = bases - starts
    for column, operations, used in uses:
        rows[operations, column] += moved[used]
    return moved, start, end


def _uses(rows: Int64, column: int, starts: Int64) -> tuple[int, NDArray[np.intp], Int64]:
    """Return the operations that have this operand, and the block of each."""
    operations = np.flatnonzero(rows[:, column] >= 0)
    return column, operations, _block_of(rows[operations, column], starts)


def _block_of(bases: Int64, starts: Int64) -> Int64:
    return np.asarray(np.searchsorted(starts, bases, "right") - 1, np.int64)


def _overlay(blocks: list[Block], first: Int64, last: Int64, bases: Int64, start: int) -> int:
    """Place temporary blocks at the lowest base that is free while they are needed."""
    end = start
    active: list[int] = []
    for i in np.argsort(first, kind="stable"):
        if not blocks[i].temporary:
            continue
        active = [k for k in active if last[k] >= first[i]]
        base = start
        for k in sorted(active, key=lambda k: int(bases[k])):
            if bases[k] - base >= blocks[i].size:
                break
            base = max(base, int(bases[k]) + blocks[k].size)
        bases[i] = base
        if last[i] >= 0:
            active.append(int(i))
            end = max(end, base + blocks[i].size)
    return end
