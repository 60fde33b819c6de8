"""Compare a portable graph with the engine, in plain ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime

from rtsep.errors import BundleError
from rtsep.portable.graph import Portable
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine, StemOptions
from rtsep.runtime.model_step import make_step
from rtsep.spec import Float32

TOLERANCE = 1e-5
"""Largest difference of a sample, for mixtures of full scale 1."""
SECONDS = 1.0


def run(portable: Portable, mixture: Float32) -> Float32:
    """Separate with the graph in ONNX Runtime, block by block from the zero state.

    Parameters
    ----------
    mixture
        (n, channels), n a multiple of ``portable.block``.

    Returns
    -------
    (n, sources, channels), ``portable.latency_samples`` late.

    Raises
    ------
    BundleError
        ONNX Runtime rejects the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    names = [*portable.outputs, "next_state"]
    state = np.zeros((1, portable.state_size), np.float32)
    count = len(portable.spec.sources)
    stems = np.empty((len(mixture), count, portable.channels), np.float32)
    try:
        session = onnxruntime.InferenceSession(
            portable.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for start in range(0, len(mixture), portable.block):
            block = np.ascontiguousarray(mixture[start : start + portable.block].T[None])
            *parts, state = session.run(names, {"mixture": block, "state": state})
            sources = parts[0][0] if portable.outputs == ("sources",) else np.concatenate(parts)
            stems[start : start + portable.block] = sources.transpose(2, 0, 1)
    except Exception as error:  # ONNX Runtime raises its own types, bare RuntimeError too
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise BundleError(f"the portable graph does not run: {reason}") from None
    return stems


def check(portable: Portable, bundle: Bundle) -> float:
    """Compare the graph with the engine on noise, silence and quiet noise.

    Returns
    -------
    float
        Largest difference of a sample.

    Raises
    ------
    BundleError
        The difference is above `TOLERANCE`, or the graph does not run.
    """
    spec, channels = bundle.spec, portable.channels
    blocks = max(round(SECONDS * spec.sample_rate / portable.block), 12)
    rng = np.random.default_rng(0)
    mixture = rng.uniform(-0.5, 0.5, (blocks * portable.block, channels)).astype(np.float32)
    first, second = len(mixture) // 2, len(mixture) * 3 // 4
    mixture[first:second] = 0.0
    mixture[second:] *= 0.01
    options = StemOptions(floor_db=bundle.floor_db)
    step = make_step(bundle, spec.streams(channels))
    engine = Engine(step, spec, channels, portable.block, options=options)
    difference = float(np.abs(run(portable, mixture) - engine.process(mixture)).max())
    if not difference <= TOLERANCE:
        raise BundleError(
            f"the portable graph differs from the engine by {difference:.1e}, more than "
            f"{TOLERANCE:.0e}"
        )
    return difference
