"""What a stream is made of, whoever drives it: two timelines, one record, the counters."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from rtsep.devices import drift
from rtsep.devices.callback import callback, listen
from rtsep.devices.control_block import CONTROL, COUNTERS, Stats, layout
from rtsep.dsp.timed_ring import Timeline
from rtsep.errors import DeviceError
from rtsep.spec import Float32

FADE_S = 0.005
"""Duration of the fade between the worker's answer and its replacement."""
RELEASE_S = 0.1
"""Time constant with which the limiter lets go."""


_CALLBACK = ctypes.PYFUNCTYPE(  # keeps the GIL: the call takes microseconds
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
)
_TICK, _LISTEN = _CALLBACK(callback.address or 0), _CALLBACK(listen.address or 0)


class CallbackStream:
    """Two timelines and the record of one stream; what opens and drives it builds on it.

    Parameters
    ----------
    sample_rate
        In Hz.
    in_channels, out_channels
        Channels of each input and output sample.
    block
        Samples per callback.
    headroom
        Samples by which the worker's answers are played later than their input came: the time it
        has for a block, and exactly the latency that is added here.
    source
        (n, in_channels) float32 that is played once in place of a microphone, then silence.
    microphone
        True where the callback is given input; otherwise the source, or silence, is the input.
    passthrough
        Copy input to output in the callback and leave the rest alone. A missing channel is the
        last one there is.
    own_clock_hz
        Rate of a microphone that has another clock than the output, see `listen`; 0 if it has not.
    allocate
        Makes the memory, zeroed, of a number of bytes; the process's own if not given.

    Attributes
    ----------
    input, output
        Timelines of ``in_channels`` and ``out_channels``: the worker reads the one, writes the
        other, ``headroom`` samples ahead.
    """

    def __init__(
        self,
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        headroom: int,
        source: Float32 | None = None,
        *,
        microphone: bool = False,
        passthrough: bool = False,
        own_clock_hz: int = 0,
        allocate: Callable[[int], Any] = bytearray,
    ) -> None:
        if min(sample_rate, in_channels, out_channels, block) < 1 or headroom < 0:
            raise ValueError(
                "sample_rate, channels and block must be 1 or more and headroom 0 or more, not "
                f"{sample_rate}, {in_channels}, {out_channels}, {block} and {headroom}"
            )
        if source is not None and (source.ndim != 2 or source.shape[1] != in_channels):
            raise ValueError(f"the source must be (n, {in_channels}), not {source.shape}")
        self.sample_rate, self.block, self.headroom = sample_rate, block, headroom
        self._has_source = source is not None
        length = 0 if source is None else len(source)
        rows = np.zeros((1, 0), np.float32)
        if own_clock_hz:
            rows = drift.table(own_clock_hz, sample_rate)
        kind = layout(sample_rate, in_channels, out_channels, block, length, rows.shape[1])
        # One line of the cache more than needed: the record begins at the start of one.
        memory = np.frombuffer(allocate(kind.itemsize + 64), np.uint8)
        first = -memory.ctypes.data % 64
        parts: Any = memory[first : first + kind.itemsize].view(kind)[0]
        self._control: Any = parts["control"]
        for name in ("input", "output", "feed"):
            self._control[f"{name}_capacity"] = len(parts[f"{name}_data"])
        self._control["input_width"], self._control["output_width"] = in_channels, out_channels
        assert kind.fields is not None
        for name in kind.fields.keys() - {"control"}:
            self._control[name] = kind.fields[name][1]
        self.input = Timeline(parts["input_data"], parts["input_cursors"])
        self.output = Timeline(parts["output_data"], parts["output_cursors"])
        self._last = parts["last"]
        self.output.leave_out(headroom)
        self._source = parts["source"][:length]
        if source is not None:
            self._source[:] = source
        self._control["source_length"] = length
        self._control["microphone"] = microphone
        self._control["passthrough"] = passthrough
        self._control["dry"] = -1
        self._control["fade"] = self._control["wet"] = max(1, round(FADE_S * sample_rate))
        self.own_clock_hz = own_clock_hz
        if own_clock_hz:
            parts["table"][:] = rows
            self._control["two_clocks"] = 1
            self._control["taps"] = rows.shape[1]
            self._control["feed_rate"] = own_clock_hz
            self._control["feed_ratio"] = own_clock_hz / sample_rate
            self._control["reserve"] = drift.reserve(block, own_clock_hz)
        self._control["period"] = block / sample_rate
        self._control["limit"], self._control["limiter"] = np.inf, 1.0
        self._control["release"] = 1.0 - np.exp(-1.0 / (RELEASE_S * sample_rate))
        self._time = np.zeros(3)
        self.record = first
        """Where the record begins in the memory, in bytes."""
        self.userdata: int = memory.ctypes.data + first
        """Its address, for PortAudio."""

    @staticmethod
    def offset(field: str) -> int:
        """Where a field lies in the record, in bytes."""
        assert CONTROL.fields is not None
        return int(CONTROL.fields[field][1])

    def replace_late(self, latency: int) -> None:
        """Play the mixture, as late as it should have been, where the worker's answer is missing.

        Parameters
        ----------
        latency
            Of the worker's answers, in samples, beside ``headroom``.

        Raises
        ------
        DeviceError
            If the mixture is not kept for so long.
        """
        delay = latency + self.headroom
        if delay + self.block > self.input.capacity:
            late_s, kept_s = (n / self.sample_rate for n in (delay, self.input.capacity))
            raise DeviceError(
                f"{late_s:.1f} s late, the model can't be replaced by the mixture where it misses "
                f"its time: that is kept for {kept_s:.1f} s; use --on-late mute"
            )
        self._control["dry"] = delay

    def limit(self, level: float) -> None:
        """Play no magnitude above ``level`` (linear, 1 is full scale)."""
        self._control["limit"] = level

    def leave_out(self, n: int, latency: int) -> None:
        """Give up the next ``n`` answers, and those that are a mixture with what comes after.

        Parameters
        ----------
        n
            Samples of the input that the worker has dropped.
        latency
            Of its answers, in samples, beside ``headroom``.
        """
        self._control["valid_from"] = self.output.written + n + latency
        self.output.leave_out(n)

    def resume(self) -> None:
        """Begin from silence, whatever was played last: the device was away."""
        self._last[:] = 0.0
        self._control["due"] = 0.0
        self._control["resumed"] = 1

    @property
    def finished(self) -> bool:
        """Whether the whole source has been handed over; never without a source."""
        return self._has_source and bool(
            self._control["source_position"] >= self._control["source_length"]
        )

    @property
    def correction(self) -> float:
        """By how much the microphone's clock is faster than its rate, as far as is known now."""
        return float(self._control["correction"])

    @property
    def fading(self) -> bool:
        """Whether anything but the worker's answer, as it is, is heard now."""
        whole = self._control["wet"] == self._control["fade"]
        return not whole or bool(self._control["tail_left"])

    def stats(self) -> Stats:
        """Read the counters, while the stream runs or after."""
        late = max(-self.output.readable, 0)
        return Stats(**{name: int(self._control[name]) for name in COUNTERS}, late=late)

    def inherit(self, counters: Stats) -> None:
        """Go on counting from there: this stream takes the place of another."""
        for name in COUNTERS:
            self._control[name] = getattr(counters, name)

    def peaks(self) -> tuple[float, float]:
        """Largest absolute input and output value since the last call."""
        found = float(self._control["input_peak"]), float(self._control["output_peak"])
        self._control["input_peak"] = self._control["output_peak"] = 0.0
        return found

    def latency_terms(self) -> dict[str, int]:
        """Latency between input and output, in samples, by its terms."""
        return {**self.clock_terms(), "headroom": self.headroom}

    def clock_terms(self) -> dict[str, int]:
        """Latency that a microphone's own clock adds, in samples."""
        if not self.own_clock_hz:
            return {}
        inside = self._control["reserve"] + self._control["taps"] / 2
        return {"two clocks": round(inside / self._control["feed_ratio"])}

    def tick(self, block: Float32, out: Float32, now: float, flags: int = 0) -> None:
        """Call the callback as PortAudio would, from Python.

        Parameters
        ----------
        block
            (block, in_channels) float32, C-contiguous; not read where a source is the input.
        out
            (block, out_channels) float32, C-contiguous, to be filled.
        now
            Time of the device's clock, in seconds.
        flags
            PortAudio's status flags.
        """
        self._time[:] = now
        _TICK(
            block.ctypes.data,
            out.ctypes.data,
            len(out),
            self._time.ctypes.data,
            flags,
            self.userdata,
        )

    def listen(self, block: Float32, now: float, flags: int = 0) -> None:
        """Call the callback of a microphone with a clock of its own, from Python.

        Parameters
        ----------
        block
            (n, in_channels) float32, C-contiguous.
        now
            Time of the clock that `tick` is told, in seconds.
        flags
            PortAudio's status flags.
        """
        self._time[:] = now
        address = self._time.ctypes.data
        _LISTEN(block.ctypes.data, None, len(block), address, flags, self.userdata)

    def start(self) -> None:
        """Begin to exchange blocks; once in the life of a device."""
        raise NotImplementedError

    def reopen(self) -> bool:
        """Try once to go on with a device that was lost; tell whether it is back."""
        return False

    def at_rate(self, rate: int) -> Self:
        """Make a device for the same stream at another rate, in Hz; to be started."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it, and close what was opened; may be repeated."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()
