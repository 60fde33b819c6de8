"""Pairs of analysis and synthesis windows with perfect reconstruction, by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rtsep.spec import Float32, Float64

_FLOOR = 1e-3
"""Smallest ratio of weakest to strongest coverage: the synthesis gains at most 30 dB."""


def _cosines(*terms: float) -> Callable[[Float64], Float64]:
    """Return a sum of cosines with alternating signs, as a function of phase."""

    def window(phase: Float64) -> Float64:
        total = np.zeros_like(phase)
        for order, term in enumerate(terms):
            total += (-1) ** order * term * np.cos(2 * np.pi * order * phase)
        return np.maximum(total, 0.0)  # rounding may make the zero of a Hann window negative

    return window


def _root(window: Callable[[Float64], Float64]) -> Callable[[Float64], Float64]:
    """Return the square root of a window, for use in analysis and synthesis."""
    return lambda phase: np.sqrt(window(phase))


_WINDOWS: dict[str, Callable[[Float64], Float64]] = {
    "hann": _root(_cosines(0.5, 0.5)),
    "hamming": _root(_cosines(0.54, 0.46)),
    "blackmanharris": _cosines(0.35875, 0.48829, 0.14128, 0.01168),
    "rectangular": np.ones_like,
}

NAMES = tuple(_WINDOWS)
"""Names of the window pairs."""


def pair(
    name: str, window_length: int, hop_length: int, synthesis_length: int = 0
) -> tuple[Float32, Float32]:
    """Return an analysis window by name and the synthesis window that reconstructs.

    The analysis window is periodic: the square root of Hann (``"hann"``) or Hamming
    (``"hamming"``), the 4-term Blackman-Harris window itself (``"blackmanharris"``) or ones
    (``"rectangular"``). The synthesis window is its canonical dual: the product of both is the
    square of that shape, scaled so that the overlap-add of the products is 1, also for hops that do
    not divide the length.

    With a shorter synthesis window, the analysis window is asymmetric: a long rise, and a fall of
    half the synthesis window. Source: D. Mauler and R. Martin, "A low delay, variable resolution,
    perfect reconstruction spectral analysis-synthesis system for speech enhancement", EUSIPCO
    2007. The frequency resolution is that of the long window, the latency that of the short one.

    Parameters
    ----------
    name
        One of `NAMES`.
    window_length, hop_length
        In samples; 1 <= hop_length <= window_length.
    synthesis_length
        In samples, hop_length to window_length; 0 stands for ``window_length``.

    Returns
    -------
    analysis, synthesis
        (window_length,) and (synthesis_length,) float32, computed in float64. The synthesis window
        is for the last samples of a frame.

    Raises
    ------
    ValueError
        The name is unknown, or the windows cover some samples too weakly to reconstruct them.
    """
    if name not in _WINDOWS:
        raise ValueError(f"unknown window {name!r}; there are: {', '.join(NAMES)}")
    if not 1 <= hop_length <= window_length:
        raise ValueError(
            f"hop_length must be 1 to window_length {window_length} samples, not {hop_length}"
        )
    length = synthesis_length or window_length
    if not hop_length <= length <= window_length:
        raise ValueError(
            f"synthesis_length must be hop_length {hop_length} to window_length {window_length} "
            f"samples, not {length}"
        )
    shape, n = _WINDOWS[name], np.arange(window_length)
    rise = 2 * window_length - length  # the rise is half of this period
    analysis = shape(np.where(2 * n < rise, n / rise, 1 + (n - window_length) / length))
    product = shape(np.arange(length) / length) ** 2
    hops = -(-length // hop_length)
    padded = np.zeros(hops * hop_length)
    padded[:length] = product
    cover = padded.reshape(hops, hop_length).sum(axis=0)
    if not cover.min() >= _FLOOR * cover.max():
        raise ValueError(
            f"window {name!r} of {length} samples with a hop of {hop_length} does not "
            f"reconstruct: its squares add up to {cover.min():.3g} at the weakest sample, "
            f"{cover.max():.3g} at the strongest"
        )
    product /= np.tile(cover, hops)[:length]
    end = analysis[-length:]
    synthesis = np.divide(product, end, out=np.zeros(length), where=end > 0)
    return analysis.astype(np.float32), synthesis.astype(np.float32)
