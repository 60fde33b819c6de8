"""Run a model on a tape, see `rtsep.runtime.tape`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from rtsep.controls import PREFIX
from rtsep.dsp.held import Held
from rtsep.runtime import states
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.ort_step import Seen
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.graph import Tape
from rtsep.runtime.tape.interpreter import PROGRAM

MAX_ERROR = 1e-4
"""Largest difference from ONNX Runtime, relative to the largest value."""


class TapeStep:
    """A :class:`rtsep.spec.Step` on a tape: fill ``mixture``, call, read ``sources``.

    For single frames it takes a third of the time of ONNX Runtime.

    Parameters
    ----------
    bundle
        The model.
    streams
        Number of independent streams.
    graph
        The graph for this number of streams, with folded constants and fixed sizes.

    Attributes
    ----------
    controls
        Values of the controls by name, (streams, values); they may be set between two calls.
    program
        The program, which kernels may run in place of a call.
    temporary
        Index in the program's memory of the values that each call writes before it reads them.

    Raises
    ------
    NoTapeError
        An operation is not supported, or too irregular.
    """

    def __init__(self, bundle: Bundle, streams: int, graph: onnx.ModelProto) -> None:
        self.bundle = bundle
        declared = bundle.states
        inputs = {name: (k, n) for k, state in declared.items() for n, name in state.inputs.items()}
        kept = [PREFIX + name for name in bundle.controls]
        tape = Tape(graph, states.ring_lengths(declared), inputs, kept)
        self.temporary = tape.temporary
        self.mixture, self.sources = tape.view("mixture"), tape.view("sources")
        self.controls = {name: tape.view(PREFIX + name) for name in bundle.controls}
        for name, control in bundle.controls.items():
            self.controls[name][:] = control.default
        self.program = states.make_program(
            *(streams, declared, {key: tape.view(f"next_{key}") for key in declared}),
            *(tape.memory, tape.operations, tape.parameters),
        )
        self._held = Held(self.program, PROGRAM, interpreter.hold)

    def __call__(self) -> None:
        """Separate the chunk ``mixture`` to ``sources`` and advance the state."""
        interpreter.run(self._held.address)

    def reset(self, stream: int | None = None) -> None:
        """Set the state of one stream, or of all, to zeros."""
        states.reset(self.program, stream)


def lay(bundle: Bundle, streams: int, graph: Path, seen: Seen) -> TapeStep | None:
    """Make the step of a simplified graph; None if that fails or the results differ.

    Parameters
    ----------
    bundle, streams
        As in `TapeStep`.
    graph
        File of the simplified graph.
    seen
        Mixture and sources of the first calls of ONNX Runtime.
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
    except Exception:  # hostile graphs cause other exceptions, too; ONNX Runtime runs them
        return None
    step.mixture[:] = 0.0
    step.reset()
    return step
