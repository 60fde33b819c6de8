"""A live stream as a context manager: separate a device's sound in the background.

As in ``rtsep run``, a native callback and a worker thread process the sound; the caller's code is
not involved. The caller can read stems and change gains, model, device and recording.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from rtsep import weights
from rtsep.api import Controls, Stems, named
from rtsep.devices.open import DEFAULT, DeviceOptions
from rtsep.errors import AudioFileError
from rtsep.latency import StreamLatency
from rtsep.realtime.builder import Stream, StreamOptions, linear_gains, open_stream
from rtsep.realtime.chain import ProcessingChain
from rtsep.runtime.bundle import Bundle

BLOCK_S = 0.02
"""Default length of the blocks of `LiveStream.blocks`, in seconds."""


class LiveStream:
    """A running stream of a device and a model; created by `live`.

    Methods return when the request is done, or raise; the sound continues meanwhile. They may be
    called from any thread, inside the ``with`` block.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._worker = stream, stream.worker

    def __enter__(self) -> Self:
        """Start the stream; once per object."""
        self._stream.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the stream; raise the error that ended the worker or a recording, if any."""
        self._stream.__exit__(*exc)

    @property
    def name(self) -> str:
        """Name of the device."""
        return self._worker.device.name

    @property
    def sample_rate(self) -> int:
        """Sample rate of the device, in Hz."""
        return self._worker.device.sample_rate

    @property
    def channels(self) -> int:
        """Channels of the mixture and of each stem."""
        return self._worker.engine.channels

    @property
    def model(self) -> str:
        """Name of the current model, or of the one that is being faded in."""
        return self._stream.control.loaded.name

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the stems, in order."""
        return self._worker.engine.spec.sources

    @property
    def gains(self) -> dict[str, float]:
        """Gains in dB by source name; sources without an entry are silent.

        May be assigned at any time; changes fade in.
        """
        mixer = self._worker.mixer
        levels = zip(self.sources, mixer.gains, mixer.heard, strict=True)
        return {name: round(20 * math.log10(gain), 2) for name, gain, heard in levels if heard}

    @gains.setter
    def gains(self, gains_db: Mapping[str, float]) -> None:
        linear_gains(self.sources, gains_db)  # raises before any change
        chains = self._worker.chains
        for chain in chains:  # including a model that is being faded in
            sources = chain.engine.spec.sources
            known = {name: gain for name, gain in gains_db.items() if name in sources}
            if known or chain is chains[0]:
                chain.mixer.gains[:] = linear_gains(sources, known)
                chain.mixer.muted[:] = chain.mixer.soloed[:] = False

    @property
    def controls(self) -> dict[str, tuple[float, ...]]:
        """Values of the model's controls by name.

        May be assigned at any time, also in part; a model that is changed to has its defaults.
        """
        return self._stream.control.loaded.controls

    @controls.setter
    def controls(self, settings: Controls) -> None:
        self._stream.control.loaded.set_controls(settings)

    @property
    def latency(self) -> StreamLatency:
        """Latency from microphone to loudspeaker: print it, or read ``.ms``, ``.terms_ms``."""
        return self._worker.latency

    @property
    def stats(self) -> dict[str, Any]:
        """Measurements and counters so far, as in the summary of ``rtsep run --json``.

        They include ``real_time_factor``, ``hop_time_us``, ``xruns``, ``deadline_misses`` and
        ``device_losses``, and ``unread_samples``, which `blocks` has lost.
        """
        return self._stream.figures()

    @property
    def notices(self) -> list[str]:
        """Messages so far, for example of a lost device or a started recording."""
        return self._stream.notices.all()

    @property
    def running(self) -> bool:
        """Whether the stream runs or waits for a lost device.

        False after the end of a file, or after the device was given up.
        """
        return self._stream.working and not self._stream.heard_out

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the stream ends, or for ``seconds``."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.running and (end is None or time.monotonic() < end):
            time.sleep(0.01)

    def switch_model(self, model: str | Path) -> None:
        """Cross-fade to another model; sources of the same name keep their gains.

        Parameters
        ----------
        model
            As in `rtsep.load`.

        Raises
        ------
        BundleError, SpecError
            There is no such model, or it can't process this number of channels.
        ControlError
            The model is too slow for this machine, or the stream does not run.

        Examples
        --------
        >>> import rtsep
        >>> with rtsep.live("demo", "chandna-speech") as stream:
        ...     stream.switch_model("speakers")
        ...     print(stream.model, *stream.sources)
        speakers speaker1 speaker2 noise
        """
        self._stream.control.switch_model(str(model)).result()

    def switch_device(self, device: int | str | Path) -> None:
        """Change the device, with a short silence; the model continues.

        Parameters
        ----------
        device
            As in `live`.

        Raises
        ------
        DeviceError, AudioFileError
            There is no such device or file, or it can't be used; the stream is unchanged.
        ControlError
            The stream does not run.
        """
        self._stream.control.switch_device(str(device)).result()

    @property
    def recording(self) -> Path | None:
        """Folder of the current recording; None if there is none."""
        recorder = self._worker.recorder
        return None if recorder is None else recorder.paths[0].parent

    def start_recording(self, folder: str | Path | None = None) -> Path:
        """Start to record the mixture and all stems, aligned; a running recording continues.

        Parameters
        ----------
        folder
            Folder for ``mixture.wav`` and one WAV per source, with a number if the files exist. By
            default the folder given to `live`, or one named by the time; later recordings, also
            those after a change of model or device, go to its subfolders ``2``, ``3``, ...

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        AudioFileError
            The folder can't be written to.
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
        """Complete the recording and return its files; an empty list without a recording.

        Raises
        ------
        AudioFileError
            Writing failed, for example on a full disk; the files are valid up to that point.
        ControlError
            The stream does not run; its recording was completed at its end.
        """
        control = self._stream.control
        recorder = control.record(False).result()
        if recorder is not None and isinstance(recorder.error, AudioFileError):
            control.unwritten = None  # raised here, not again at the end
            raise recorder.error
        return [] if recorder is None else recorder.paths

    async def blocks(self, size: int | None = None) -> AsyncIterator[Stems]:
        """Yield the stems while they are played; for one reader.

        Parameters
        ----------
        size
            Samples per block; 20 ms by default. The last block of a model or device may be shorter.

        Yields
        ------
        dict
            Stems by source name, (size, channels) float32. A reader that is more than two seconds
            late loses samples, counted in ``stats``; the output is not affected.
        """
        if size is not None and size < 1:
            raise ValueError(f"size must be 1 sample or more, not {size}")
        reader: _Reader | None = None
        try:
            running = True
            while running:
                running = self.running  # the samples until then are read below
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
    """Reads the stems of one chain in blocks of ``size`` samples, by default `BLOCK_S`."""

    def __init__(self, chain: ProcessingChain, size: int | None) -> None:
        assert chain.tap is not None
        rate_hz = chain.scope.sample_rate
        self.chain, self.tap = chain, chain.tap
        self.size = round(BLOCK_S * rate_hz) if size is None else size
        self.pause_s = self.size / rate_hz / 4
        self.tap.reading = True

    def read(self) -> Stems:
        """Return the oldest block, shorter if fewer samples are there."""
        return named(self.tap.read(self.size), self.chain.engine.spec.sources, flat=False)


def live(
    device: int | str | Path = DEFAULT,
    model: str | Path | None = None,
    *,
    output: int | str | None = None,
    gains: Mapping[str, float] | None = None,
    channels: int | None = None,
    block: int | None = None,
    buffer_ms: float | None = None,
    low_latency: bool = False,
    on_late: Literal["dry", "mute"] = "dry",
    limit_db: float | None = None,
    record: str | Path | None = None,
    reconnect: bool = True,
    give_up_s: float | None = None,
    realtime: bool = True,
    full_band: bool = True,
    floor_db: float | None = None,
    controls: Controls | None = None,
    keep: str | Path | None = None,
) -> LiveStream:
    """Open a device and separate its sound for the duration of a ``with`` block.

    Parameters
    ----------
    device
        Input: an index or a part of a name (see ``rtsep devices``), ``"demo"``, ``"system"`` for
        what other programs play, or an audio file that is played at real-time pace; by default the
        system's microphone.
    model
        As in `rtsep.load`.
    output
        Output device, like ``device``; by default that of the same sound card or of the system.
    gains
        Gains in dB by source name, at most 24; by default the first source at 0 dB.
    channels
        Channels of a microphone; by default those that the model needs, mostly one. A file has its
        own.
    block
        Samples per device block; by default those of JACK, or else ones that complete the model's
        hops.
    buffer_ms
        Time the worker has for a block, a term of the latency. By default it is what the last
        stream on this device needed, or 10 ms, and follows the machine.
    low_latency
        Begin with short blocks and the least time for each; more after repeated misses.
    on_late
        Output while the worker is late: ``"dry"``, the mixture, or ``"mute"``, silence.
    limit_db
        Limit of the output in dB re full scale; none by default.
    record
        Folder to record to from the start, see `LiveStream.start_recording`.
    reconnect
        Wait for a lost device and reopen it; model and recording continue.
    give_up_s
        End the stream after this time without the device, in seconds; never by default.
    realtime
        Request real-time scheduling and locked memory.
    full_band, floor_db, controls, keep
        As in `rtsep.load`.

    Raises
    ------
    DeviceError, AudioFileError
        There is no such device or file, or it can't be used, or the folder can't be written to.
    BundleError, LearnedError, SpecError
        There is no such model or voice, or it can't process this number of channels.
    GainError, ControlError
        There is no such source or control, or its value is invalid.

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
    output = None if output is None else str(output)
    where = DeviceOptions(output, channels, block, buffer_ms, low_latency)
    options = StreamOptions(
        on_late=on_late,
        limit_db=limit_db,
        realtime=realtime,
        gains=gains,
        record=None if record is None else Path(record),
        reconnect=reconnect,
        give_up_s=give_up_s,
        full_band=full_band,
        floor_db=floor_db,
    )

    def choose() -> Bundle:
        return weights.chosen(model, controls, keep)

    return LiveStream(open_stream(str(device), choose, where, options, tapped=True))
