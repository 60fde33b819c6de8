"""The Python interface for arrays: separate recordings and streams of blocks.

>>> import numpy as np, rtsep
>>> mixture = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
>>> stems = rtsep.separate(mixture, 16000)              # a whole recording
>>> {name: stem.shape for name, stem in stems.items()}
{'speech': (16000,), 'noise': (16000,)}
>>> sep = rtsep.load("speech")                          # a stream, block by block
>>> speech = sep.process(mixture[:480])["speech"]
>>> speech.shape, sep.latency.samples
((480,), 255)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtsep import weights
from rtsep.errors import SoundError
from rtsep.files.readers import MAX_CHANNELS, RATES_HZ
from rtsep.latency import StreamLatency
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import StemOptions, stream_latency
from rtsep.runtime.pipeline import BLOCK, LoadedModel, aligned
from rtsep.spec import Float32

Stems = dict[str, Float32]
"""Stems by the name of the source; each array has the shape of the mixture."""
Controls = Mapping[str, str | Sequence[float]]
"""Values of controls by name, see `load`."""


class Separation:
    """Separates one stream block by block, with constant latency; created by `load`.

    Not thread-safe. Use one `Separation` per stream.

    Parameters
    ----------
    bundle
        The model.
    channels, sample_rate, block
        As in `load`.
    options
        What is done to the stems.

    Attributes
    ----------
    sources
        Names of the stems, in order.
    sample_rate
        Sample rate of the blocks, in Hz.
    channels
        Channels of the blocks.
    block
        The length of every block is a multiple of this.
    latency
        Delay of the stems behind the mixture, by its terms: ``print`` it, or read ``.samples``,
        ``.ms``, ``.terms_ms``.
    """

    def __init__(
        self,
        bundle: Bundle,
        channels: int,
        sample_rate: int | None,
        block: int,
        options: StemOptions,
    ) -> None:
        spec = bundle.spec
        self.sources = spec.sources
        self.channels = _channels(channels)
        self.sample_rate = spec.sample_rate if sample_rate is None else _rate(sample_rate)
        self.block = block
        self._loaded = LoadedModel(bundle, self.channels, options)
        self._engine = self._loaded.engine(self.sample_rate, block)
        self.latency: StreamLatency = stream_latency(self._engine, self.sample_rate)
        self._flat = self.channels == 1

    def process(self, block: ArrayLike) -> Stems:
        """Separate the next samples.

        Parameters
        ----------
        block
            (n,) or (n, channels) of floats, full scale 1; n is a multiple of ``block``. NaN and Inf
            count as silence.

        Returns
        -------
        dict
            Stems by source name, float32 of the block's shape. Output sample ``t`` of the stream
            belongs to input sample ``t - latency.samples``; the first samples are silence.

        Raises
        ------
        SoundError
            The block has an invalid type, shape or length; the stream is unchanged.

        Examples
        --------
        >>> import numpy as np, rtsep
        >>> sep = rtsep.load("speech", sample_rate=48000)
        >>> speech, noise = sep.process(np.zeros(441)).values()
        >>> speech.shape
        (441,)
        >>> print(sep.latency)
        17.9 ms = overlap 8.0 + reblocking 7.9 + resampling 1.9
        """
        mixture = sound(block, self.channels)
        if len(mixture) % self.block:
            raise SoundError(
                f"{len(mixture)} samples are not a multiple of the declared block, {self.block}"
            )
        self._flat = np.ndim(block) == 1
        return self._named(self._engine.process(mixture))

    @property
    def controls(self) -> dict[str, tuple[float, ...]]:
        """Values of the model's controls by name, see `load`; assign those to be changed."""
        return self._loaded.controls

    @controls.setter
    def controls(self, settings: Controls) -> None:
        self._loaded.set_controls(settings)

    def flush(self) -> Stems:
        """Return the last ``latency.samples`` samples and reset the stream.

        Returns
        -------
        dict
            As `process`, with the shape of the blocks before.
        """
        return self._named(self._engine.flush())

    def reset(self) -> None:
        """Reset the state: the next block starts a new stream."""
        self._engine.reset()

    async def stream(self, blocks: AsyncIterable[ArrayLike]) -> AsyncIterator[Stems]:
        """Separate blocks in a thread, without blocking the event loop.

        Parameters
        ----------
        blocks
            Blocks as for `process`.

        Yields
        ------
        dict
            Stems of each block, then those of `flush`.

        Examples
        --------
        >>> import asyncio, numpy as np, rtsep
        >>> async def microphone():
        ...     for _ in range(3):
        ...         yield np.zeros(160, np.float32)
        >>> async def main():
        ...     sep = rtsep.load("speech")
        ...     return [len(stems["speech"]) async for stems in sep.stream(microphone())]
        >>> asyncio.run(main())
        [160, 160, 160, 255]
        """
        async for block in blocks:
            yield await asyncio.to_thread(self.process, block)
        yield await asyncio.to_thread(self.flush)

    def _named(self, stems: Float32) -> Stems:
        return named(stems, self.sources, self._flat)


