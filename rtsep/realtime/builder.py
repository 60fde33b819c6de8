"""The one place that puts a live stream together.

`rtsep run`, `rtsep ui --device`, `rtsep.live`, the self-test and the soak all build a `Stream`:
a worker between a device and a model, the thread that changes them, the recordings, and what
brings a lost device back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from rtsep.devices.device import Device
from rtsep.devices.open import DeviceOptions, inputs, open_device
from rtsep.devices.portaudio.client import Process
from rtsep.dsp.mixer import HIGHEST_GAIN_DB, linear
from rtsep.errors import AudioFileError, BundleError, DeviceError, GainError
from rtsep.realtime.control import Control
from rtsep.realtime.reconnect import Comeback
from rtsep.realtime.recorder import Takes
from rtsep.realtime.worker import StreamWorker, WorkerOptions
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.pipeline import LoadedModel
from rtsep.spec import Float32

MOST_NOTICES = 100
"""Sentences kept; older ones are dropped."""
_TAIL_S = 0.1
"""After a file has ended, time for its end to be heard beside the latency."""


@dataclass(frozen=True)
class StreamOptions(WorkerOptions):
    """Options of a stream beside its model and its device; first those of its worker.

    Attributes
    ----------
    gains
        Source to gain in dB, at most `HIGHEST_GAIN_DB`; sources that are not named are not heard.
        The first source at 0 dB if None.
    record
        Folder to record into from the start; if None, recordings that are asked for later go to
        a folder named by the time.
    reconnect
        Whether to wait for a device that goes away, and go on with it.
    give_up_s
        End after so long without the device, in seconds; never if None.
    """

    gains: Mapping[str, float] | None = None
    record: Path | None = None
    reconnect: bool = True
    give_up_s: float | None = None


class Notices:
    """Sentences on what happens to a stream, the newest `MOST_NOTICES`; for any thread."""

    def __init__(self) -> None:
        self._said: deque[tuple[float, str]] = deque(maxlen=MOST_NOTICES)

    def __call__(self, sentence: str) -> None:
        """Say it."""
        self._said.append((time.monotonic(), sentence))

    def all(self) -> list[str]:
        """Return them, the oldest first."""
        return [sentence for _, sentence in self._said]

    def last(self) -> tuple[float, str]:
        """Return when the last one was said, in seconds of the monotonic clock, and what it was."""
        return self._said[-1] if self._said else (0.0, "")


class Stream:
    """A live stream of one device and one model, each of which may be changed while it runs.

    Parameters
    ----------
    bundle
        The model.
    device
        Not started yet; it is closed if the stream can't be built.
    options
        See `StreamOptions`.
    notices
        Is told what happens.
    reopen
        Opens another device by its name, for `rtsep.realtime.control.Control.switch_device`;
        without it, the device can't be changed.
    tapped
        Whether the stems can be read while it runs, see `rtsep.realtime.stem_reader.Tap`.

    Attributes
    ----------
    worker
        Between device and model; its ``chain`` is the model at work.
    control
        Changes model, device and recording while the stream runs.
    takes
        The recordings.
    comeback
        Counts the device's absences.

    Raises
    ------
    GainError
        There is no such source, or no such gain.
    BundleError, SpecError
        The model can't be run on this device.
    AudioFileError
        The folder of the recording can't be written to.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        options: StreamOptions | None = None,
        *,
        notices: Notices | None = None,
        reopen: Callable[[str], Device] | None = None,
        tapped: bool = False,
    ) -> None:
        self.options = options = options or StreamOptions()
        self.notices = notices or Notices()
        self.takes = Takes(options.record or Path(time.strftime("rtsep-%Y%m%d-%H%M%S")))
        self._unwritten: AudioFileError | None = None
        self._drained: float | None = None
        try:
            self._connect(bundle, device, reopen, tapped)
        except BaseException:
            device.stop()
            raise

    def _connect(
        self,
        bundle: Bundle,
        device: Device,
        reopen: Callable[[str], Device] | None,
        tapped: bool,
    ) -> None:
        options, notices, block = self.options, self.notices, device.block
        gains = linear_gains(bundle.spec.sources, options.gains)
        loaded = LoadedModel(bundle, device.input.width)
        engine = loaded.engine(device.sample_rate, block)
        try:
            self.worker = StreamWorker(device, engine, loaded.step, gains, options, tapped=tapped)
        except DeviceError as error:  # the device does not keep the mixture for so long
            raise BundleError(f"{bundle.path or loaded.name}: {error}") from None
        self.comeback = Comeback(
            self.worker,
            notices,
            lambda rate: self.control.loaded.engine(rate, block),
            self.takes,
            options.give_up_s,
        )
        recover = self.comeback.wait if options.reconnect else None
        self.control = Control(self.worker, loaded, self.takes, notices, reopen, inputs, recover)
        if options.record is not None:
            self.worker.recorder = self.takes.begin(engine, device.sample_rate)

    def start(self) -> None:
        """Start; a stream runs once."""
        self.worker.start()
        self.control.start()

    def stop(self) -> None:
        """Stop, close the device and complete the recording; see `problems`."""
        self.control.close()
        try:
            self.worker.stop()
        except AudioFileError as error:
            self._unwritten = error

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop; what went wrong meanwhile is raised, if nothing else is."""
        self.stop()
        if exc[0] is None:
            self.raise_problem()

    @property
    def problems(self) -> list[BaseException]:
        """What ended the stream or kept a recording from being written, the worst first."""
        found = (
            self.worker.error,
            self.control.error,
            self.comeback.unwritten,
            self.control.unwritten,
            self._unwritten,
        )
        return [problem for problem in found if problem is not None]

    def raise_problem(self) -> None:
        """Raise the worst of `problems`, if there are any."""
        for problem in self.problems:
            raise problem

    @property
    def working(self) -> bool:
        """Whether it runs, or waits for a device that may come back."""
        return self.control.working and self.worker.working

    @property
    def heard_out(self) -> bool:
        """Whether the device was a file, and its end has been heard."""
        now = time.monotonic()
        if not self.worker.device.finished:
            self._drained = None
        elif self._drained is None:
            self._drained = now + self.latency_ms / 1000 + _TAIL_S
        return self._drained is not None and now >= self._drained

    @property
    def late_ms(self) -> float:
        """What it is off its latency now, in ms."""
        device = self.worker.device
        return 1000 * device.stats().late / device.sample_rate

    @property
    def latency_ms(self) -> float:
        """Latency from microphone to loudspeaker now, in ms."""
        return self.worker.latency.ms + self.late_ms

    def figures(self) -> dict[str, Any]:
        """Everything measured and counted so far, ready for JSON."""
        return {
            **self.worker.figures(),
            "device_losses": self.comeback.losses,
            "device_away_s": round(self.comeback.away_s, 3),
            "not_recorded_samples": sum(recorder.lost for recorder in self.takes.recorders),
        }


def open_stream(
    device: str,
    choose: Callable[[], Bundle],
    where: DeviceOptions,
    options: StreamOptions,
    *,
    notices: Notices | None = None,
    tapped: bool = False,
) -> Stream:
    """Open a device by its name and build a stream on it.

    Parameters
    ----------
    device, where
        As of `rtsep.devices.open.open_device`.
    choose
        Finds the model, while PortAudio's process starts.
    options, notices, tapped
        As of `Stream`.

    Raises
    ------
    DeviceError, AudioFileError
        There is no such device or file, or it can't be used.
    GainError, BundleError, SpecError
        As of `Stream`.
    """
    process = Process()
    try:
        bundle = choose()
    except BaseException:
        process.close()
        raise
    return Stream(
        bundle,
        open_device(device, where, process),
        options,
        notices=notices,
        reopen=partial(open_device, options=where),
        tapped=tapped,
    )


def linear_gains(sources: tuple[str, ...], gains_db: Mapping[str, float] | None) -> Float32:
    """(sources,) linear gains; sources that are not named are not heard, the first one is if None.

    Raises
    ------
    GainError
        There is no such source, or the gain is above `HIGHEST_GAIN_DB` or no number.
    """
    gains = np.zeros(len(sources), np.float32)
    for name, level_db in ({sources[0]: 0.0} if gains_db is None else gains_db).items():
        if name not in sources:
            raise GainError(f"there is no source {name!r}; there are: {', '.join(sources)}")
        if not level_db <= HIGHEST_GAIN_DB:  # NaN too
            raise GainError(f"{name}={level_db} is not a gain of at most {HIGHEST_GAIN_DB:.0f} dB")
        gains[sources.index(name)] = linear(level_db)
    return gains
