"""Two talkers from two microphones, without training: online independent vector analysis.

T. Taniguchi, N. Ono, A. Kawamura, S. Sagayama, "An Auxiliary-Function Approach to Online
Independent Vector Analysis for Real-Time Blind Source Separation", HSCMA 2014, with the
time-varying Gaussian source model of N. Ono, "Auxiliary-Function-Based Independent Vector Analysis
with Power of Vector-Norm Type Weighting Functions", APSIPA 2012.

Each bin has two filters over the microphones, one per source. Filter ``k`` is what is orthogonal to
the other one under a covariance of the microphones, in which every frame weighs as the inverse
power of source ``k``: where that source is weak, the others are heard alone, and are learned to be
cancelled. Powers are summed over all bins, so that the bins agree which source is which. For two
sources each step is a closed formula of 2 x 2 matrices.

Causality: the paper's batch average over all frames is a forgetting one. It forgets within half a
second at first, and within three seconds later, because filters of the first frames mislead. In
silence nothing is forgotten. The first seconds of a stream are therefore hardly separated.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rtsep.nn.frontend import of_spectra
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

PAPER = (
    "Taniguchi, Ono, Kawamura, Sagayama: An Auxiliary-Function Approach to Online Independent "
    "Vector Analysis for Real-Time Blind Source Separation, HSCMA 2014"
)
SIZES: dict[str, dict[str, Any]] = {"small": {}}
"""There are no weights, so there is one size."""

PRIOR = 1e-4
"""Power of the microphones' own noise, relative to that of a bin."""
LEAST = 1e-6
"""Power of the microphones' own noise, relative to the mean of all bins."""
SILENCE = 2e-4
"""Power below which frames are not learned, relative to the loudest one of the last 30 s, and
least power of a source, relative to its usual one."""
WEAK = 1.0
"""Bins whose usual power is below this, relative to the mean of all bins, count less for what a
source does in a frame."""
LEVEL_S = 30.0
TINY = 1e-20


def build(spec: Spec, **options: Any) -> IVA:
    """Build it for the frames of ``spec``, with the options of `IVA`.

    Raises
    ------
    ValueError
        The stream hasn't two channels and two sources of spectra, or waits for later frames.
    """
    found = of_spectra("iva", spec)
    if (spec.channels, len(spec.sources), spec.lookahead) != (2, 2, 0):
        raise ValueError("iva separates 2 channels into 2 sources without lookahead")
    return IVA(found["bins"], spec.sample_rate / spec.hop_length, **options)


