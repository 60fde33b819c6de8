"""Load a bundle for streams of any rate, and separate whole recordings with the live engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from rtsep.controls import check
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import DEFAULT, Engine, StemOptions
from rtsep.runtime.model_step import make_step
from rtsep.spec import Float32

BLOCK = 1 << 14
"""Largest block, in samples."""
_TRIALS = 15


def aligned(engine: Engine, mixture: Iterable[Float32]) -> Iterator[Float32]:
    """Separate a recording; the stems are aligned with it and have its length.

    Parameters
    ----------
    engine
        A reset engine; it is reset again at the end.
    mixture
        Blocks of (n, channels) float32, n at most `BLOCK`.

    Yields
    ------
    (n, sources, channels) float32. The array is reused for the next block.
    """
    stems = np.zeros((BLOCK, len(engine.spec.sources), engine.channels), np.float32)
    late = engine.latency_samples
    for block in mixture:
        part = engine.process(block, stems[: len(block)])
        skipped = min(late, len(part))
        late -= skipped
        yield part[skipped:]
    yield engine.flush()[late:]


class LoadedModel:
    """A bundle with its step; all engines made from it share the step and its state.

    Parameters
    ----------
    bundle
        The model.
    channels
        Audio channels of the stream.
    options
        What is done to the stems.

    Raises
    ------
    BundleError
        See `rtsep.runtime.model_step.make_step`.
    """

    def __init__(self, bundle: Bundle, channels: int, options: StemOptions = DEFAULT) -> None:
        self.bundle, self.channels, self.options = bundle, channels, options
        self.step = make_step(bundle, bundle.spec.streams(channels))

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.bundle.metadata["name"]

    @property
    def controls(self) -> dict[str, tuple[float, ...]]:
        """Values of the model's controls by name."""
        return {name: tuple(values[0].tolist()) for name, values in self.step.controls.items()}

    def set_controls(self, settings: Mapping[str, Any]) -> None:
        """Set controls by name, also while the model runs: they are read by its next call.

        Raises
        ------
        ControlError
            There is no such control, or a value is invalid; nothing is changed.
        """
        for name, values in check(settings, self.bundle.controls).items():
            self.step.controls[name][:] = values

    def reset(self) -> None:
        """Set the state to zeros and the controls to their initial values."""
        self.step.reset()
        self.set_controls({name: one.default for name, one in self.bundle.controls.items()})

    def engine(self, rate: int, block: int = 1) -> Engine:
        """Make an engine for blocks that are multiples of ``block`` samples, at a rate in Hz."""
        floor_db, usual = self.options.floor_db, self.bundle.floor_db
        options = StemOptions(self.options.full_band, usual if floor_db is None else floor_db)
        return Engine(self.step, self.bundle.spec, self.channels, block, rate, options)

    def load(self) -> float:
        """Measure the share of real time that the model takes; resets its state."""
        spec, times = self.bundle.spec, []
        for _ in range(_TRIALS):
            start = time.perf_counter()
            self.step()
            times.append(time.perf_counter() - start)
        self.step.reset()
        return statistics.median(times) * spec.sample_rate / spec.step_length
