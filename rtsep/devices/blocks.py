"""Choose the length of a device's blocks for a model."""

from __future__ import annotations

from fractions import Fraction

USUAL = 128
"""Length of a block where the model does not matter, in samples."""


def choose(rate_hz: int, hop_s: Fraction | None, usual: int = USUAL) -> int:
    """Return the length of blocks that complete the model's hops, in samples.

    A hop that ends inside a block waits for the rest of the block, up to ``block - gcd(block,
    hop)`` samples, so blocks that divide the hop cost nothing.

    Parameters
    ----------
    rate_hz
        Rate of the device.
    hop_s
        Duration of the samples per call of the model, in seconds; None if there is no model.
    usual
        Wanted length. The nearest divisor of the hop between half and twice of it is taken; without
        one, the wanted length itself.

    Examples
    --------
    >>> choose(48000, Fraction(128, 16000)), choose(48000, Fraction(160, 16000))
    (128, 120)
    >>> choose(44100, Fraction(128, 16000))  # a hop of 352.8 samples
    128
    """
    hop = Fraction(0) if hop_s is None else hop_s * rate_hz
    if not hop or hop.denominator != 1:
        return usual
    near = [block for block in range(-(-usual // 2), 2 * usual + 1) if hop.numerator % block == 0]
    return min(near, key=lambda block: max(block / usual, usual / block), default=usual)
