"""Values of a tape share memory only where nothing is lost."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.reuse import Block, share
from tests.support.random_cases import cases

OPERANDS = (interpreter.OUT, interpreter.LEFT, interpreter.RIGHT, interpreter.THIRD)


@cases(60)
@given(st.data())
def test_values_share_memory_only_if_they_are_never_needed_at_once(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    ends = np.cumsum([16 * size for size in sizes])
    temporary = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    blocks = [
        Block(int(end) - 16 * size, 16 * size, kind)
        for end, size, kind in zip(ends, sizes, temporary, strict=True)
    ]
    some = st.lists(st.integers(0, len(sizes) - 1), min_size=4, max_size=4)
    chosen = data.draw(st.lists(some, min_size=1, max_size=20))
    rows = np.zeros((len(chosen), interpreter.WIDTH), np.int64)
    for row, used in zip(rows, chosen, strict=True):
        for column, block in zip(OPERANDS, used, strict=True):
            row[column] = blocks[block].base + blocks[block].size - 1  # a part of it
    moved, start, end = share(rows, blocks)
    places = [block.base + int(by) for block, by in zip(blocks, moved, strict=True)]
    for row, used in zip(rows, chosen, strict=True):
        assert [row[c] for c in OPERANDS] == [places[b] + blocks[b].size - 1 for b in used]
    alive = [[number for number, used in enumerate(chosen) if b in used] for b in range(len(sizes))]
    for a, b in combinations(range(len(sizes)), 2):
        if blocks[a].temporary and blocks[b].temporary:
            needed = alive[a] and alive[b]
            at_once = needed and alive[a][0] <= alive[b][-1] and alive[b][0] <= alive[a][-1]
        else:
            at_once = blocks[a].temporary == blocks[b].temporary
        apart = places[a] + blocks[a].size <= places[b] or places[b] + blocks[b].size <= places[a]
        assert apart or not at_once
    for block, place, use in zip(blocks, places, alive, strict=True):
        assert (place >= start) == block.temporary
        assert place + block.size <= end or not use
