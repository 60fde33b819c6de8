"""What a stream is made of, whoever drives it: two rings, one record, the counters."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from rtsep.io.callback import CONTROL, COUNTERS, callback
from rtsep.ring import Float32, Ring


@dataclass(frozen=True)
class Stats:
    """What the callback has counted since the stream was opened.

    Attributes
    ----------
    callbacks
        Blocks exchanged.
    missed
        Blocks the device should have asked for and did not, by its own clock.
    input_underflows, input_overflows, output_underflows, output_overflows
        Callbacks that PortAudio flagged.
    input_overruns, overrun_samples
        Callbacks whose input did not fit into the input ring, and the samples dropped.
    starvations, starved_samples
        Runs of callbacks that found too little in the output ring, and the samples of silence
        played instead.
    resyncs, debt
        Times the latency came back to its start value after that, and the samples it is off now
        (positive: later than at the start).
    """

    callbacks: int
    missed: int
    input_underflows: int
    input_overflows: int
    output_underflows: int
    output_overflows: int
    input_overruns: int
    overrun_samples: int
    starvations: int
    starved_samples: int
    resyncs: int
    debt: int

    @property
    def xruns(self) -> int:
        """Under- and overflows the device itself has told of."""
        return (
            self.input_underflows
            + self.input_overflows
            + self.output_underflows
            + self.output_overflows
        )


_TICK = ctypes.PYFUNCTYPE(  # keeps the GIL: the call takes microseconds
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
)(callback.address or 0)


class Exchange:
    """Two rings and the record of one stream; what opens and drives the stream builds on it.

    Parameters
    ----------
    sample_rate
        In Hz.
    in_channels, out_channels
        Channels of each input and output sample.
    block
        Samples per callback.
    headroom
        Samples of silence in the output ring at the start: the time the worker has for a block,
        and exactly the latency the rings add.
    source
        (n, in_channels) float32 that is played once in place of a microphone, then silence.
    microphone
        True where the callback is given input; otherwise the source, or silence, is the input.
    passthrough
        Copy input to output in the callback and leave the rings alone. A missing channel is the
        last one there is.

    Attributes
    ----------
    input, output
        Rings of ``in_channels`` and ``out_channels``: the worker reads the one, writes the other.
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
    ) -> None:
        if min(sample_rate, in_channels, out_channels, block) < 1 or headroom < 0:
            raise ValueError(
                "sample_rate, channels and block must be 1 or more and headroom 0 or more, not "
                f"{sample_rate}, {in_channels}, {out_channels}, {block} and {headroom}"
            )
        if source is not None and (source.ndim != 2 or source.shape[1] != in_channels):
            raise ValueError(f"the source must be (n, {in_channels}), not {source.shape}")
        self.sample_rate, self.block, self.headroom = sample_rate, block, headroom
        # Bounded, so that a worker that fell behind has little to catch up with.
        capacity = 4 * headroom + 16 * block
        self.input = Ring(capacity, in_channels)
        self.output = Ring(capacity, out_channels)
        self.output.write(np.zeros((headroom, out_channels), np.float32))
        self._has_source = source is not None
        length = 0 if source is None else len(source)
        self._source = np.zeros((length + block, in_channels), np.float32)
        if source is not None:
            self._source[:length] = source
        self._control: Any = np.zeros((), CONTROL)
        for name, used in (("input", self.input), ("output", self.output)):
            self._control[f"{name}_data"] = used.data.ctypes.data
            self._control[f"{name}_cursors"] = used.cursors.ctypes.data
            self._control[f"{name}_capacity"] = used.capacity
            self._control[f"{name}_width"] = used.width
        self._control["source"] = self._source.ctypes.data
        self._control["source_length"] = length
        self._control["microphone"] = microphone
        self._control["passthrough"] = passthrough
        self._control["period"] = block / sample_rate
        self.userdata: int = self._control.ctypes.data
        """Address of the record, for PortAudio."""

    @property
    def finished(self) -> bool:
        """Whether the whole source has been handed over; never without a source."""
        return self._has_source and bool(
            self._control["source_position"] >= self._control["source_length"]
        )

    def stats(self) -> Stats:
        """Read the counters, while the stream runs or after."""
        return Stats(**{name: int(self._control[name]) for name in COUNTERS})

    def peaks(self) -> tuple[float, float]:
        """Largest absolute input and output value since the last call."""
        found = float(self._control["input_peak"]), float(self._control["output_peak"])
        self._control["input_peak"] = self._control["output_peak"] = 0.0
        return found

    def latency_terms(self) -> dict[str, int]:
        """Latency between input and output, in samples, by its terms."""
        return {"headroom": self.headroom}

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
        time = np.full(3, now)
        _TICK(
            block.ctypes.data,
            out.ctypes.data,
            self.block,
            time.ctypes.data,
            flags,
            self.userdata,
        )

    def start(self) -> None:
        """Begin to exchange blocks; once in the life of a device."""
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
