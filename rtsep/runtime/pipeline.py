"""A whole recording through the live engine: the latency taken off, the end flushed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from rtsep.runtime.engine import Engine
from rtsep.runtime.resampled import Processor, Resampled, around
from rtsep.spec import Float32, Spec, Step

BLOCK = 1 << 14
"""Samples worked on at once."""


def engine_for(
    step: Step, spec: Spec, channels: int, rate_hz: int, block: int = 1
) -> Processor | Resampled:
    """Build the engine that runs ``step`` on sound of any rate.

    Parameters
    ----------
    step, spec
        The model and its stream.
    channels
        Of the sound.
    rate_hz
        Of the sound; the stems have it too.
    block
        Blocks are multiples of this many samples; 1 for any size.
    """
    return around(
        lambda inner: Engine(step, spec, channels, inner), rate_hz, spec.sample_rate, block
    )


def aligned(engine: Processor | Resampled, mixture: Iterable[Float32]) -> Iterator[Float32]:
    """Separate a recording into stems that line up with it and are as long.

    Parameters
    ----------
    engine
        At its start; it is back there when all has been yielded.
    mixture
        Blocks of (n, channels) float32, n at most `BLOCK`.

    Yields
    ------
    (n, sources, channels) float32. The array is used again for the next block.
    """
    stems = np.zeros((BLOCK, len(engine.spec.sources), engine.channels), np.float32)
    late = engine.latency_samples
    for block in mixture:
        part = engine.process(block, stems[: len(block)])
        skipped = min(late, len(part))
        late -= skipped
        yield part[skipped:]
    yield engine.flush()[late:]
