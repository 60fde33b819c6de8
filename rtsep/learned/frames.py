"""Spectra of whole recordings by the engine's own windows, and recordings of masked spectra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from rtsep.errors import LearnedError
from rtsep.runtime.engine import DEFAULT, Engine, StemOptions
from rtsep.runtime.pipeline import aligned
from rtsep.spec import Float32, Spec

MAX_VALUES = 1 << 25
"""Most magnitudes of a recording fitted at once: 17 minutes at 16 kHz in windows of 512, 128."""


class _Collect:
    """A step that keeps all frames."""

    def __init__(self, spec: Spec, streams: int) -> None:
        shape = (streams, 1, 1)
        self.mixture: Float32 = np.zeros((*shape, *spec.frame_shape), np.float32)
        self.sources: Float32 = np.zeros(
            (streams, 1, len(spec.sources), 1, *spec.frame_shape), np.float32
        )
        self.kept: list[Float32] = []

    def __call__(self) -> None:
        if (len(self.kept) + 1) * self.mixture.size > MAX_VALUES:
            raise LearnedError("it is too long to be fitted as a whole: separate it live")
        self.kept.append(self.mixture[:, 0].copy())

    def reset(self, stream: int | None = None) -> None:
        """There is nothing to forget."""


class _Mask(_Collect):
    """A step that masks frame after frame."""

    def __init__(self, spec: Spec, masks: Float32) -> None:
        super().__init__(spec, masks.shape[0])
        self._masks, self._frame = masks, 0

    def __call__(self) -> None:
        masks = self._masks[:, :, self._frame, None, None]  # (streams, sources, 1, 1, bins)
        np.multiply(self.mixture[:, :, None], masks[:, None], out=self.sources)
        self._frame = min(self._frame + 1, self._masks.shape[2] - 1)


def magnitudes(blocks: Iterable[Float32], spec: Spec, channels: int, rate_hz: int) -> Float32:
    """Magnitudes of the `spectra` of a whole recording, (channels, frames, bins)."""
    real, imaginary = np.moveaxis(spectra(blocks, spec, channels, rate_hz)[:, :, 0], 2, 0)
    return np.asarray(np.hypot(real, imaginary))


def spectra(blocks: Iterable[Float32], spec: Spec, channels: int, rate_hz: int) -> Float32:
    """Spectra of a whole recording, frame by frame as the live engine makes them.

    Parameters
    ----------
    blocks
        (n, channels) each, at most `rtsep.runtime.pipeline.BLOCK` samples.
    spec
        Rate and windows; one source is enough. Frames come one by one, whatever the chunk.
    channels, rate_hz
        Of the recording; it is resampled where that is not the rate of ``spec``.

    Returns
    -------
    (channels, frames, 1, 2, bins)
    """
    spec = replace(spec, chunk=1)
    step = _Collect(spec, channels)
    for _ in aligned(Engine(step, spec, channels, rate_hz=rate_hz), blocks):
        pass
    return np.stack(step.kept, axis=1)


def masked(
    blocks: Iterable[Float32],
    spec: Spec,
    channels: int,
    rate_hz: int,
    masks: Float32,
    options: StemOptions = DEFAULT,
) -> Iterator[Float32]:
    """Recordings of the sources, from masks (channels, sources, frames, bins) of the mixture.

    Yields
    ------
    (n, sources, channels), as `rtsep.runtime.pipeline.aligned` does.
    """
    step = _Mask(spec, masks)
    return aligned(Engine(step, spec, channels, rate_hz=rate_hz, options=options), blocks)
