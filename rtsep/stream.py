"""A live stream in a ``with`` block: a microphone separated while the program does other things.

The sound goes from the device through the engine to the device as in ``rtsep run``: a native
callback, a worker thread, nothing of the caller's in between. The caller looks on, reads stems, and
may change gains, model, device and recording meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from rtsep import weights
from rtsep.api import Stems, named
from rtsep.devices.open import DEFAULT, DeviceOptions
from rtsep.errors import AudioFileError
from rtsep.latency import StreamLatency
from rtsep.realtime.builder import Stream, StreamOptions, linear_gains, open_stream
from rtsep.realtime.chain import ProcessingChain

BLOCK_S = 0.02
"""Blocks of `LiveStream.blocks`, in seconds, unless their size is given."""


class LiveStream:
    """A device, a model and the worker between them; made by `live`.

    What is asked of it is done, or refused by an exception, when the call returns; the sound goes
    on meanwhile. All of it may be called from any thread, within the ``with`` block.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._worker = stream, stream.worker

    def __enter__(self) -> Self:
        """Start; a stream runs once."""
        self._stream.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop; what ended the worker or a recording, if anything did, is raised."""
        self._stream.__exit__(*exc)

    @property
    def name(self) -> str:
        """Of the device."""
        return self._worker.device.name

    @property
    def sample_rate(self) -> int:
        """Of the device, in Hz."""
        return self._worker.device.sample_rate

    @property
    def channels(self) -> int:
        """Of the mixture and of each stem."""
        return self._worker.engine.channels

    @property
    def model(self) -> str:
        """Name of the model at work, or about to be."""
        return self._stream.control.loaded.name

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the stems, in order."""
        return self._worker.engine.spec.sources

    @property
    def gains(self) -> dict[str, float]:
        """Source to the gain it is heard at, in dB; those that are missing are not heard.

        May be assigned at any time, and is faded in.
        """
        mixer = self._worker.mixer
        levels = zip(self.sources, mixer.gains, mixer.heard, strict=True)
        return {name: round(20 * math.log10(gain), 2) for name, gain, heard in levels if heard}

    @gains.setter
    def gains(self, gains_db: Mapping[str, float]) -> None:
        linear_gains(self.sources, gains_db)  # raises before anything has changed
        chains = self._worker.chains
        for chain in chains:  # of a model on its way, too
            sources = chain.engine.spec.sources
            known = {name: gain for name, gain in gains_db.items() if name in sources}
            if known or chain is chains[0]:
                chain.mixer.gains[:] = linear_gains(sources, known)
                chain.mixer.muted[:] = chain.mixer.soloed[:] = False

    @property
    def latency(self) -> StreamLatency:
        """From microphone to loudspeaker, by its terms: ``.ms``, ``.terms_ms``; or print it."""
        return self._worker.latency

    @property
    def stats(self) -> dict[str, Any]:
        """Everything measured and counted so far, as in the summary of ``rtsep run --json``.

        Among it ``real_time_factor``, ``hop_time_us``, ``xruns``, ``deadline_misses``,
        ``device_losses``; and ``unread_samples``, those that `blocks` was too late for.
        """
        return self._stream.figures()

    @property
    def notices(self) -> list[str]:
        """What happened so far, in sentences: a device that went, a recording that began."""
        return self._stream.notices.all()

    @property
    def running(self) -> bool:
        """Whether it goes on, or waits for its device.

        False once a file has been heard out, or the device has gone for good.
        """
        return self._stream.working and not self._stream.heard_out

    def wait(self, seconds: float | None = None) -> None:
        """Let it run: until it ends, or for so many seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.running and (end is None or time.monotonic() < end):
            time.sleep(0.01)

    def switch_model(self, model: str | Path) -> None:
        """Go on with another model, cross-faded; gains of sources of the same names stay.

        Parameters
        ----------
        model
            As of `rtsep.load`.

        Raises
        ------
        BundleError, SpecError
            There is no such model, or it can't be run on so many channels.
        ControlError
            It is too slow for this machine, or the stream does not run.

        Examples
        --------
        >>> import rtsep
        >>> with rtsep.live("demo", "chandna-speech") as stream:
        ...     stream.switch_model("speakers")
        ...     print(stream.model, *stream.sources)
        speakers speaker1 speaker2
        """
        self._stream.control.switch_model(str(model)).result()

    def switch_device(self, device: int | str | Path) -> None:
        """Go on with another device, after a short silence; the model stays.

        Parameters
        ----------
        device
            As of `live`.

        Raises
        ------
        DeviceError, AudioFileError
            There is no such device or file, or it can't be used; nothing has changed.
        ControlError
            The stream does not run.
        """
        self._stream.control.switch_device(str(device)).result()

    @property
    def recording(self) -> Path | None:
        """Folder that is recorded into now, if there is one."""
        recorder = self._worker.recorder
        return None if recorder is None else recorder.paths[0].parent

    def start_recording(self, folder: str | Path | None = None) -> Path:
        """Record the mixture and each stem, aligned, from now on, if that is not done already.

        Parameters
        ----------
        folder
            Gets ``mixture.wav`` and one WAV per source, with a number where there are such files.
            If None, the folder given to `live`, or one named by the time; from the second recording
            on, a folder ``2`` (``3``, ...) in it. A new model or device begins such a one, too.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        AudioFileError
            It can't be written to.
        ControlError
            The stream does not run.

        Examples
        --------
        >>> import tempfile, rtsep
        >>> folder = tempfile.TemporaryDirectory()
        >>> with rtsep.live("demo", "chandna-speech") as stream:
        ...     _ = stream.start_recording(folder.name)
        ...     stream.wait(0.2)
        ...     print(*(path.name for path in stream.stop_recording()))
        mixture.wav speech.wav noise.wav
        >>> folder.cleanup()
        """
        recorder = self._stream.control.record(True, folder).result()
        assert recorder is not None
        return recorder.paths[0].parent

    def stop_recording(self) -> list[Path]:
        """Complete the recording; return its files, none if there was no recording.

        Raises
        ------
        AudioFileError
            The disk was full, or the like; what was written until then is kept.
        ControlError
            The stream does not run; its end has completed the recording.
        """
        control = self._stream.control
        recorder = control.record(False).result()
        if recorder is not None and isinstance(recorder.error, AudioFileError):
            control.unwritten = None  # who is told now is not told at the end
            raise recorder.error
        return [] if recorder is None else recorder.paths

    async def blocks(self, size: int | None = None) -> AsyncIterator[Stems]:
        """Read the stems while they are played; for one reader.

        Parameters
        ----------
        size
            Samples of each block, only the last of a model or device may be shorter; 20 ms if None.

        Yields
        ------
        dict
            Name of each source to (size, channels) float32. A reader that is late by more than two
            seconds loses samples, which ``stats`` counts; the sound that is heard never waits.
        """
        if size is not None and size < 1:
            raise ValueError(f"size must be 1 sample or more, not {size}")
        reader: _Reader | None = None
        try:
            running = True
            while running:
                running = self.running  # what came until then is read below
                if reader is None or reader.chain is not self._worker.chain:
                    while reader is not None and reader.tap.readable:
                        yield reader.read()
                    reader = _Reader(self._worker.chain, size)
                while reader.tap.readable >= reader.size:
                    yield reader.read()
                if running:
                    await asyncio.sleep(reader.pause_s)
            while reader is not None and reader.tap.readable:
                yield reader.read()
        finally:
            if reader is not None:
                reader.tap.reading = False


class _Reader:
    """Reads the stems of one chain in blocks of ``size`` samples, `BLOCK_S` if None."""

    def __init__(self, chain: ProcessingChain, size: int | None) -> None:
        assert chain.tap is not None
        rate_hz = chain.scope.sample_rate
        self.chain, self.tap = chain, chain.tap
        self.size = round(BLOCK_S * rate_hz) if size is None else size
        self.pause_s = self.size / rate_hz / 4
        self.tap.reading = True

    def read(self) -> Stems:
        """Take the oldest block, shorter where there is no more."""
        return named(self.tap.read(self.size), self.chain.engine.spec.sources, flat=False)


def live(
    device: int | str | Path = DEFAULT,
    model: str | Path | None = None,
    *,
    output: int | str | None = None,
    gains: Mapping[str, float] | None = None,
    channels: int = 1,
    block: int = 128,
    buffer_ms: float = 10.0,
    on_late: Literal["dry", "mute"] = "dry",
    limit_db: float | None = None,
    record: str | Path | None = None,
    reconnect: bool = True,
    give_up_s: float | None = None,
    realtime: bool = True,
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
    on_late
        What is heard while the worker is late: ``"dry"``, the mixture, or ``"mute"``, silence.
    limit_db
        Largest magnitude played, in dB re full scale; any if not given.
    record
        Folder to record into from the start, see `LiveStream.start_recording`.
    reconnect
        Wait for a device that goes away, and go on with it; model and recording go on, too.
    give_up_s
        End after so long without the device, in seconds; never if not given.
    realtime
        Ask the system for real-time scheduling and locked memory.

    Raises
    ------
    DeviceError, AudioFileError
        There is no such device or file, or it can't be used; or no such folder can be written to.
    BundleError, SpecError
        There is no such model, or it can't be run on so many channels.
    GainError
        There is no such source, or no such gain.

    Examples
    --------
    >>> import rtsep
    >>> with rtsep.live(device="demo", gains={"speech": 0, "noise": -30}, limit_db=-3) as stream:
    ...     stream.wait(0.3)
    ...     stream.gains = {"noise": -6}
    >>> stream.sources, stream.gains
    (('speech', 'noise'), {'noise': -6.0})
    >>> stream.stats["separated_seconds"] > 0
    True
    """
    where = DeviceOptions(None if output is None else str(output), channels, block, buffer_ms)
    options = StreamOptions(
        on_late=on_late,
        limit_db=limit_db,
        realtime=realtime,
        gains=gains,
        record=None if record is None else Path(record),
        reconnect=reconnect,
        give_up_s=give_up_s,
    )
    stream = open_stream(str(device), lambda: weights.find(model), where, options, tapped=True)
    return LiveStream(stream)
