"""Latency by its terms; the only place where it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from rtsep.spec import Spec


@dataclass(frozen=True)
class Latency:
    """Algorithmic latency by its terms, in samples of the model's rate.

    Attributes
    ----------
    overlap
        ``synthesis_length - hop_length``: a sample is complete when its last frame is.
    reblocking
        ``step - gcd(block, step)``: wait for whole chunks if blocks are not multiples of them.
    lookahead
        ``lookahead * hop_length``: future frames the model waits for.
    """

    overlap: int
    reblocking: int
    lookahead: int

    @property
    def total(self) -> int:
        """The sum of the terms: the exact delay of each output sample, in samples."""
        return self.overlap + self.reblocking + self.lookahead

    @classmethod
    def of(cls, spec: Spec, block: int) -> Latency:
        """Return the latency of ``spec`` in blocks of ``block`` samples (1 if the size varies)."""
        step = spec.step_length
        return cls(
            overlap=spec.synthesis_length - spec.hop_length,
            reblocking=step - gcd(block, step),
            lookahead=spec.lookahead * spec.hop_length,
        )


def counted(spec: Spec) -> int:
    """Return the latency as the literature counts it, window plus lookahead, in samples.

    That of a stream in blocks of whole steps is one step shorter: the first sample of a step has
    waited for the last one, which has not waited.
    """
    return Latency.of(spec, spec.step_length).total + spec.step_length


@dataclass(frozen=True)
class StreamLatency:
    """Latency of a stream by its terms, at the sample rate of its input and output.

    Attributes
    ----------
    rate_hz
        Sample rate of the stream, in Hz.
    terms
        Samples of that rate by name. With a model of another rate, single terms may be fractional;
        their sum is an integer.

    Examples
    --------
    >>> latency = StreamLatency(16000, {"overlap": 128, "reblocking": 127, "lookahead": 0})
    >>> latency.samples, latency.ms
    (255, 15.9375)
    >>> print(latency)
    15.9 ms = overlap 8.0 + reblocking 7.9
    """

    rate_hz: int
    terms: Mapping[str, float]

    @property
    def samples(self) -> int:
        """Samples between the input of a sound and the output of its stems."""
        return round(sum(self.terms.values()))

    @property
    def ms(self) -> float:
        """The same in milliseconds."""
        return sum(self.terms_ms.values())

    @property
    def terms_ms(self) -> dict[str, float]:
        """Its terms in milliseconds."""
        return {name: 1000 * n / self.rate_hz for name, n in self.terms.items()}

    def __str__(self) -> str:
        """Format the sum and the terms that are not zero."""
        terms = [f"{name} {ms:.1f}" for name, ms in self.terms_ms.items() if ms]
        return f"{self.ms:.1f} ms" + " = " * bool(terms) + " + ".join(terms)
