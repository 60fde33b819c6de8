"""A sound card in a child process, which can be lost and reopened."""

from __future__ import annotations

import time
from typing import Any, Self

import numpy as np
import soxr

from rtsep.devices.callback_stream import CallbackStream
from rtsep.devices.portaudio.client import Process
from rtsep.devices.portaudio.library import JACK
from rtsep.errors import DeviceError, LostError, RateError
from rtsep.spec import Float32

START_S, STALL_S = 10.0, 1.0
"""A device without a callback for this time, in seconds, is lost; in its first second, and later.

A sound server may take seconds to connect a stream; one that is reopened meanwhile never starts.
"""


def _own_clock(heard: dict[str, Any] | None, played: dict[str, Any]) -> int:
    """Return the rate of a microphone with another clock than the output, in Hz; else 0.

    All devices of a JACK server share its clock.
    """
    if heard is None or heard["index"] == played["index"]:
        return 0
    if heard["full_name"].endswith(JACK) and played["full_name"].endswith(JACK):
        return 0
    return _rate(heard)


def _rate(device: dict[str, Any]) -> int:
    """Return a device's default rate in Hz."""
    return round(float(device["default_samplerate"]))


class Hosted(CallbackStream):
    """A PortAudio stream in a child process, whose callback works on shared memory.

    Parameters
    ----------
    process
        Child process; not shared with another stream.
    input, output
        Devices as returned by `find`; with a source, the input is None.
    sample_rate, in_channels, out_channels, block, headroom, source, passthrough
        As in `rtsep.devices.callback_stream.CallbackStream`.

    Raises
    ------
    DeviceError
        The devices do not support these settings.
    """

    def __init__(
        self,
        process: Process,
        input: dict[str, Any] | None,
        output: dict[str, Any],
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        headroom: int,
        source: Float32 | None = None,
        passthrough: bool = False,
    ) -> None:
        self._size = 0

        def allocate(size: int) -> Any:
            self._size = size
            return process.memory.allocate(size)

        super().__init__(
            sample_rate,
            in_channels,
            out_channels,
            block,
            headroom,
            source,
            microphone=source is None,
            passthrough=passthrough,
            own_clock_hz=_own_clock(input, output),
            allocate=allocate,
        )
        self._process = process
        self._heard, self._played = input, output
        self._channels = in_channels, out_channels
        self._started = False
        self._calls, self._first, self._called = 0, 0, 0.0
        self._open()

    def _open(self) -> None:
        told = self._process.ask(
            "open",
            size=self._size,
            record=self.record,
            input=None if self._heard is None else self._heard["index"],
            output=self._played["index"],
            sample_rate=self.sample_rate,
            in_channels=self._channels[0],
            out_channels=self._channels[1],
            block=self.block,
            microphone=self._heard is not None,
            own_clock_hz=self.own_clock_hz,
        )
        self.name = told["name"]
        self._latency_s = told["latency_s"]

    @property
    def active(self) -> bool:
        """Whether blocks are exchanged; False after the device was lost."""
        if not self._started or self._control["lost"] or not self._process.alive:
            return False
        now, calls = time.monotonic(), int(self._control["callbacks"])
        if calls != self._calls:
            self._calls, self._called = calls, now
        began = (calls - self._first) * self.block > self.sample_rate
        return now - self._called < (STALL_S if began else START_S)

    def start(self) -> None:
        """Start to exchange blocks."""
        self._control["lost"] = 0
        self._process.ask("start", lost=self.record + self.offset("lost"))
        self._first = int(self._control["callbacks"])
        self._started, self._called = True, time.monotonic()

    def stop(self) -> None:
        """Close the stream without playing the rest of the output; may be repeated."""
        if self._started and not self.active:
            self._process.kill()  # closing would hang
        self._started = False
        self._process.close()

    def reopen(self) -> bool:
        """Try once to reopen a lost device; return whether it is back.

        Timelines and time are kept, so the worker does not notice the gap.

        Raises
        ------
        RateError
            The device is back at another rate.
        """
        if self._started:
            self._process.kill()  # PortAudio hangs after the loss of a device
            self._process = Process(self._process.memory)
            self._started = False
        rates = self._rates()
        try:
            self._process.ask("refresh")
            self._played = self._process.find(self._played["full_name"], "output")
            if self._heard is not None:
                self._heard = self._process.find(self._heard["full_name"], "input")
            self._open()
            self.resume()
            self.start()
        except LostError:
            self._process = Process(self._process.memory)
            return False
        except DeviceError:
            if self._rates() != rates:
                raise RateError(_rate(self._played)) from None
            return False
        return True

    def at_rate(self, rate: int) -> Self:
        """Open the same devices at another rate in Hz, with the same headroom in seconds.

        Raises
        ------
        DeviceError
            The devices can't be opened, or were lost again.
        """
        process = Process()
        try:
            played = process.find(self._played["full_name"], "output")
            heard, rest = None, None
            if self._heard is not None:
                heard = process.find(self._heard["full_name"], "input")
            else:
                rest = self._source[int(self._control["source_position"]) :]
                rest = np.ascontiguousarray(soxr.resample(rest, self.sample_rate, rate), np.float32)
            blocks = round(self.headroom / self.sample_rate * rate / self.block)
            headroom = max(1, blocks) * self.block
            return type(self)(
                process, heard, played, rate, *self._channels, self.block, headroom, rest
            )
        except DeviceError:
            process.close()
            raise

    def _rates(self) -> list[int]:
        devices = [device for device in (self._heard, self._played) if device is not None]
        return [_rate(device) for device in devices]

    def latency_terms(self) -> dict[str, int]:
        """Return the latency by its terms in samples, as PortAudio reports it."""
        heard, played = self._latency_s
        return {
            "device input": round(heard * self.sample_rate),
            **self.clock_terms(),
            "headroom": self.headroom,
            "device output": round(played * self.sample_rate),
        }