def load(
    model: str | Path | None = None,
    *,
    channels: int = 1,
    sample_rate: int | None = None,
    block: int = 1,
    full_band: bool = True,
    floor_db: float | None = None,
    controls: Controls | None = None,
    keep: str | Path | None = None,
) -> Separation:
    """Load a model for one stream.

    Parameters
    ----------
    model
        Name of a shipped model, see ``rtsep models``, or path of a bundle; by default ``speech``,
        which separates speech from noise.
    channels
        Channels of the blocks. A model of one channel processes each as a separate stream.
    sample_rate
        Sample rate of the blocks in Hz; by default that of the model. Another rate is resampled,
        which adds a term to `Separation.latency`.
    block
        The length of every block is a multiple of this; 1 for any length. A multiple or a divisor
        of the hop lowers the latency.
    full_band
        With a model of a lower rate, give the stems the band that it does not receive, too, so that
        they add up to the mixture.
    floor_db
        Level at which the other sources are left in each stem, in dB, at most 0; by default that
        of the model.
    controls
        Values of the model's controls by name, which ``rtsep info`` lists: numbers, or labels
        joined by ``+`` (``{"stem": "vocals+bass"}``); others have their default.
    keep
        File of ``rtsep enroll`` with the voice that is kept; its model is the default then.

    Raises
    ------
    BundleError
        There is no such model, or it can't be run.
    LearnedError
        The voice can't be read, or was made for another model.
    SpecError
        The model processes another number of channels jointly.
    ControlError
        The model has no such control, or a value is invalid.
    SoundError
        Channels, rate or block is out of range.

    Examples
    --------
    >>> import rtsep
    >>> rtsep.load("speech").latency.samples            # blocks of any size
    255
    >>> rtsep.load("speech", block=128).latency.samples  # of whole hops
    128
    >>> rtsep.load("music", channels=2).sources
    ('vocals', 'drums', 'bass', 'other')
    """
    if block < 1:
        raise SoundError(f"block must be 1 sample or more, not {block}")
    options = StemOptions(full_band, floor_db)
    bundle = weights.chosen(model, controls, keep)
    return Separation(bundle, channels, sample_rate, block, options)


def separate(
    samples: ArrayLike,
    sample_rate: int,
    model: str | Path | None = None,
    *,
    full_band: bool = True,
    floor_db: float | None = None,
    controls: Controls | None = None,
    keep: str | Path | None = None,
) -> Stems:
    """Separate a whole recording.

    Parameters
    ----------
    samples
        (n,) or (n, channels) of floats, full scale 1.
    sample_rate
        Sample rate of samples and stems, in Hz.
    model, full_band, floor_db, controls, keep
        As in `load`.

    Returns
    -------
    dict
        Stems by source name, float32 of the shape of ``samples`` and aligned with it. A live stream
        gives the same samples, delayed by its latency.

    Raises
    ------
    BundleError, LearnedError
        There is no such model or voice, or it can't be run.
    SpecError
        The model processes another number of channels jointly.
    ControlError
        The model has no such control, or a value is invalid.
    SoundError
        The samples or their rate are invalid.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> stereo = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    >>> stems = rtsep.separate(stereo, 44100, "music")
    >>> list(stems), stems["vocals"].shape
    (['vocals', 'drums', 'bass', 'other'], (44100, 2))
    """
    spec = (bundle := weights.chosen(model, controls, keep)).spec
    mixture = sound(samples)
    channels = mixture.shape[1]
    finite = np.isfinite(mixture)
    if not finite.all():
        row, channel = np.argwhere(~finite)[0]
        raise SoundError(f"sample {row} of channel {channel} is not a finite number")
    loaded = LoadedModel(bundle, channels, StemOptions(full_band, floor_db))
    engine = loaded.engine(_rate(sample_rate))
    stems = np.empty((len(mixture), len(spec.sources), channels), np.float32)
    blocks = (mixture[first : first + BLOCK] for first in range(0, len(mixture), BLOCK))
    done = 0
    for part in aligned(engine, blocks):
        stems[done : done + len(part)] = part
        done += len(part)
    return named(stems, spec.sources, np.ndim(samples) == 1)


def sound(samples: ArrayLike, channels: int | None = None) -> Float32:
    """Return samples as (n, channels) float32, C-contiguous.

    Parameters
    ----------
    samples
        (n,) or (n, channels) of floats.
    channels
        Required number of channels; any number if None.

    Raises
    ------
    SoundError
        The samples are not floats of such a shape.
    """
    array: NDArray[np.floating] = np.asarray(samples)
    if array.dtype.kind != "f":
        raise SoundError(
            f"samples must be floats with a full scale of 1, not {array.dtype}: divide int16 by "
            "32768"
        )
    wanted = "channels" if channels is None else channels
    if array.ndim not in (1, 2):
        raise SoundError(f"samples must be (n,) or (n, {wanted}), not {array.shape}")
    width = _channels(1 if array.ndim == 1 else array.shape[1], array.shape)
    if channels is not None and width != channels:
        raise SoundError(f"samples must be (n, {channels}) for this stream, not {array.shape}")
    with np.errstate(over="ignore"):  # values beyond float32 become Inf
        return np.ascontiguousarray(array.reshape(len(array), width), np.float32)


def named(stems: Float32, sources: tuple[str, ...], flat: bool) -> Stems:
    """Split (n, sources, channels) by name; (n,) each if ``flat``, for one channel."""
    first = np.ascontiguousarray(stems.transpose(1, 0, 2))
    parts = first[:, :, 0] if flat else first
    return dict(zip(sources, parts, strict=True))


def _channels(channels: int, shape: tuple[int, ...] | None = None) -> int:
    if 1 <= channels <= MAX_CHANNELS:
        return int(channels)
    turned = f" (samples are {shape}, not (n, channels): transpose them?)" if shape else ""
    raise SoundError(f"there can be 1 to {MAX_CHANNELS} channels, not {channels}{turned}")


def _rate(sample_rate: float) -> int:
    lowest, highest = RATES_HZ
    if not lowest <= sample_rate <= highest or sample_rate != int(sample_rate):
        raise SoundError(
            f"sample_rate must be a whole number of Hz from {lowest} to {highest}, "
            f"not {sample_rate}"
        )
    return int(sample_rate)
