"""Build a live stream from a device and a model.

`rtsep run`, `rtsep ui --device`, `rtsep.live`, the self-test and the soak test use `Stream`: the
worker between device and model, the control thread, the recordings, and the reconnection.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from rtsep.devices.device import Device
from rtsep.devices.open import Adaptation, DeviceOptions, inputs, open_device
from rtsep.devices.portaudio.client import Process
from rtsep.devices.system_sound import SYSTEM, system_sound
from rtsep.dsp.mixer import HIGHEST_GAIN_DB, linear
from rtsep.errors import AudioFileError, BundleError, DeviceError, GainError
from rtsep.realtime.control import Control
from rtsep.realtime.headroom import Headroom
from rtsep.realtime.reconnect import Comeback
from rtsep.realtime.recorder import Takes
from rtsep.realtime.worker import StreamWorker, WorkerOptions
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import StemOptions
from rtsep.runtime.pipeline import LoadedModel
from rtsep.spec import Float32

MOST_NOTICES = 100
"""Largest number of kept notices; older ones are dropped."""
_TAIL_S = 0.1
"""Time after the end of a file and the latency until the stream ends, in seconds."""


@dataclass(frozen=True)
class StreamOptions(WorkerOptions, StemOptions):
    """Options of a stream without model and device; they include those of worker and stems.

    Attributes
    ----------
    gains
        Gains in dB by source name, at most `HIGHEST_GAIN_DB`; other sources are silent. None is
        the first source at 0 dB.
    record
        Folder to record to from the start; if None, later recordings go to a folder named by the
        time.
    reconnect
        Whether to wait for a lost device and reopen it.
    give_up_s
        Time without the device after which the stream ends, in seconds; never if None.
    """

    gains: Mapping[str, float] | None = None
    record: Path | None = None
    reconnect: bool = True
    give_up_s: float | None = None


class Notices:
    """The newest `MOST_NOTICES` messages about a stream; thread-safe."""

    def __init__(self) -> None:
        self._said: deque[tuple[float, str]] = deque(maxlen=MOST_NOTICES)

    def __call__(self, sentence: str) -> None:
        """Add a message."""
        self._said.append((time.monotonic(), sentence))

    def all(self) -> list[str]:
        """Return the messages, the oldest first."""
        return [sentence for _, sentence in self._said]

    def last(self) -> tuple[float, str]:
        """Return time (seconds of the monotonic clock) and text of the last message."""
        return self._said[-1] if self._said else (0.0, "")


class Stream:
    """A live stream of a device and a model, both of which may be changed while it runs.

    Parameters
    ----------
    bundle
        The model.
    device
        A device that is not started; it is closed if the stream can't be built.
    options
        See `StreamOptions`.
    notices
        Function that receives messages.
    reopen
        Function that opens another device by its name, for
        `rtsep.realtime.control.Control.switch_device`; without it the device can't be changed.
    tapped
        Whether the stems can be read while it runs, see `rtsep.realtime.stem_reader.Tap`.
    headroom
        ``"fixed"`` is that of the device; ``"adapted"`` starts with what the last stream needed and
        ``"smallest"`` with one block, and both follow the machine, see `rtsep.realtime.headroom`.

    Attributes
    ----------
    worker
        The worker between device and model; its ``chain`` has the current model.
    control
        Changes model, device and recording while the stream runs.
    takes
        The recordings.
    comeback
        Waits for a lost device and counts the losses.

    Raises
    ------
    GainError
        There is no such source, or the gain is invalid.
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
        headroom: Adaptation = "fixed",
    ) -> None:
        self.options = options = options or StreamOptions()
        self.notices = notices or Notices()
        self.takes = Takes(options.record or Path(time.strftime("rtsep-%Y%m%d-%H%M%S")))
        self._unwritten: AudioFileError | None = None
        self._needed = ExitStack()
        self._drained: float | None = None
        try:
            self._connect(bundle, device, reopen, tapped, headroom)
        except BaseException:
            device.stop()
            raise

    def _connect(
        self,
        bundle: Bundle,
        device: Device,
        reopen: Callable[[str], Device] | None,
        tapped: bool,
        headroom: Adaptation,
    ) -> None:
        options, notices, block = self.options, self.notices, device.block
        gains = linear_gains(bundle.spec.sources, options.gains)
        loaded = LoadedModel(bundle, device.input.width, options)
        engine = loaded.engine(device.sample_rate, block)
        try:
            self.worker = StreamWorker(device, engine, gains, options, tapped=tapped)
        except DeviceError as error:  # the latency exceeds the mixture that the device keeps
            raise BundleError(f"{bundle.path or loaded.name}: {error}") from None
        self.comeback = Comeback(
            self.worker,
            notices,
            lambda rate: self.control.loaded.engine(rate, self.worker.device.block),
            self.takes,
            options.give_up_s,
        )
        recover = self.comeback.wait if options.reconnect else None
        self.control = Control(
            *(self.worker, loaded, self.takes, notices),
            *(reopen, inputs, recover, self._adapt),
        )
        self._headroom = None
        if headroom != "fixed":
            smallest, control = headroom == "smallest", self.control
            self._headroom = Headroom(
                self.worker, lambda: control.loaded.name, notices, smallest=smallest
            )
        if options.record is not None:
            self.worker.recorder = self.takes.begin(engine, device.sample_rate)

    def start(self) -> None:
        """Start the stream; once per object."""
        self.worker.start()
        self.control.start()

    def _adapt(self) -> None:
        if self._headroom is not None:
            self._headroom.adapt()

    def stop(self) -> None:
        """Stop, close the device and complete the recording; see `problems`."""
        self.control.close()
        if self._headroom is not None:
            self._headroom.remember()
        try:
            self.worker.stop()
        except AudioFileError as error:
            self._unwritten = error
        finally:
            self._needed.close()

    def hold(self, needed: ExitStack) -> None:
        """Keep what the device needs until the stream stops."""
        self._needed = needed

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop; raise the worst problem unless another exception is raised."""
        self.stop()
        if exc[0] is None:
            self.raise_problem()

    @property
    def problems(self) -> list[BaseException]:
        """Errors that ended the stream or a recording, the worst first."""
        found = (
            self.worker.error,
            self.control.error,
            self.comeback.unwritten,
            self.control.unwritten,
            self._unwritten,
        )
        return [problem for problem in found if problem is not None]

    def raise_problem(self) -> None:
        """Raise the first of `problems`, if there is one."""
        for problem in self.problems:
            raise problem

    @property
    def working(self) -> bool:
        """Whether the stream runs or waits for a lost device."""
        return self.control.working and self.worker.working

    @property
    def heard_out(self) -> bool:
        """Whether the device was a file and its end has been played."""
        now = time.monotonic()
        if not self.worker.device.finished:
            self._drained = None
        elif self._drained is None:
            self._drained = now + self.latency_ms / 1000 + _TAIL_S
        return self._drained is not None and now >= self._drained

    @property
    def late_ms(self) -> float:
        """Current deviation from the latency, in ms."""
        device = self.worker.device
        return 1000 * device.stats().late / device.sample_rate

    @property
    def latency_ms(self) -> float:
        """Current latency from microphone to loudspeaker, in ms."""
        return self.worker.latency.ms + self.late_ms

    def figures(self) -> dict[str, Any]:
        """Return measurements and counters so far, for JSON."""
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
        As in `rtsep.devices.open.open_device`; or `SYSTEM`, the sound of other programs.
    choose
        Function that loads the bundle; it runs while PortAudio's process starts.
    options, notices, tapped
        As in `Stream`.

    Raises
    ------
    DeviceError, AudioFileError
        There is no such device or file, or it can't be used.
    GainError, BundleError, SpecError
        As in `Stream`.
    """
    if device == SYSTEM:
        with ExitStack() as needed:
            device = needed.enter_context(system_sound())
            stream = open_stream(device, choose, where, options, notices=notices, tapped=tapped)
            stream.hold(needed.pop_all())
        return stream
    process = Process()
    try:
        bundle = choose()
    except BaseException:
        process.close()
        raise
    spec = bundle.spec
    hop_s = Fraction(spec.step_length, spec.sample_rate)
    where = replace(where, channels=where.channels or spec.channels)
    return Stream(
        bundle,
        open_device(device, where, process, hop_s),
        options,
        notices=notices,
        reopen=partial(open_device, options=where, hop_s=hop_s),
        tapped=tapped,
        headroom=where.headroom,
    )


def linear_gains(sources: tuple[str, ...], gains_db: Mapping[str, float] | None) -> Float32:
    """Return linear gains, (sources,); sources without a gain get 0. None is the first at 1.

    Raises
    ------
    GainError
        There is no such source, or the gain is above `HIGHEST_GAIN_DB` or NaN.
    """
    gains = np.zeros(len(sources), np.float32)
    for name, level_db in ({sources[0]: 0.0} if gains_db is None else gains_db).items():
        if name not in sources:
            raise GainError(f"there is no source {name!r}; there are: {', '.join(sources)}")
        if not level_db <= HIGHEST_GAIN_DB:  # NaN too
            raise GainError(f"{name}={level_db} is not a gain of at most {HIGHEST_GAIN_DB:.0f} dB")
        gains[sources.index(name)] = linear(level_db)
    return gains
