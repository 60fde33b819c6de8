"""Make the step of a bundle: on the tape if that is faster, else in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from rtsep.runtime.bundle import Bundle
from rtsep.runtime.ort_step import CPU, OrtStep
from rtsep.runtime.tape_step import TapeStep, lay
from rtsep.runtime.unroll import body_of, unrolled

TAPE_FRAMES = 2
"""Largest number of frames per call, of all streams, for which the tape is faster."""

ModelStep = OrtStep | TapeStep


def make_step(
    bundle: Bundle, streams: int = 1, threads: int = 1, providers: Sequence[str] = (CPU,)
) -> ModelStep:
    """Make the step of a bundle, with zero state.

    Parameters
    ----------
    bundle
        The model.
    streams
        Number of independent streams.
    threads
        Threads of a call, in ONNX Runtime; more than 1 is rarely faster for single frames.
    providers
        ONNX Runtime execution providers by name, in order of preference; by default the CPU, which
        is faster than a GPU for frames of one stream.

    Raises
    ------
    BundleError
        ONNX Runtime rejects the graph, a provider is missing, the output for silence or noise is
        not finite, or the graph needs too much time or memory.
    """
    small = streams * bundle.spec.chunk <= TAPE_FRAMES
    if small:
        bundle = _without_scan(bundle, streams)
    if small and threads == 1 and providers[0] == CPU:
        step = _on_tape(bundle, streams)
        if step is not None:
            return step
    return OrtStep(bundle, streams, threads, providers)


def _without_scan(bundle: Bundle, streams: int) -> Bundle:
    """Return the bundle with its scan over streams unrolled, if it is one."""
    model = onnx.load_model_from_string(bundle.graph)
    if body_of(model) is None:
        return bundle
    return replace(bundle, graph=unrolled(model, streams).SerializeToString())


def _on_tape(bundle: Bundle, streams: int) -> ModelStep | None:
    """Make a tape of the graph as simplified by ONNX Runtime, if there is room for its file."""
    with suppress(OSError), TemporaryDirectory(prefix="rtsep-") as folder:
        plain = OrtStep(bundle, streams, simplified=Path(folder) / "graph.onnx")
        if plain.simplified is None:
            return plain
        return lay(bundle, streams, plain.simplified, plain.seen)
    return None
