"""A bundle's :class:`rtsep.spec.Step`: on a tape where that is quicker, else in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from rtsep.runtime.bundle import Bundle
from rtsep.runtime.ort_step import CPU, OrtStep
from rtsep.runtime.tape_step import TapeStep, lay

TAPE_FRAMES = 2
"""Up to so many frames of all streams in a call, a tape is quicker than ONNX Runtime."""

ModelStep = OrtStep | TapeStep


def make_step(
    bundle: Bundle, streams: int = 1, threads: int = 1, providers: Sequence[str] = (CPU,)
) -> ModelStep:
    """Make a model ready to be called, at its start.

    Parameters
    ----------
    bundle
        The model.
    streams
        Independent streams carried side by side.
    threads
        Of one call; more than 1 rarely pays for single frames. ONNX Runtime runs those.
    providers
        ONNX Runtime execution providers by name, in order of preference; the CPU by default, which
        is faster than a GPU for frames of one stream.

    Raises
    ------
    BundleError
        ONNX Runtime refuses the graph, a provider is not there, silence or noise in does not give
        finite frames out, or that takes too long or too much memory.
    """
    small = streams * bundle.spec.chunk <= TAPE_FRAMES
    if small and threads == 1 and providers[0] == CPU:
        step = _on_tape(bundle, streams)
        if step is not None:
            return step
    return OrtStep(bundle, streams, threads, providers)


def _on_tape(bundle: Bundle, streams: int) -> ModelStep | None:
    """Lay a tape of what ONNX Runtime makes of the graph, if there is room for it."""
    with suppress(OSError), TemporaryDirectory(prefix="rtsep-") as folder:
        plain = OrtStep(bundle, streams, simplified=Path(folder) / "graph.onnx")
        if plain.simplified is None:
            return plain
        return lay(bundle, streams, plain.simplified, plain.seen)
    return None
