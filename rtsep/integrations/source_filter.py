"""One source of a stream of 16-bit samples, as voice frameworks exchange them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from rtsep.api import load
from rtsep.errors import SoundError
from rtsep.latency import StreamLatency
from rtsep.spec import Float32

PIECE_S = 0.01
"""Longest time of sound per call of the engine; between calls other threads may run."""


def from_int16(samples: bytes | bytearray | memoryview, channels: int) -> Float32:
    """Return interleaved 16-bit samples as (n, channels) float32 of full scale 1.

    Raises
    ------
    SoundError
        The bytes are not a whole number of samples of all channels.
    """
    size = memoryview(samples).nbytes
    if size % (2 * channels):
        raise SoundError(f"{size} bytes are not 16-bit samples of {channels} channels")
    whole = np.frombuffer(samples, np.int16).reshape(-1, channels)
    return whole.astype(np.float32) / np.float32(32768)


def to_int16(samples: Float32) -> bytes:
    """Return (n, channels) of full scale 1 as interleaved 16-bit samples, rounded and limited."""
    scaled = np.rint(samples * np.float32(32768))
    limited: bytes = np.clip(scaled, -32768, 32767).astype(np.int16).tobytes()
    return limited


class SourceFilter:
    """Keeps one source of a stream.

    Parameters
    ----------
    model
        As in `rtsep.load`.
    source
        Name of the source; by default the first of the model.
    sample_rate
        Rate of the stream, in Hz.
    channels
        Channels of the stream.

    Attributes
    ----------
    latency
        Delay of the output of `process`, by its terms.

    Raises
    ------
    SoundError
        The model has no such source.
    BundleError, SpecError
        As `rtsep.load`.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        source: str | None = None,
        *,
        sample_rate: int,
        channels: int = 1,
    ) -> None:
        self._stream = load(model, sample_rate=sample_rate, channels=channels)
        self.source = self._stream.sources[0] if source is None else source
        if self.source not in self._stream.sources:
            there = ", ".join(self._stream.sources)
            raise SoundError(f"the model has no source {source!r}; there are: {there}")
        self.sample_rate, self.channels = sample_rate, channels
        self.latency: StreamLatency = self._stream.latency
        self._piece = max(1, round(PIECE_S * sample_rate))

    def process(self, samples: bytes | bytearray | memoryview) -> bytes:
        """Return as many interleaved 16-bit samples, ``latency`` late."""
        mixture = from_int16(samples, self.channels)
        kept = np.empty_like(mixture)
        for start in range(0, len(mixture), self._piece):
            if start:
                time.sleep(0)  # let other threads have the interpreter
            piece = mixture[start : start + self._piece]
            kept[start : start + self._piece] = self._stream.process(piece)[self.source]
        return to_int16(kept)

    def flush(self) -> bytes:
        """Return the last ``latency`` samples and reset the stream."""
        rest = self._stream.flush()[self.source]
        return to_int16(rest.reshape(-1, self.channels))

    def reset(self) -> None:
        """Start a new stream."""
        self._stream.reset()
