"""The base class of devices: two timelines, the control record and the counters."""

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
"""Duration of the fade between the worker's output and its replacement, in seconds."""
RELEASE_S = 0.1
"""Release time constant of the limiter, in seconds."""


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
    """Timelines and control record of one stream; subclasses open a device and drive it.

    Parameters
    ----------
    sample_rate
        In Hz.
    in_channels, out_channels
        Channels of each input and output sample.
    block
        Samples per callback.
    headroom
        Delay of the worker's output behind its input at the start, in samples: the time the worker
        has for a block, and a term of the latency.
    source
        (n, in_channels) float32, played once in place of a microphone, then silence.
    microphone
        True if the callback receives input; otherwise the source, or silence, is the input.
    passthrough
        Copy input to output in the callback, without a worker. Further output channels repeat the
        last input channel.
    own_clock_hz
        Rate of a microphone that has another clock than the output, see `listen`; else 0.
    allocate
        Function that allocates zeroed memory, in bytes; by default memory of this process.

    Attributes
    ----------
    input, output
        Timelines of ``in_channels`` and ``out_channels``. The worker reads the input and writes the
        output, ahead by the headroom of the start.
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
        self.sample_rate, self.block, self._first_headroom = sample_rate, block, headroom
        self._has_source = source is not None
        length = 0 if source is None else len(source)
        rows = np.zeros((1, 0), np.float32)
        if own_clock_hz:
            rows = drift.table(own_clock_hz, sample_rate)
        kind = layout(sample_rate, in_channels, out_channels, block, length, rows.shape[1])
        # 64 spare bytes, so that the record starts at a cache line.
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
        self._control["valid_from"] = -self.output.capacity  # silence was before the beginning
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
        self._control["sample_s"] = 1 / sample_rate
        self._control["limit"], self._control["limiter"] = np.inf, 1.0
        self._control["release"] = 1.0 - np.exp(-1.0 / (RELEASE_S * sample_rate))
        self._time = np.zeros(3)
        self.record = first
        """Offset of the record in the memory, in bytes."""
        self.userdata: int = memory.ctypes.data + first
        """Address of the record, for PortAudio."""

    @staticmethod
    def offset(field: str) -> int:
        """Return the offset of a field in the record, in bytes."""
        assert CONTROL.fields is not None
        return int(CONTROL.fields[field][1])

    @property
    def headroom(self) -> int:
        """Delay of the worker's output behind its input, in samples.

        May be assigned while the stream runs; the output is cross-faded in `FADE_S`.

        Raises
        ------
        ValueError
            It is negative, or the mixture is not kept for that long.
        """
        return self._first_headroom - int(self._control["ahead_wanted"])

    @headroom.setter
    def headroom(self, n: int) -> None:
        most = self.input.capacity - self.block
        if self._control["dry"] >= 0:
            most -= int(self._control["dry"]) - self._first_headroom
        if not 0 <= n <= most:
            raise ValueError(f"the headroom must be 0 to {most} samples, not {n}")
        self._control["ahead_wanted"] = self._first_headroom - n
        if not self._control["callbacks"]:
            self._control["ahead"] = self._control["ahead_wanted"]

    def replace_late(self, latency: int) -> None:
        """Play the delayed mixture in place of missing output of the worker.

        Parameters
        ----------
        latency
            Latency of the worker's output in samples, without ``headroom``.

        Raises
        ------
        DeviceError
            The latency exceeds the history of the mixture.
        """
        delay = latency + self.headroom
        if delay + self.block > self.input.capacity:
            late_s, kept_s = (n / self.sample_rate for n in (delay, self.input.capacity))
            raise DeviceError(
                f"the latency of {late_s:.1f} s exceeds the {kept_s:.1f} s of mixture kept to "
                "replace late output: use --on-late mute"
            )
        self._control["dry"] = latency + self._first_headroom

    def limit(self, level: float) -> None:
        """Limit the output to magnitude ``level`` (linear, 1 is full scale)."""
        self._control["limit"] = level

    def leave_out(self, n: int, latency: int) -> None:
        """Skip the next ``n`` samples of the output, and do not play those that depend on the gap.

        Parameters
        ----------
        n
            Samples of the input that the worker has dropped.
        latency
            Latency of the worker's output in samples, without ``headroom``.
        """
        self._control["valid_from"] = self.output.written + n + latency
        self.output.leave_out(n)

    def resume(self) -> None:
        """Restart from silence after the device was lost."""
        self._last[:] = 0.0
        self._control["due"] = 0.0
        self._control["resumed"] = 1

    @property
    def finished(self) -> bool:
        """Whether the source has ended; False without a source."""
        return self._has_source and bool(
            self._control["source_position"] >= self._control["source_length"]
        )

    @property
    def correction(self) -> float:
        """Current estimate of the relative deviation of the microphone's clock from its rate."""
        return float(self._control["correction"])

    @property
    def fading(self) -> bool:
        """Whether the output differs from the worker's output now."""
        whole = self._control["wet"] == self._control["fade"]
        return not whole or bool(self._control["tail_left"])

    def stats(self) -> Stats:
        """Return the counters; the stream may be running."""
        late = max(-self.output.readable, 0)
        return Stats(**{name: int(self._control[name]) for name in COUNTERS}, late=late)

    def inherit(self, counters: Stats) -> None:
        """Continue the counters of the stream that this one replaces."""
        for name in COUNTERS:
            self._control[name] = getattr(counters, name)

    def peaks(self) -> tuple[float, float]:
        """Return the largest absolute input and output value since the last call."""
        found = float(self._control["input_peak"]), float(self._control["output_peak"])
        self._control["input_peak"] = self._control["output_peak"] = 0.0
        return found

    def latency_terms(self) -> dict[str, int]:
        """Return the latency between input and output by its terms, in samples."""
        return {**self.clock_terms(), "headroom": self.headroom}

    def clock_terms(self) -> dict[str, int]:
        """Return the latency of synchronising a microphone with its own clock, in samples."""
        if not self.own_clock_hz:
            return {}
        inside = self._control["reserve"] + self._control["taps"] / 2
        return {"two clocks": round(inside / self._control["feed_ratio"])}

    def tick(self, block: Float32, out: Float32, now: float, flags: int = 0) -> None:
        """Call the callback as PortAudio would, from Python.

        Parameters
        ----------
        block
            (block, in_channels) float32, C-contiguous; ignored with a source.
        out
            (block, out_channels) float32, C-contiguous; filled.
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
        """Call the callback of a microphone with its own clock, from Python.

        Parameters
        ----------
        block
            (n, in_channels) float32, C-contiguous.
        now
            Time of the clock of `tick`, in seconds.
        flags
            PortAudio's status flags.
        """
        self._time[:] = now
        address = self._time.ctypes.data
        _LISTEN(block.ctypes.data, None, len(block), address, flags, self.userdata)

    def start(self) -> None:
        """Start to exchange blocks; once per object."""
        raise NotImplementedError

    def reopen(self) -> bool:
        """Try once to reopen a lost device; return whether it is back."""
        return False

    def at_rate(self, rate: int) -> Self:
        """Return a device for the same stream at another rate in Hz, not started."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop and close the device; may be repeated."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()
