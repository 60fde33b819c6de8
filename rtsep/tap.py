"""An engine whose stems others may read while it runs."""

from __future__ import annotations

import numpy as np

from rtsep.latency import Latency
from rtsep.resample import Processor, Resampled
from rtsep.ring import Ring
from rtsep.spec import Float32, Spec

KEPT_S = 2.0
"""Sound kept for a reader that is late, in seconds; what does not fit is lost to it."""


class Tap:
    """The engine it is given, with a ring of what came out for one reader in another thread.

    Parameters
    ----------
    engine
        Works on sound of ``rate_hz``.
    rate_hz
        In Hz.

    Attributes
    ----------
    lost
        Samples that the reader was too late for.
    reading
        Whether there is a reader; nothing is kept where there is none.
    """

    def __init__(self, engine: Processor | Resampled, rate_hz: int) -> None:
        self._engine = engine
        self._shape = (len(engine.spec.sources), engine.channels)
        self._ring = Ring(round(KEPT_S * rate_hz), self._shape[0] * self._shape[1])
        self.spec: Spec = engine.spec
        self.latency: Latency = engine.latency
        self.latency_samples = engine.latency_samples
        self.resampling = engine.resampling
        self.channels, self.block = engine.channels, engine.block
        self.lost = 0
        self.reading = False

    @property
    def nonfinite_in(self) -> int:
        """Samples of the mixture replaced by 0."""
        return self._engine.nonfinite_in

    @property
    def nonfinite_out(self) -> int:
        """Frames of the model replaced by silence."""
        return self._engine.nonfinite_out

    def process(self, block: Float32, out: Float32 | None = None) -> Float32:
        """Fill ``out`` (n, sources, channels) from ``block`` (n, channels), and keep a copy."""
        out = self._engine.process(block, out)
        if self.reading:
            self.lost += len(out) - self._ring.write(out.reshape(len(out), -1))
        return out

    def flush(self, out: Float32 | None = None) -> Float32:
        """Return what is still inside, and reset the engine."""
        return self._engine.flush(out)

    def reset(self) -> None:
        """Forget everything heard and kept; not while another thread reads."""
        self._engine.reset()
        self._ring.clear()
        self.lost = 0

    @property
    def readable(self) -> int:
        """Samples that can be read now."""
        return self._ring.readable

    def read(self, n: int) -> Float32:
        """Take the oldest samples, at most ``n``: (samples, sources, channels) float32."""
        out = np.empty((min(n, self.readable), self._ring.width), np.float32)
        self._ring.read(out)
        return out.reshape(len(out), *self._shape)
