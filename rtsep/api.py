"""The Python interface: sound in, stems out, by the engine that runs live.

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
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtsep import weights
from rtsep.errors import SoundError
from rtsep.files.readers import MAX_CHANNELS, RATES_HZ
from rtsep.latency import StreamLatency
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine, stream_latency
from rtsep.runtime.model_step import make_step
from rtsep.runtime.pipeline import BLOCK, aligned
from rtsep.spec import Float32

Stems = dict[str, Float32]
"""Sound by the name of its source; each array is shaped like the mixture it came from."""


class Separation:
    """One stream: blocks in, as many samples of every source out, always the same latency later.

    Made by `load`. For one thread at a time; another stream is another `Separation`.

    Parameters
    ----------
    bundle
        The model.
    channels, sample_rate, block
        As of `load`.

    Attributes
    ----------
    sources
        Names of the stems, in order.
    sample_rate
        Of the blocks, in Hz.
    channels
        Of the blocks.
    block
        Every block is a multiple of this many samples.
    latency
        Samples between a sound going in and its stems coming out, by their terms: ``print`` it, or
        read ``.samples``, ``.ms``, ``.terms_ms``.
    """

    def __init__(self, bundle: Bundle, channels: int, sample_rate: int | None, block: int) -> None:
        spec = bundle.spec
        self.sources = spec.sources
        self.channels = _channels(channels)
        self.sample_rate = spec.sample_rate if sample_rate is None else _rate(sample_rate)
        self.block = block
        step = make_step(bundle, spec.streams(self.channels))
        self._engine = Engine(step, spec, self.channels, block, self.sample_rate)
        self.latency: StreamLatency = stream_latency(self._engine, self.sample_rate)
        self._flat = self.channels == 1

    def process(self, block: ArrayLike) -> Stems:
        """Separate the next samples.

        Parameters
        ----------
        block
            (n,) or (n, channels) of floats, full scale 1, any n that is a multiple of ``block``.
            NaN and Inf are taken for silence.

        Returns
        -------
        dict
            Name of each source to float32 of the block's shape. Sample ``t`` of all that came out
            belongs to sample ``t - latency.samples`` of all that went in; before that, silence.

        Raises
        ------
        SoundError
            The block does not fit; nothing has been taken in then.

        Examples
        --------
        >>> import numpy as np, rtsep
        >>> sep = rtsep.load("speech", sample_rate=48000)
        >>> speech, noise = sep.process(np.zeros(441)).values()
        >>> speech.shape
        (441,)
        >>> print(sep.latency)
        19.1 ms = overlap 8.0 + reblocking 7.9 + resampling 3.2
        """
        mixture = sound(block, self.channels)
        if len(mixture) % self.block:
            raise SoundError(
                f"{len(mixture)} samples are not a multiple of the declared block, {self.block}"
            )
        self._flat = np.ndim(block) == 1
        return self._named(self._engine.process(mixture))

    def flush(self) -> Stems:
        """Return what is still inside, ``latency.samples`` long, and start anew.

        Returns
        -------
        dict
            As of `process`, shaped like the blocks before it.
        """
        return self._named(self._engine.flush())

    def reset(self) -> None:
        """Forget everything heard: the next block starts a new stream."""
        self._engine.reset()

    async def stream(self, blocks: AsyncIterable[ArrayLike]) -> AsyncIterator[Stems]:
        """Separate blocks as they come, in a thread, so that the event loop stays free.

        Parameters
        ----------
        blocks
            Each as `process` takes them.

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
) -> Separation:
    """Load a model for one stream.

    Parameters
    ----------
    model
        Name of a shipped model, see ``rtsep models``, or path of a bundle; the default model, which
        separates speech from noise, if not given.
    channels
        Of the blocks. A model of one channel runs on each as a stream of its own.
    sample_rate
        Of the blocks, in Hz; the model's own if not given. At any other, sound is resampled on the
        way in and out, which `Separation.latency` counts.
    block
        Every block will be a multiple of so many samples; 1 for any size. A fixed size that hops
        divide, or that divides hops, is less late.

    Raises
    ------
    BundleError
        There is no such model, or it can't be run.
    SpecError
        The model separates another number of channels jointly.
    SoundError
        Channels or rate can't be.

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
    return Separation(weights.find(model), channels, sample_rate, block)


def separate(samples: ArrayLike, sample_rate: int, model: str | Path | None = None) -> Stems:
    """Separate a whole recording.

    Parameters
    ----------
    samples
        (n,) or (n, channels) of floats, full scale 1.
    sample_rate
        In Hz; the stems have it too.
    model
        As of `load`.

    Returns
    -------
    dict
        Name of each source to float32 of the shape of ``samples``, aligned with it. The same
        numbers come out live, as late as the stream is.

    Raises
    ------
    BundleError
        There is no such model, or it can't be run.
    SpecError
        The model separates another number of channels jointly.
    SoundError
        The samples or their rate are not what can be separated.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> stereo = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    >>> stems = rtsep.separate(stereo, 44100, "music")
    >>> list(stems), stems["vocals"].shape
    (['vocals', 'drums', 'bass', 'other'], (44100, 2))
    """
    spec = (bundle := weights.find(model)).spec
    mixture = sound(samples)
    channels = mixture.shape[1]
    finite = np.isfinite(mixture)
    if not finite.all():
        row, channel = np.argwhere(~finite)[0]
        raise SoundError(f"sample {row} of channel {channel} is not a finite number")
    step, rate_hz = make_step(bundle, spec.streams(channels)), _rate(sample_rate)
    engine = Engine(step, spec, channels, rate_hz=rate_hz)
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
        How many there must be; any number if None.

    Raises
    ------
    SoundError
        They are not floats of such a shape.
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
    with np.errstate(over="ignore"):  # too large for sound: Inf, like what is too large for float64
        return np.ascontiguousarray(array.reshape(len(array), width), np.float32)


def named(stems: Float32, sources: tuple[str, ...], flat: bool) -> Stems:
    """Take (n, sources, channels) apart, by name; without the axis of one channel if ``flat``."""
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
