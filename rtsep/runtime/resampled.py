"""An engine at another rate than its model's: stateful resampling around it, exactly delayed.

A polyphase filter of our own, because the delay of soxr is made for files: from 48 kHz to 16 kHz
and back it holds sound for 40 ms (LQ), 73 ms (HQ) or 28 ms (variable rate), and its only quick
setting (QQ) lets aliases through unattenuated. A linear-phase filter with a transition around the
lower Nyquist frequency does it in 3.1 ms at 80 dB, and its delay is arithmetic, not measurement.

All times are whole *ticks* of the common multiple of both rates. An outer sample lasts
``outer`` ticks and a model sample ``model``, so nothing is ever rounded, and the last
filter absorbs the fractional delay: the total is a whole number of outer samples for any rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import gcd
from typing import NamedTuple, Protocol

import numpy as np
from numba import types

from rtsep.dsp.kernel import named
from rtsep.dsp.polyphase import LINE, Line, Polyphase, half_width
from rtsep.latency import Latency, StreamLatency
from rtsep.spec import Float32, Int64, Spec, check_array

MAX_BLOCK_S = 0.1
"""Longest piece worked on at once, in seconds; longer blocks are cut into such pieces."""


class Rates(NamedTuple):
    """What the kernels work on between two rates; without any, the rates are the same."""

    inward: Line
    outward: Line
    mixture: Float32
    """(most, channels), at the model's rate."""
    stems: Float32
    """(most, sources, channels), at the model's rate."""
    replaced: Int64
    """(1,), samples replaced by 0."""


RATES = named(
    Rates,
    *(LINE, LINE, types.Array(types.float32, 2, "C"), types.Array(types.float32, 3, "C")),
    types.int64[::1],
)
_NONE = np.zeros((0, 0), np.float32)
_NO_LINE = Line(_NONE, _NONE, np.zeros(4, np.int64))
ONE_RATE = Rates(
    *(_NO_LINE, _NO_LINE, _NONE, np.zeros((0, 0, 0), np.float32)),
    np.zeros(1, np.int64),
)


class Processor(Protocol):
    """What is wrapped: an `rtsep.runtime.engine.Engine`, or whatever has its face."""

    @property
    def spec(self) -> Spec:
        """The stream of the model."""

    @property
    def latency(self) -> Latency:
        """In samples of the model's rate."""

    @property
    def latency_samples(self) -> int:
        """In samples of the blocks given."""

    @property
    def resampling(self) -> float:
        """Part of it that resampling adds."""

    @property
    def channels(self) -> int:
        """Channels of the mixture and of each stem."""

    @property
    def block(self) -> int:
        """Every call brings a multiple of this many samples."""

    @property
    def nonfinite_in(self) -> int:
        """Samples of the mixture replaced by 0."""

    @property
    def nonfinite_out(self) -> int:
        """Frames of the model replaced by silence."""

    def process(self, block: Float32, out: Float32 | None = None) -> Float32:
        """Fill ``out`` (n, sources, channels) from ``block`` (n, channels)."""

    def flush(self, out: Float32 | None = None) -> Float32:
        """Return what is still inside, and reset."""

    def reset(self) -> None:
        """Forget everything heard."""


def inner_block(outer_rate_hz: int, model_rate_hz: int, block: int) -> int:
    """Block size, in model samples, to build the engine with: 1 where it varies from call to call.

    Parameters
    ----------
    outer_rate_hz, model_rate_hz
        In Hz.
    block
        Outer blocks are multiples of this many samples.
    """
    for figure in (outer_rate_hz, model_rate_hz, block):
        if not isinstance(figure, int) or figure < 1:
            raise ValueError(f"rates and block must be whole numbers above 0, not {figure!r}")
    samples, rest = divmod(block * model_rate_hz, outer_rate_hz)
    return 1 if rest or not samples else samples


