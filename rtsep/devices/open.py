"""Open a device by its name: a sound card, the demo, or a file in place of a microphone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rtsep.devices import blocks
from rtsep.devices.device import Device
from rtsep.devices.paced import Clock
from rtsep.devices.portaudio.client import Process
from rtsep.devices.portaudio.device import Hosted
from rtsep.errors import AudioFileError, DeviceError
from rtsep.files.readers import read_all

Adaptation = Literal["fixed", "adapted", "smallest"]
DEFAULT = "default"
"""Name of the system's default devices."""
DEMO = Path(__file__).parents[1] / "demo.flac"
BUFFER_MS = 10.0
"""Headroom of a stream that knows nothing about the machine."""
LOW_LATENCY_BLOCK = 64
"""Length of a block for the smallest latency, where the model does not matter, in samples."""
MAX_SOURCE_S = 3600.0
"""Longest file that is played as a device, in seconds; it is kept in memory."""


def find(query: int | str | None, kind: str, process: Process) -> dict[str, Any]:
    """As `rtsep.devices.portaudio.library.find`, in the child process that opens the device."""
    return process.find(query, kind)


@dataclass(frozen=True)
class DeviceOptions:
    """Options with which a device is opened.

    Attributes
    ----------
    output
        An index or a part of a name; None is the output of the same sound card, or of the system.
    channels
        Channels of a microphone; None is 1, or what a model needs. A file has its own.
    block
        Samples per device block; None takes JACK's, or else blocks that complete the model's hops,
        see `rtsep.devices.blocks.choose`.
    buffer_ms
        Headroom of the worker, rounded to whole blocks; None is `BUFFER_MS` at the start, which a
        stream adapts, see `rtsep.realtime.headroom`.
    low_latency
        Whether blocks are short and the headroom is one block at the start, if they are not given.
    """

    output: str | None = None
    channels: int | None = None
    block: int | None = None
    buffer_ms: float | None = None
    low_latency: bool = False

    @property
    def headroom(self) -> Adaptation:
        """How a stream adapts the headroom, see `rtsep.realtime.builder.Stream`."""
        if self.buffer_ms is not None:
            return "fixed"
        return "smallest" if self.low_latency else "adapted"

    def block_for(self, rate_hz: int, period: int, hop_s: Fraction | None) -> int:
        """Return the length of a block; ``period`` is prescribed by a server, or 0."""
        usual = LOW_LATENCY_BLOCK if self.low_latency else blocks.USUAL
        return self.block or period or blocks.choose(rate_hz, hop_s, usual)

    def headroom_for(self, rate_hz: int, block: int) -> int:
        """Return the headroom in samples: whole blocks, at least one."""
        usual_ms = 0.0 if self.low_latency else BUFFER_MS
        buffer_ms = usual_ms if self.buffer_ms is None else self.buffer_ms
        return max(1, round(buffer_ms / 1000 * rate_hz / block)) * block


def open_device(
    device: str,
    options: DeviceOptions | None = None,
    process: Process | None = None,
    hop_s: Fraction | None = None,
) -> Device:
    """Open a device by its name.

    Parameters
    ----------
    device
        An index or a part of a name, `DEFAULT`, ``demo`` or a file.
    options
        See `DeviceOptions`.
    process
        Child process for a sound card; it ends with the device, or here if it is not needed. None
        starts a new one.
    hop_s
        Duration of the samples per call of the model, in seconds, by which blocks are chosen.

    Raises
    ------
    DeviceError, AudioFileError
        There is no such device or file, or it can't be used.
    """
    process = process or Process()
    try:
        backend = next(backend for backend in BACKENDS if backend.takes(device))
        opened = backend.open(device, options or DeviceOptions(), process, hop_s)
    except BaseException:
        process.close()
        raise
    if not isinstance(opened, Hosted):
        process.close()
    return opened


def inputs() -> list[str]:
    """Return unambiguous names of the input devices; an empty list without PortAudio."""
    process = Process()
    try:
        names: list[str] = process.ask("names", kind="input")
    except DeviceError:
        names = []
    finally:
        process.close()
    return names


def _play(
    path: Path, options: DeviceOptions, process: Process, hop_s: Fraction | None = None
) -> Device:
    """Open a file as the input, with an output device if there is one."""
    output = options.output
    source, rate = read_all(path)
    if len(source) > MAX_SOURCE_S * rate:
        raise AudioFileError(f"{path} is longer than an hour: use rtsep separate for any length")
    channels = source.shape[1]
    try:
        speaker = find(output, "output", process)
    except DeviceError:
        if output is not None:
            raise
        block = options.block_for(rate, 0, hop_s)
        headroom = options.headroom_for(rate, block)
        return Clock(rate, channels, channels, block, headroom, source)
    wide = min(max(2, channels), speaker["max_output_channels"])
    try:
        block = options.block_for(rate, speaker["period"], hop_s)
        headroom = options.headroom_for(rate, block)
        return Hosted(process, None, speaker, rate, channels, wide, block, headroom, source)
    except DeviceError:  # the device has another rate than the file
        import soxr

        own = round(speaker["default_samplerate"])
        source = np.ascontiguousarray(soxr.resample(source, rate, own), np.float32)
        block = options.block_for(own, speaker["period"], hop_s)
        headroom = options.headroom_for(own, block)
        return Hosted(process, None, speaker, own, channels, wide, block, headroom, source)


def _sound_card(
    name: str, options: DeviceOptions, process: Process, hop_s: Fraction | None = None
) -> Device:
    """Open a microphone and an output, by default of the same card."""
    output, channels = options.output, options.channels or 1
    query = None if name == DEFAULT else name
    microphone = find(query, "input", process)
    if output is None and query is not None and microphone["max_output_channels"]:
        output = str(microphone["index"])
    speaker = find(output, "output", process)
    rate = round(speaker["default_samplerate"])
    wide = min(max(2, channels), speaker["max_output_channels"])
    block = options.block_for(rate, speaker["period"], hop_s)
    headroom = options.headroom_for(rate, block)
    return Hosted(process, microphone, speaker, rate, channels, wide, block, headroom)


class Backend(NamedTuple):
    """One row of `BACKENDS`."""

    takes: Callable[[str], bool]
    """Return whether a name is of this kind."""
    open: Callable[[str, DeviceOptions, Process, Fraction | None], Device]
    """Open a device of this name, see `open_device`; raise `DeviceError` or `AudioFileError`."""


BACKENDS = (
    Backend(lambda name: name == "demo", lambda _, *rest: _play(DEMO, *rest)),
    Backend(
        lambda name: bool(Path(name).suffix) and Path(name).exists(),
        lambda name, *rest: _play(Path(name), *rest),
    ),
    Backend(lambda _: True, _sound_card),
)
"""The kinds of devices; the first that accepts a name opens it."""