class IVA(Streaming):
    """Maps spectra of two microphones to the two sources as each microphone hears them.

    Shapes: (streams, frames, 2 microphones, 2, bins) -> (streams, frames, 2 sources,
    2 microphones, 2, bins). The sources add up to the mixture.

    Parameters
    ----------
    bins
        Bins of a spectrum.
    frames_per_second
        Rate of the frames.
    memory_s, first_s, settle_s
        Seconds that are remembered, at first and later, and time constant of the change.
    """

    def __init__(
        self,
        bins: int,
        frames_per_second: float,
        memory_s: float = 3.2,
        first_s: float = 0.4,
        settle_s: float = 2.0,
    ) -> None:
        super().__init__()
        self.bins = bins
        self.new, self.new_at_first = (1 / (s * frames_per_second) for s in (memory_s, first_s))
        self.settling = 1 - math.exp(-1 / (settle_s * frames_per_second))
        self.level_keep = math.exp(-1 / (LEVEL_S * frames_per_second))
        identity = torch.zeros(2, 2, 2, 1)
        identity[0, 0, 0] = identity[1, 1, 0] = 1
        self.register_buffer("identity", identity, persistent=False)
        self.identity: Tensor

    def initial_state(self, streams: int) -> State:
        """Return zeros: filters less the identity, covariances, shares of memory, peak power."""
        return {
            "filters": torch.zeros(streams, 2, 2, 2, self.bins),
            "usual": torch.zeros(streams, 4, self.bins),
            "weighted": torch.zeros(streams, 2, 4, self.bins),
            "memory": torch.zeros(streams, 2),
            "level": torch.zeros(streams, 1),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate, frame by frame, because each frame changes the filters of the next."""
        frames = []
        for frame in x.unbind(1):
            y, state = self._step(frame, state)
            frames.append(y)
        return torch.stack(frames, dim=1), state

    def _step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        a, b = (_Complex(*x[:, m].unbind(1)) for m in range(2))
        filters = state["filters"] + self.identity
        rows = [[_Complex(*w.unbind(1)) for w in row.unbind(1)] for row in filters.unbind(1)]

        energy = (a.power() + b.power()).sum(dim=1, keepdim=True)
        level = torch.maximum(state["level"] * self.level_keep, energy)
        heard = energy / (energy + SILENCE * level).clamp_min(TINY)
        memory = state["memory"]
        new = heard * (self.new + (self.new_at_first - self.new) * (1 - memory[:, :1]))
        rates = torch.cat([self.settling * heard, new], dim=1)
        memory = memory + rates * (1 - memory)
        guess = PRIOR + 1 - memory[:, 1:]

        new = new.unsqueeze(1)
        outer = _outer(a, b)
        usual = state["usual"] + new * (outer - state["usual"])
        weighted = []
        for k, (p, q) in enumerate(rows):
            y = p.times(a).plus(q.times(b))
            common = _power(rows[k], usual)
            common = common + WEAK * common.mean(dim=1, keepdim=True)
            power = (y.power() / common.clamp_min(TINY)).mean(dim=1, keepdim=True)
            old = state["weighted"][:, k]
            weighted.append(old + new * (outer / (power.unsqueeze(1) + SILENCE) - old))
            rows[k] = _across(weighted[k], rows[1 - k], guess)
        images = _images(rows, a, b)
        sources = torch.stack([torch.stack([i.stacked() for i in image], 1) for image in images], 1)
        filters = torch.stack([torch.stack([w.stacked() for w in row], 1) for row in rows], 1)
        return sources, {
            "filters": filters - self.identity,
            "usual": usual,
            "weighted": torch.stack(weighted, dim=1),
            "memory": memory,
            "level": level,
        }


class _Complex:
    """A complex number per bin, (streams, bins), in operations that ONNX has."""

    def __init__(self, real: Tensor, imaginary: Tensor) -> None:
        self.real, self.imaginary = real, imaginary

    def times(self, other: _Complex) -> _Complex:
        return _Complex(
            self.real * other.real - self.imaginary * other.imaginary,
            self.real * other.imaginary + self.imaginary * other.real,
        )

    def plus(self, other: _Complex) -> _Complex:
        return _Complex(self.real + other.real, self.imaginary + other.imaginary)

    def scaled(self, factor: Tensor | float) -> _Complex:
        return _Complex(self.real * factor, self.imaginary * factor)

    def conjugate(self) -> _Complex:
        return _Complex(self.real, -self.imaginary)

    def power(self) -> Tensor:
        return self.real.square() + self.imaginary.square()

    def stacked(self) -> Tensor:
        return torch.stack([self.real, self.imaginary], dim=1)


_Filter = list[_Complex]
"""Factors of the two microphones."""


def _images(rows: list[_Filter], a: _Complex, b: _Complex) -> list[tuple[_Complex, _Complex]]:
    """Return each source as both microphones hear it: filtered, then through the inverse."""
    (p, q), (r, s) = rows
    determinant = p.times(s).plus(q.times(r).scaled(-1.0))
    inverse = determinant.conjugate().scaled(1 / determinant.power().clamp_min(TINY))
    y = p.times(a).plus(q.times(b)).times(inverse)
    first = (s.times(y), r.times(y).scaled(-1.0))
    rest = (a.plus(first[0].scaled(-1.0)), b.plus(first[1].scaled(-1.0)))
    return [first, rest]


def _outer(a: _Complex, b: _Complex) -> Tensor:
    """Return the microphones' covariance of one frame: two powers, and the product in two parts."""
    cross = a.times(b.conjugate())
    return torch.stack([a.power(), b.power(), cross.real, cross.imaginary], dim=1)


def _power(row: _Filter, covariance: Tensor) -> Tensor:
    """Return the power that a filter lets through."""
    p, q = row
    aa, bb, real, imaginary = covariance.unbind(1)
    both = p.times(q.conjugate()).times(_Complex(real, imaginary))
    power: Tensor = p.power() * aa + q.power() * bb + 2 * both.real
    return power


def _across(covariance: Tensor, other: _Filter, guess: Tensor) -> _Filter:
    """Return the filter that is orthogonal to ``other`` under the covariance, of length 1.

    ``guess`` is the weight of microphones that hear nothing in common.
    """
    power = 0.5 * (covariance[:, 0] + covariance[:, 1])
    power = (power + LEAST * power.mean(dim=1, keepdim=True)).clamp_min(TINY)
    aa, bb, real, imaginary = (covariance / power.unsqueeze(1)).unbind(1)
    aa, bb, ab = aa + guess, bb + guess, _Complex(real, imaginary)
    # Filters are stored conjugated: they multiply the microphones.
    u, v = (w.conjugate() for w in other)
    first = u.scaled(aa).plus(ab.times(v))
    second = ab.conjugate().times(u).plus(v.scaled(bb))
    length = torch.rsqrt((first.power() + second.power()).clamp_min(TINY))
    return [second.scaled(length), first.scaled(-length)]