class Resampled:
    """An engine for sound of another rate: n samples in, n out, exactly `latency_samples` late.

    Parameters
    ----------
    engine
        Works at ``model_rate_hz``; built with the block of :func:`inner_block`.
    outer_rate_hz, model_rate_hz
        Of the device or file, and of the engine.
    block
        Every block given to :meth:`process` is a multiple of this; 1 for any size.

    Attributes
    ----------
    latency_samples
        Samples of the outer rate from a sound going in to its stems coming out; always whole.
    resampling
        The part of it that resampling adds, in samples of the outer rate (may be fractional,
        since the engine's own latency need not be a whole number of outer samples).
    piece
        Samples that are worked on at once, at most.
    rates
        What the kernels work on.
    """

    def __init__(
        self, engine: Processor, outer_rate_hz: int, model_rate_hz: int, block: int = 1
    ) -> None:
        if model_rate_hz != engine.spec.sample_rate:
            raise ValueError(f"the engine works at {engine.spec.sample_rate}, not {model_rate_hz}")
        inner = inner_block(outer_rate_hz, model_rate_hz, block)
        if inner % engine.block:
            raise ValueError(f"the engine's block is {engine.block}, it must divide {inner}")
        common = gcd(outer_rate_hz, model_rate_hz)
        outer, model = model_rate_hz // common, outer_rate_hz // common  # periods, in ticks
        half = half_width(outer, model)
        delay = engine.latency.total
        self.engine = engine
        self.channels = engine.channels
        self.block = block
        self.latency_samples = _smallest_latency(outer, model, half, delay, block)
        self.resampling = self.latency_samples - delay * model / outer

        # The model's clock starts early enough that the first outer sample completes nothing that
        # was due before it: every block then makes as many model samples as the same block later.
        start = (-1 - half) // model + 1
        self.piece = max(1, round(MAX_BLOCK_S * outer_rate_hz) // block) * block
        max_model = self.piece * outer // model + 2
        self._shape = (len(engine.spec.sources), engine.channels)
        width = self._shape[0] * self._shape[1]
        late = -self.latency_samples * outer
        self._inward = Polyphase(outer, model, 0, start * model, self.channels, self.piece)
        self._outward = Polyphase(model, outer, (start - delay) * model, late, width, max_model)
        self.rates = Rates(
            self._inward.line,
            self._outward.line,
            np.zeros((max_model, engine.channels), np.float32),
            np.zeros((max_model, *self._shape), np.float32),
            np.zeros(1, np.int64),
        )

    @property
    def latency(self) -> Latency:
        """Latency of the engine inside, in samples of the model's rate."""
        return self.engine.latency

    @property
    def spec(self) -> Spec:
        """The stream of the model; its rate is not that of the blocks."""
        return self.engine.spec

    @property
    def nonfinite_in(self) -> int:
        """Input samples replaced by 0 since construction: NaN, Inf, or too large for sound."""
        return int(self.rates.replaced[0]) + self.engine.nonfinite_in

    @property
    def nonfinite_out(self) -> int:
        """Frames of the model replaced by silence since construction."""
        return self.engine.nonfinite_out

    def process(self, block: Float32, out: Float32 | None = None) -> Float32:
        """Separate the next samples.

        Parameters
        ----------
        block
            (n, channels) float32, C-contiguous, at the outer rate; n is a multiple of
            ``self.block``. Longer ones are worked on in pieces of `MAX_BLOCK_S`.
        out
            (n, sources, channels) float32, C-contiguous, filled and returned; made if None.
        """
        n = len(block)
        check_array("block", block, (n, self.channels))
        if n % self.block:
            raise ValueError(f"{n} samples are not a multiple of the declared block, {self.block}")
        if out is None:
            out = np.empty((n, *self._shape), np.float32)
        check_array("out", out, (n, *self._shape))
        for first in range(0, n, self.piece):
            piece = slice(first, first + self.piece)
            self.rates.replaced[0] += self._inward.push(block[piece])
            count = self._inward.ready
            self._inward.pull(self.rates.mixture[:count])
            if count:
                stems = self.engine.process(self.rates.mixture[:count], self.rates.stems[:count])
                self._outward.push(stems.reshape(count, -1))
            part = out[piece]
            self._outward.pull(part.reshape(len(part), -1))
        return out

    def flush(self, out: Float32 | None = None) -> Float32:
        """Return what is still inside, and reset: the next sample starts a new stream.

        Parameters
        ----------
        out
            (latency_samples, sources, channels) float32, C-contiguous; made anew if not given.
        """
        total = self.latency_samples
        if out is None:
            out = np.empty((total, *self._shape), np.float32)
        check_array("out", out, (total, *self._shape))
        blocks = -(-total // self.block)
        silence = np.zeros((blocks * self.block, self.channels), np.float32)
        out[:] = self.process(silence)[:total]
        self.reset()
        return out

    def reset(self) -> None:
        """Start anew, as if just built; only the counters go on."""
        self.engine.reset()
        self._inward.reset()
        self._outward.reset()


def _smallest_latency(outer: int, model: int, half: int, delay: int, block: int) -> int:
    """Outer samples of latency with which no block ever waits for a model sample.

    After ``count`` outer samples came in, model samples with their filter's edge before tick
    ``count * outer`` exist, and the engine has given those up to ``delay`` earlier. The newest
    output lies at tick ``(count - 1 - latency) * outer`` and needs those up to ``half`` ticks after
    it. Seen in model samples, counts of whole blocks repeat after ``model`` blocks at most.
    """
    period = model // gcd(block * outer, model)
    counts = np.arange(1, period + 1, dtype=np.int64) * block
    newest = (counts * outer - 1 - half) // model - delay
    latency = max(0, (2 * half + (delay - 1) * model) // outer - 1)  # nothing less can do
    while np.any(((counts - 1 - latency) * outer + half) // model > newest):
        latency += 1
    return latency


def around(
    build: Callable[[int], Processor], outer_rate_hz: int, model_rate_hz: int, block: int = 1
) -> Processor | Resampled:
    """Build an engine for sound of any rate: bare where the rates agree, `Resampled` elsewhere.

    Parameters
    ----------
    build
        Makes the engine for blocks that are multiples of the given number of model samples.
    outer_rate_hz, model_rate_hz
        In Hz.
    block
        Outer blocks are multiples of this many samples; 1 for any size.
    """
    if outer_rate_hz == model_rate_hz:
        return build(block)
    inner = build(inner_block(outer_rate_hz, model_rate_hz, block))
    return Resampled(inner, outer_rate_hz, model_rate_hz, block)


def stream_latency(
    engine: Processor | Resampled, rate_hz: int, device: Mapping[str, int] | None = None
) -> StreamLatency:
    """Latency of a stream by its terms: the engine's, resampling, and those of a device.

    Parameters
    ----------
    engine
        Works on sound of ``rate_hz``.
    rate_hz
        Of the stream, in Hz.
    device
        Terms of the device it runs on, in samples of that rate; none for an engine alone.
    """
    ratio = rate_hz / engine.spec.sample_rate
    inside = {name: n * ratio for name, n in asdict(engine.latency).items()}
    terms = {**inside, "resampling": engine.resampling, **(device or {})}
    return StreamLatency(rate_hz, terms)
