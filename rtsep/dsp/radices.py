"""Lengths that the Fourier transform can have, which is to be known before it is compiled."""

from __future__ import annotations

MAX_FACTOR = 31
"""Largest prime factor of a transform's length: a stage costs its radix per sample."""


def factorise(length: int) -> list[int]:
    """Return the radices of the complex transform of a real one of ``length`` samples.

    Raises
    ------
    ValueError
        If the length is odd or half of it has a prime factor above `MAX_FACTOR`.
    """
    if length < 2 or length % 2:
        raise ValueError(f"the length of a transform must be even, not {length}")
    rest = length // 2
    factors: list[int] = []
    for radix in (8, 4, 2, *range(3, MAX_FACTOR + 1, 2)):
        while rest % radix == 0:
            factors.append(radix)
            rest //= radix
    if rest > 1:
        raise ValueError(
            f"no transform of {length} samples: half of it must have no prime factor above "
            f"{MAX_FACTOR}, but {rest} is left over"
        )
    return factors
