"""The sound card: its blocks are exchanged with two timelines by a native callback."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Literal, Protocol, Self

from rtsep.devices.callback_stream import CallbackStream
from rtsep.devices.control_block import Stats
from rtsep.devices.portaudio.library import Stream, close, find, listing
from rtsep.dsp.ring import Float32
from rtsep.dsp.timed_ring import Timeline
from rtsep.errors import DeviceError

__all__ = ["Device", "DeviceError", "Duplex", "find", "listing"]


class Device(Protocol):
    """What a worker needs of a device, such as `rtsep.devices.portaudio.device.Hosted`."""

    name: str
    sample_rate: int
    block: int
    headroom: int
    input: Timeline
    output: Timeline

    @property
    def active(self) -> bool:
        """Whether blocks are being exchanged; false once a device has gone away."""

    @property
    def finished(self) -> bool:
        """Whether the whole source has been handed over; never without a source."""

    def start(self) -> None:
        """Begin to exchange blocks; once in the life of a device."""

    def reopen(self) -> bool:
        """Try once to go on with a device that was lost; tell whether it is back.

        Raises
        ------
        RateError
            It is back, and no longer works at this rate.
        """

    def at_rate(self, rate: int) -> Device:
        """Make a device for the same stream at another rate, in Hz; to be started."""

    def stop(self) -> None:
        """End it, and close what was opened; may be repeated."""

    def inherit(self, counters: Stats) -> None:
        """Go on counting from there."""

    def replace_late(self, latency: int) -> None:
        """Play the mixture, as late, where answers of this latency are missing."""

    def limit(self, level: float) -> None:
        """Play no magnitude above ``level`` (linear, 1 is full scale)."""

    def leave_out(self, n: int, latency: int) -> None:
        """Give up the next ``n`` answers, whose latency is given."""

    def stats(self) -> Stats:
        """Read the counters."""

    def peaks(self) -> tuple[float, float]:
        """Largest absolute input and output value since the last call."""

    def latency_terms(self) -> dict[str, int]:
        """Latency between input and output, in samples, by its terms."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""


class Duplex(CallbackStream):
    """A PortAudio stream between two timelines, in this process.

    Parameters
    ----------
    input, output
        Devices as in `find`. With a source the input is not opened.
    sample_rate
        In Hz.
    in_channels, out_channels
        Channels of each input and output sample.
    block
        Samples per callback.
    headroom
        Samples by which the worker's answers are played later than their input came.
    source
        (n, in_channels) float32 that is played once in place of the input, then silence.
    passthrough
        Copy input to output in the callback and leave the rest alone: the machine's own floor.
    latency
        What to ask of the device's own buffers: ``"low"``, ``"high"`` or seconds.

    Raises
    ------
    DeviceError
        If there is no such device, or it cannot do what is asked.
    """

    def __init__(
        self,
        input: int | str | None,
        output: int | str | None,
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        headroom: int,
        source: Float32 | None = None,
        *,
        passthrough: bool = False,
        latency: Literal["low", "high"] | float = "low",
    ) -> None:
        super().__init__(
            sample_rate,
            in_channels,
            out_channels,
            block,
            headroom,
            source,
            microphone=source is None,
            passthrough=passthrough,
        )
        self._stream = Stream(
            input,
            output,
            sample_rate,
            in_channels,
            out_channels,
            block,
            self.userdata,
            microphone=source is None,
            latency=latency,
        )
        self.name = self._stream.name
        # The stream holds an address into this: whatever happens, it is closed before that goes.
        self._close = weakref.finalize(self, close, self._stream, self._control)
        self._close.atexit = False  # sounddevice closes what is open then; no thread can start

    @property
    def active(self) -> bool:
        """Whether blocks are being exchanged; false once the device has gone away."""
        return self._close.alive and self._stream.active

    def start(self) -> None:
        """Begin to exchange blocks; once in the life of a stream."""
        self._stream.start()

    def stop(self) -> None:
        """Drop what is not yet played and close the stream; may be repeated."""
        self._close()

    def latency_terms(self) -> dict[str, int]:
        """Latency between input and output, in samples, by its terms, as PortAudio tells it."""
        heard, played = self._stream.latency_s
        return {
            "device input": round(heard * self.sample_rate),
            "headroom": self.headroom,
            "device output": round(played * self.sample_rate),
        }
