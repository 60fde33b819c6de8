"""A model on a tape: its operations run by a kernel, see `rtsep.runtime.tape`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from rtsep.runtime import states
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.ort_step import Seen
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.graph import Tape

MAX_ERROR = 1e-4
"""Largest difference from what ONNX Runtime gives, relative to the largest value."""


class TapeStep:
    """The model's :class:`rtsep.spec.Step`: fill ``mixture``, call, read ``sources``.

    For single frames, a third of the time that ONNX Runtime takes.

    Parameters
    ----------
    bundle
        The model.
    streams
        Independent streams carried side by side.
    graph
        Its graph, simplified for so many streams: constants folded, every size fixed.

    Attributes
    ----------
    program
        What a kernel may run in place of a call.

    Raises
    ------
    NoTapeError
        An operation is not known, or too irregular.
    """

    def __init__(self, bundle: Bundle, streams: int, graph: onnx.ModelProto) -> None:
        self.bundle = bundle
        declared = bundle.states
        inputs = {name: (k, n) for k, state in declared.items() for n, name in state.inputs.items()}
        tape = Tape(graph, states.ring_lengths(declared), inputs)
        self.mixture, self.sources = tape.view("mixture"), tape.view("sources")
        self.program = states.make_program(
            *(streams, declared, {key: tape.view(f"next_{key}") for key in declared}),
            *(tape.memory, tape.operations, tape.parameters),
        )

    def __call__(self) -> None:
        """Separate the chunk in ``mixture`` into ``sources`` and advance the state."""
        interpreter.step(self.program)

    def reset(self, stream: int | None = None) -> None:
        """State := zeros, of one stream or of all."""
        states.reset(self.program, stream)


def lay(bundle: Bundle, streams: int, graph: Path, seen: Seen) -> TapeStep | None:
    """Lay a simplified graph out, if that can be done and gives the same.

    Parameters
    ----------
    bundle, streams
        As of `TapeStep`.
    graph
        File of the simplified graph.
    seen
        What the first calls of ONNX Runtime were given, and gave.
    """
    try:
        step = TapeStep(bundle, streams, onnx.load_model(graph))
        if not len(step.program.operations):
            return None
        for mixture, sources in seen:
            step.mixture[:] = mixture
            step()
            if not np.max(np.abs(step.sources - sources)) <= MAX_ERROR * np.max(np.abs(sources)):
                return None
    except Exception:  # hostile graphs find more kinds than are known; ONNX Runtime runs them
        return None
    step.mixture[:] = 0.0
    step.reset()
    return step
