"""A bundle ready to run on a stream: its network, and engines for any rate around it."""

from __future__ import annotations

import statistics
import time

from rtsep.runtime.bundle import Bundle
from rtsep.runtime.model_step import Separator
from rtsep.runtime.pipeline import engine_for
from rtsep.runtime.resampled import Processor, Resampled
from rtsep.runtime.timing import TimedStep

_TRIALS = 15


class Loaded:
    """A bundle and its one network, whose state all engines made here share.

    Parameters
    ----------
    bundle
        The model.
    channels
        Audio channels of the stream.

    Raises
    ------
    BundleError
        See `rtsep.runtime.model_step.Separator`.
    """

    def __init__(self, bundle: Bundle, channels: int) -> None:
        self.bundle, self.channels = bundle, channels
        self.step = TimedStep(Separator(bundle, bundle.spec.streams(channels)))

    @property
    def name(self) -> str:
        """Of the model."""
        return self.bundle.metadata["name"]

    def engine(self, rate: int, block: int) -> Processor | Resampled:
        """Make an engine for blocks that are multiples of ``block`` samples, at a rate in Hz."""
        return engine_for(self.step, self.bundle.spec, self.channels, rate, block)

    def load(self) -> float:
        """Measure the share of real time that the network takes now; it forgets what it heard."""
        spec, times = self.bundle.spec, []
        for _ in range(_TRIALS):
            start = time.perf_counter()
            self.step()
            times.append(time.perf_counter() - start)
        self.step.reset()
        return statistics.median(times) * spec.sample_rate / spec.step_length
