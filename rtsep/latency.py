"""Latency is computed here and nowhere else, always by its terms."""

from __future__ import annotations

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
