"""States of a model: what its calls hand to later ones, in rings that forget.

Nothing is copied: a call writes the newest position of each ring, and reads older ones in place. A
reset clears nothing either; before a call, `rtsep.runtime.tape.interpreter.forget` clears what it
would read from before the reset.
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
    """Positions of each state's ring.

    Powers of two, so that all rings come round together; longer than the oldest call that is still
    read, so that no call writes where it reads.
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
    """Put a model's states, and its operations if there are any, together.

    Parameters
    ----------
    streams
        Independent streams carried side by side.
    states
        As the bundle declares them.
    rings
        (positions, streams, ...) of each, views of ``memory``.
    memory, operations, parameters
        As of `rtsep.runtime.tape.interpreter.run`.
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
    """State := zeros, of one stream or of all."""
    program.known[slice(None) if stream is None else stream] = 0
    program.cursors[interpreter.SETTLED] = 0
