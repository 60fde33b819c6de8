"""A live stream in a ``with`` block: a microphone separated while the program does other things.

The sound goes from the device through the engine to the device as in ``rtsep run``: a native
callback, a worker thread, nothing of the caller's in between. The caller looks on, or reads stems.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from rtsep import weights
from rtsep.api import Stems, named
from rtsep.devices.open import DEFAULT, open_device
from rtsep.devices.portaudio.client import Process
from rtsep.errors import GainError
from rtsep.latency import StreamLatency
from rtsep.realtime.stem_reader import Tap
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.pipeline import LoadedModel
from rtsep.spec import Float32

LOUDEST_DB = 24.0
"""Highest gain of a source: more is a slip."""
BLOCK_S = 0.02
"""Blocks of `LiveStream.blocks`, in seconds, unless their size is given."""
_ROOM_S = 0.1
"""After a file has ended, time for its end to be heard beside the latency."""


def linear_gains(sources: tuple[str, ...], gains_db: Mapping[str, float]) -> Float32:
    """(sources,) linear gains; sources that are not named are not heard.

    Raises
    ------
    GainError
        There is no such source, or the gain is above `LOUDEST_DB` or no number.
    """
    gains = np.zeros(len(sources), np.float32)
    for name, level_db in gains_db.items():
        if name not in sources:
            raise GainError(f"there is no source {name!r}; there are: {', '.join(sources)}")
        if not level_db <= LOUDEST_DB:  # NaN too
            raise GainError(f"{name}={level_db} is not a gain of at most {LOUDEST_DB:.0f} dB")
        gains[sources.index(name)] = 10 ** (level_db / 20)
    return gains


class LiveStream:
    """A device, a model and the worker between them; made by `live`.

    Parameters
    ----------
    device, model, output, gains, channels, block, buffer_ms
        As of `live`.

    Attributes
    ----------
    name
        Of the device.
    sources
        Names of the stems, in order.
    sample_rate
        Of the device, in Hz.
    channels
        Of the mixture and of each stem.
    """

    def __init__(
        self,
        device: int | str | Path,
        model: str | Path | None,
        output: int | str | None,
        gains: Mapping[str, float] | None,
        channels: int,
        block: int,
        buffer_ms: float,
    ) -> None:
        self._process = Process()  # it starts while the model is loaded
        try:
            bundle = weights.find(model)
            spec = bundle.spec
            self.sources = spec.sources
            linear = linear_gains(spec.sources, {spec.sources[0]: 0.0} if gains is None else gains)
            speaker = None if output is None else str(output)
            opened = open_device(str(device), speaker, channels, block, buffer_ms, self._process)
            self.name, self.sample_rate = opened.name, opened.sample_rate
            self.channels = opened.input.width
            loaded = LoadedModel(bundle, self.channels)
            self._tap = Tap(len(spec.sources), self.channels, self.sample_rate)
            engine = loaded.engine(self.sample_rate, block)
            self._live = StreamWorker(opened, engine, loaded.step, linear, tap=self._tap)
        except BaseException:
            self._process.close()
            raise
        self._ended: float | None = None

    def __enter__(self) -> Self:
        """Start; a stream runs once."""
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop; what ended the worker, if anything did, is raised."""
        self._live.stop()
        self._process.close()
        if self._live.error is not None and exc[0] is None:
            raise self._live.error

    @property
    def gains(self) -> dict[str, float]:
        """Source to the gain it is heard at, in dB; those that are missing are not heard.

        May be assigned at any time, and is faded in.
        """
        heard = zip(self.sources, self._live.mixer.gains, strict=True)
        return {name: round(20 * math.log10(gain), 2) for name, gain in heard if gain}

    @gains.setter
    def gains(self, gains_db: Mapping[str, float]) -> None:
        self._live.mixer.gains[:] = linear_gains(self.sources, gains_db)

    @property
    def latency(self) -> StreamLatency:
        """From microphone to loudspeaker, by its terms: ``.ms``, ``.terms_ms``; or print it."""
        return self._live.latency

    @property
    def stats(self) -> dict[str, Any]:
        """Everything measured and counted so far, as in the summary of ``rtsep run --json``.

        Among it ``real_time_factor``, ``hop_time_us``, ``xruns``, ``deadline_misses``; and
        ``unread_samples``, those that `blocks` was too late for.
        """
        return {**self._live.figures(), "unread_samples": self._tap.lost}

    @property
    def running(self) -> bool:
        """Whether it goes on: false once the device has gone, or a file has been heard out."""
        if self._ended is None and self._live.device.finished:
            self._ended = time.monotonic() + self.latency.ms / 1000 + _ROOM_S
        heard_out = self._ended is not None and time.monotonic() >= self._ended
        return self._live.running and not heard_out

    def wait(self, seconds: float | None = None) -> None:
        """Let it run: until it ends, or for so many seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.running and (end is None or time.monotonic() < end):
            time.sleep(0.01)

    async def blocks(self, size: int | None = None) -> AsyncIterator[Stems]:
        """Read the stems while they are played; for one reader.

        Parameters
        ----------
        size
            Samples of each block, only the last may be shorter; 20 ms if None.

        Yields
        ------
        dict
            Name of each source to (size, channels) float32. A reader that is late by more than two
            seconds loses samples, which ``stats`` counts; the sound that is heard never waits.
        """
        size = round(BLOCK_S * self.sample_rate) if size is None else size
        if size < 1:
            raise ValueError(f"size must be 1 sample or more, not {size}")
        tap = self._tap
        tap.reading = True
        try:
            while self.running:
                while tap.readable >= size:
                    yield named(tap.read(size), self.sources, flat=False)
                await asyncio.sleep(size / self.sample_rate / 4)
            while tap.readable:
                yield named(tap.read(size), self.sources, flat=False)
        finally:
            tap.reading = False


def live(
    device: int | str | Path = DEFAULT,
    model: str | Path | None = None,
    *,
    output: int | str | None = None,
    gains: Mapping[str, float] | None = None,
    channels: int = 1,
    block: int = 128,
    buffer_ms: float = 10.0,
) -> LiveStream:
    """Open a device and separate what it brings as long as a ``with`` block lasts.

    Parameters
    ----------
    device
        Input: an index or a part of a name (see ``rtsep devices``), ``"demo"``, or an audio file
        that is played at real-time pace; the system's default microphone if not given.
    model
        As of `rtsep.load`.
    output
        Output device, like ``device``; that of the same sound card, or the system's default.
    gains
        Source to gain in dB, at most 24; the first source at 0 dB if not given.
    channels
        Of a microphone; a file has its own.
    block
        Samples per device block.
    buffer_ms
        Time the worker may take for a block, part of the latency.

    Raises
    ------
    DeviceError, AudioFileError
        There is no such device or file, or it can't be used.
    BundleError, SpecError
        There is no such model, or it can't be run on so many channels.
    GainError
        There is no such source, or no such gain.

    Examples
    --------
    >>> import rtsep
    >>> with rtsep.live(device="demo", gains={"speech": 0, "noise": -30}) as stream:
    ...     stream.wait(0.3)
    ...     stream.gains = {"noise": -6}
    >>> stream.sources, stream.gains
    (('speech', 'noise'), {'noise': -6.0})
    >>> stream.stats["separated_seconds"] > 0
    True
    """
    return LiveStream(device, model, output, gains, channels, block, buffer_ms)
