"""Oracle masks, computed from the true sources: upper bounds for masks of a kind.

They run in the engine like a model, with the same windows and overlap-add.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rtsep.errors import EvaluationError
from rtsep.spec import Float32, Spec

WINDOW_S = 0.032
"""The default window is the longest power of two within this; the hop is a quarter of it."""
_TINY = np.float32(1e-12)


def _power(spectra: Float32) -> Float32:
    power: Float32 = spectra[..., 0, :] ** 2 + spectra[..., 1, :] ** 2
    return power


def _share(weight: Float32) -> Float32:
    share: Float32 = weight / (weight.sum(axis=0) + _TINY)
    return share


def _binary(mixture: Float32, sources: Float32) -> Float32:
    """1 for the loudest source of each bin, 0 for the others (D. Wang, 2005)."""
    power = _power(sources)
    return _share(np.asarray(power == power.max(axis=0), np.float32))


def _ratio(mixture: Float32, sources: Float32) -> Float32:
    """|s| / sum |s_j|."""
    return _share(np.sqrt(_power(sources)))


def _wiener(mixture: Float32, sources: Float32) -> Float32:
    """|s|^2 / sum |s_j|^2."""
    return _share(_power(sources))


def _phase_sensitive(mixture: Float32, sources: Float32) -> Float32:
    """Re(s / x), clipped to 0 ... 1 (H. Erdogan et al., ICASSP 2015)."""
    along = (sources * mixture).sum(axis=-2)
    mask: Float32 = np.clip(along / (_power(mixture) + _TINY), 0.0, 1.0)
    return mask


MASKS: dict[str, Callable[[Float32, Float32], Float32]] = {
    "ibm": _binary,
    "irm": _ratio,
    "wiener": _wiener,
    "psm": _phase_sensitive,
}
"""Masks by name: functions from mixture (channels, 2, bins) and sources (sources, channels, 2,
bins) to (sources, channels, bins). Y. Luo, N. Mesgarani (2019), section III.E, compare them."""


class Oracle:
    """A step that masks the mixture; its input has the channels of mixture and sources.

    Parameters
    ----------
    kind
        One of `MASKS`.
    sources
        Names of the sources.
    rate_hz, channels
        Rate and channels of the mixture.
    window_length
        In samples; 0 selects the default for the rate.

    Attributes
    ----------
    spec
        The spec for the engine.
    mixture, sources
        See `rtsep.spec.Step`. In ``sources``, only the first ``channels`` channels are filled.
    """

    def __init__(
        self,
        kind: str,
        sources: tuple[str, ...],
        rate_hz: int,
        channels: int,
        window_length: int = 0,
    ) -> None:
        length = window_length or 1 << int(np.log2(WINDOW_S * rate_hz))
        every = channels * (1 + len(sources))
        self.spec = Spec(rate_hz, every, "stft", "hann", length, length // 4, 1, 0, sources)
        frame = self.spec.frame_shape
        self.mixture: Float32 = np.zeros((1, 1, every, *frame), np.float32)
        self.sources: Float32 = np.zeros((1, 1, len(sources), every, *frame), np.float32)
        self._mask = MASKS[kind]
        self._mixture, *self._references = self.mixture.reshape(-1, channels, *frame)
        self._estimates = self.sources[0, 0, :, :channels]

    def __call__(self) -> None:
        """Mask one frame."""
        mask = self._mask(self._mixture, np.stack(self._references))
        self._estimates[:] = mask[:, :, None] * self._mixture

    def reset(self, stream: int | None = None) -> None:
        """Do nothing: there is no state."""


def parse(name: str) -> tuple[str, int]:
    """Split ``oracle:KIND`` or ``oracle:KIND:WINDOW``; the window is in samples, 0 if not given.

    Raises
    ------
    EvaluationError
        The mask is unknown, or the window is not a power of two from 16 to 65536.
    """
    kind, _, window = name.removeprefix("oracle:").partition(":")
    if kind not in MASKS:
        raise EvaluationError(f"unknown {name}; there are: oracle:{', oracle:'.join(MASKS)}")
    if not window:
        return kind, 0
    lengths = {str(1 << power): 1 << power for power in range(4, 17)}
    if window not in lengths:
        raise EvaluationError(f"the window of {name} must be one of {', '.join(lengths)} samples")
    return kind, lengths[window]
