"""States of a model, kept in rings.

A call writes the newest position of each ring and reads older ones in place, without copies. A
reset clears nothing; before a call, `rtsep.runtime.tape.interpreter.forget` clears the positions
that the call would read from before the reset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from rtsep.runtime.bundle import State
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.interpreter import Program
from rtsep.spec import Float32, Int64

_NO_OPERATIONS = np.zeros((0, interpreter.WIDTH), np.int64)
_NO_PARAMETERS = np.zeros((0, 2), np.float32)


def ring_lengths(states: Mapping[str, State]) -> dict[str, int]:
    """Return the number of positions of each state's ring.

    They are powers of two, so all rings repeat together, and larger than the longest delay, so no
    call writes a position that it reads.
    """
    return {key: 1 << max(state.inputs).bit_length() for key, state in states.items()}


def make_program(
    streams: int,
    states: Mapping[str, State],
    rings: Mapping[str, Float32],
    memory: Float32,
    operations: Int64 = _NO_OPERATIONS,
    parameters: Float32 = _NO_PARAMETERS,
) -> Program:
    """Make the `Program` of a model's states and operations, if any.

    Parameters
    ----------
    streams
        Number of independent streams.
    states
        States of the bundle.
    rings
        (positions, streams, ...) of each state, views of ``memory``.
    memory, operations, parameters
        As in `rtsep.runtime.tape.interpreter.Program`.
    """
    reads = []
    for key, ring in rings.items():
        base = (ring.ctypes.data - memory.ctypes.data) // 4
        steps = [step // 4 for step in ring.strides[:2]]
        row = base, len(ring), *steps, math.prod(ring.shape[2:])
        reads += [(*row, calls) for calls in states[key].inputs]
    turns = max((len(ring) for ring in rings.values()), default=1)
    oldest = max((max(state.inputs) for state in states.values()), default=0)
    return Program(
        *(memory, operations, parameters),
        reads=np.array(reads, np.int64).reshape(-1, interpreter.CALLS + 1),
        known=np.zeros(streams, np.int64),
        cursors=np.array([0, turns, oldest, 0], np.int64),
    )


def reset(program: Program, stream: int | None = None) -> None:
    """Set the state of one stream, or of all, to zeros."""
    program.known[slice(None) if stream is None else stream] = 0
    program.cursors[interpreter.SETTLED] = 0
