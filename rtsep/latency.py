"""Latency is computed here and nowhere else, always by its terms."""

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
        ``step - gcd(block, step)``: waiting for whole chunks when blocks don't divide them.
    lookahead
        ``lookahead * hop_length``: future frames the model waits for.
    """

    overlap: int
    reblocking: int
    lookahead: int

    @property
    def total(self) -> int:
        """The sum of the terms: each output sample is exactly this many samples late."""
        return self.overlap + self.reblocking + self.lookahead

    @classmethod
    def of(cls, spec: Spec, block: int) -> Latency:
        """Latency of ``spec`` run in blocks of ``block`` samples (1 if the size varies)."""
        step = spec.step_length
        return cls(
            overlap=spec.synthesis_length - spec.hop_length,
            reblocking=step - gcd(block, step),
            lookahead=spec.lookahead * spec.hop_length,
        )


@dataclass(frozen=True)
class StreamLatency:
    """Latency of a whole stream by its terms, at the rate of the sound that goes in and out.

    Attributes
    ----------
    rate_hz
        Of the stream, in Hz.
    terms
        Samples of that rate by name; those of a model of another rate may be fractional, their
        sum is not.

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
        """Samples from a sound going in to its stems coming out."""
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
        """In words, without the terms that are zero."""
        terms = [f"{name} {ms:.1f}" for name, ms in self.terms_ms.items() if ms]
        return f"{self.ms:.1f} ms" + " = " * bool(terms) + " + ".join(terms)
