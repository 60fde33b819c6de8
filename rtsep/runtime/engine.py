"""The engine: separates blocks of samples with constant latency.

One kernel processes a block, offline and live. A model on the tape runs inside the kernel; for
other models the kernel returns for the call of the model and is then called again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp import full_band, polyphase
from rtsep.dsp import overlap_add as frames
from rtsep.dsp.held import Held, call, putter, taker
from rtsep.dsp.kernel import FAST, array, kernel, named
from rtsep.dsp.mixer import linear
from rtsep.dsp.overlap_add import BUFFERS, Buffers
from rtsep.errors import SpecError
from rtsep.latency import Latency, StreamLatency
from rtsep.runtime.resampled import HELD, RATES, REPLACED, Rates, Resampling, longest_wait
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.interpreter import NO_TAPE, PROGRAM, SETTLED, Program
from rtsep.spec import Float32, Int64, Spec, Step, check_array

PIECE_S = 0.1
"""Longest piece per call of the kernel, in seconds; other threads may run between pieces."""
DONE, MODEL = 0, 1
"""Results of `advance`: the block is complete, or the model must be called (`Engine.call`)."""


class EngineState(NamedTuple):
    """Arrays that `advance` works on, with its progress."""

    buffers: Buffers
    program: Program
    tape: Int64
    """(2,): addresses of the kernel that runs the program, and of the program; zeros if the model
    is called by Python."""
    rates: Rates
    floor: Float32
    """(1,): share of the other stems that is left in each, 0 to 1."""


ENGINE_STATE = named(EngineState, BUFFERS, PROGRAM, array(1, types.int64), RATES, array(1))

# Inlined into the kernel, so that it is not compiled a second time.
_part = kernel(inline="always")


@_part
def _advance(state: EngineState, block: Float32, out: Float32) -> int:
    """Separate samples of the model's rate, as `advance`."""
    buffers, program = state.buffers, state.program
    cursors = buffers.cursors
    chunk = buffers.mixture.shape[1] * cursors[frames.HOP]
    while cursors[frames.TAKEN] < block.shape[0]:
        start = cursors[frames.TAKEN]
        count = min(chunk - cursors[frames.POSITION], block.shape[0] - start)
        if cursors[frames.AWAITED]:
            cursors[frames.AWAITED] = 0
        else:
            frames.analyse(buffers, block, start, count)
            if cursors[frames.POSITION] + count == chunk:
                cursors[frames.CALLS] += 1
                if state.tape[0] == 0:
                    cursors[frames.AWAITED] = 1
                    return MODEL
                call(state.tape[0], state.tape[1])
        if frames.overlap_add(buffers, out, start, count):
            for stream in range(buffers.broken.size):
                if buffers.broken[stream]:
                    buffers.broken[stream] = 0
                    program.known[stream] = 0
                    program.cursors[SETTLED] = 0
        cursors[frames.TAKEN] = start + count
    cursors[frames.TAKEN] = 0
    return DONE


@_part
def _leave(out: Float32, floor: float) -> None:
    """Leave a share of the other stems in each; their sum stays the same."""
    if floor == 0.0:
        return
    samples, sources, channels = out.shape
    scale = np.float32(1.0) / (np.float32(1.0) + (sources - 1) * floor)
    for t in range(samples):
        for c in range(channels):
            total = np.float32(0.0)
            for s in range(sources):
                total += out[t, s, c]
            for s in range(sources):
                own = out[t, s, c]
                out[t, s, c] = scale * (own + floor * (total - own))


put = putter(ENGINE_STATE)
take = taker(ENGINE_STATE)


@kernel(types.void(ENGINE_STATE, types.int64))
def hold(state: EngineState, address: int) -> None:
    """Store a state at an address."""
    put(state, address)


@kernel(types.int64(types.int64, array(2, readonly=True), array(3)), **FAST)
def advance(address: int, block: Float32, out: Float32) -> int:
    """Separate ``block``, (n, channels), to ``out``, (n, sources, channels).

    It does not release the interpreter lock, because taking it again may take long.

    Parameters
    ----------
    address
        Address of an `EngineState`, see `rtsep.dsp.held.Held`.
    block
        At most `Engine.piece` samples.

    Returns
    -------
    int
        `DONE`, or `MODEL`: call the model, then this function with the same block.
    """
    state = take(address)
    rates = state.rates
    if rates.mixture.shape[0] == 0:
        result = _advance(state, block, out)
        if result == DONE:
            _leave(out, state.floor[0])
        return result
    cursors, n, width = rates.cursors, block.shape[0], out.shape[1] * out.shape[2]
    whole = rates.rest.mixture.shape[0] > 0
    if cursors[HELD] < 0:
        cursors[REPLACED] += polyphase.push(rates.inward, block)
        cursors[HELD] = polyphase.ready(rates.inward)
        polyphase.pull(rates.inward, rates.mixture[: cursors[HELD]])
        if whole:
            full_band.put_mixture(rates.rest, block)
    held = cursors[HELD]
    stems = rates.stems[:held]
    if _advance(state, rates.mixture[:held], stems) == MODEL:
        return MODEL
    polyphase.push(rates.outward, stems.reshape(held, width))
    polyphase.pull(rates.outward, out.reshape(n, width))
    if whole:
        full_band.put_stems(rates.rest, rates.mixture[:held], stems)
        full_band.add_rest(rates.rest, out)
    _leave(out, state.floor[0])
    cursors[HELD] = -1
    return DONE


@dataclass(frozen=True)
class StemOptions:
    """What is done to the stems of a model, whichever it is.

    Attributes
    ----------
    full_band
        Whether stems get what a model of another rate does not receive, so that they add up to
        the mixture, see `rtsep.dsp.full_band`.
    floor_db
        Level at which the other sources are left in each stem, in dB relative to its own, at most
        0; None is the bundle's. Stems still add up to the mixture, so each becomes less loud.

    Raises
    ------
    SpecError
        The floor is above 0 dB or NaN.
    """

    full_band: bool = True
    floor_db: float | None = None

    def __post_init__(self) -> None:
        """Check the floor."""
        if self.floor_db is not None and not self.floor_db <= 0.0:
            raise SpecError(f"the floor must be at most 0 dB, not {self.floor_db}")


DEFAULT = StemOptions()
"""The band that the model does not receive is added, and the floor is the bundle's."""


class Engine:
    """Runs a model on a stream of samples, in blocks of any size and at any rate.

    The output is the reconstruction of the model's frames, delayed by exactly ``latency_samples``,
    if every block is a multiple of the declared one.

    Several independent streams can share the calls of one model: pass a step with that number of
    streams, and ``streams * spec.channels`` channels. `reset` a stream to start a new one in its
    place.

    Parameters
    ----------
    step
        The model; not shared with other engines.
    spec
        Spec of the model.
    channels
        Audio channels of the blocks. A model of one channel processes each as a separate stream.
    block
        The length of every block is a multiple of this, in samples; 1 for any length.
    rate_hz
        Sample rate of the blocks; None is that of the model. Another rate is resampled, see
        `rtsep.runtime.resampled`.
    options
        See `StemOptions`; without a floor it is 0.

    Attributes
    ----------
    latency
        Algorithmic latency by its terms, in samples of the model's rate.
    latency_samples
        Delay of the output, in samples of the blocks, resampling included.
    resampling
        Term of resampling; may be fractional.
    piece
        Largest number of samples per call of the kernel.
    held
        Arrays that the kernel works on.
    step
        The model.
    streams
        Number of streams of the step; stream ``k`` has the ``spec.channels`` channels from
        ``k * spec.channels`` on.

    Raises
    ------
    SpecError
        The step's buffers are not those of ``spec`` and ``channels``, or the ratio of the rates is
        not supported.
    ValueError
        The window does not reconstruct, or a figure is below 1.
    """

    def __init__(
        self,
        step: Step,
        spec: Spec,
        channels: int = 1,
        block: int = 1,
        rate_hz: int | None = None,
        options: StemOptions = DEFAULT,
    ) -> None:
        if channels < 1 or block < 1:
            raise ValueError(f"channels and block must be 1 or more, not {channels} and {block}")
        self.spec = spec
        self.channels = channels
        self.block = block
        rate_hz = spec.sample_rate if rate_hz is None else rate_hz
        waiting = longest_wait(rate_hz, spec.sample_rate, block, spec.step_length)
        self.latency = replace(Latency.of(spec, block), reblocking=waiting)
        self.streams = len(step.mixture)
        self.step = step
        self._shape = (len(spec.sources), channels)
        buffers = frames.make_buffers(spec, step, channels, self.latency.reblocking)
        self.piece = max(1, round(PIECE_S * rate_hz) // block) * block
        self._resampling = Resampling(
            *(rate_hz, spec.sample_rate, block, self.piece, self.latency.total),
            *(*self._shape, options.full_band),
        )
        self.latency_samples = self._resampling.latency_samples
        self.resampling = self._resampling.added
        self._program: Program | None = getattr(step, "program", None)
        own = NO_TAPE._replace(
            known=np.ones(self.streams, np.int64), cursors=NO_TAPE.cursors.copy()
        )
        floor = 0.0 if options.floor_db is None else linear(options.floor_db)
        program, tape = self._program or own, np.zeros(2, np.int64)
        if len(program.operations):
            self._tape = Held(program, PROGRAM, interpreter.hold)
            tape[:] = interpreter.step.address, self._tape.address
        state = EngineState(
            *(buffers, program, tape),
            self._resampling.rates,
            np.array([floor], np.float32),
        )
        self.held = Held(state, ENGINE_STATE, hold)

    @property
    def state(self) -> EngineState:
        """Arrays that the kernel works on."""
        return self.held.value

    @property
    def calls(self) -> int:
        """Number of calls of the model since construction."""
        return int(self.state.buffers.cursors[frames.CALLS])

    @property
    def nonfinite_in(self) -> int:
        """Input samples replaced by 0 since construction.

        NaN, Inf, or beyond `rtsep.dsp.overlap_add.LIMIT`.
        """
        buffers, rates = self.state.buffers, self.state.rates
        return int(buffers.cursors[frames.NONFINITE_IN] + rates.cursors[REPLACED])

    @property
    def nonfinite_out(self) -> int:
        """Frames with such values in the model's output since construction.

        They were replaced by silence in all sources of the stream, whose state was reset.
        """
        return int(self.state.buffers.cursors[frames.NONFINITE_OUT])

    def process(self, block: Float32, out: Float32 | None = None) -> Float32:
        """Separate the next samples.

        Parameters
        ----------
        block
            (n, channels) float32, C-contiguous; n is a multiple of the declared block.
        out
            (n, sources, channels) float32, C-contiguous, not overlapping ``block``; filled and
            returned. Allocated if not given; pass it on the audio path.

        Returns
        -------
        out
            Output sample ``t`` of the stream belongs to input sample ``t - latency_samples``.

        Raises
        ------
        ValueError
            An array has an invalid shape, type or layout; the stream is unchanged.
        """
        check_array("block", block, (len(block), self.channels))
        n = len(block)
        if n % self.block:
            raise ValueError(f"{n} samples are not a multiple of the declared block, {self.block}")
        if out is None:
            out = np.empty((n, *self._shape), np.float32)
        else:
            check_array("out", out, (n, *self._shape))
            if not out.flags.writeable:
                raise ValueError("out must be writeable")
        try:
            address = self.held.address
            for first in range(0, n, self.piece):
                part, stems = block, out
                if n > self.piece:
                    last = first + self.piece
                    part, stems = block[first:last], out[first:last]
                while advance(address, part, stems) == MODEL:
                    self.call()
        except BaseException:
            self._abandon()
            raise
        return out

    def call(self) -> None:
        """Call the model, if the kernel does not run it."""
        if self._program is None and not self.state.program.cursors[SETTLED]:
            self._forget()
        self.step()

    def flush(self, out: Float32 | None = None) -> Float32:
        """Return the last ``latency_samples`` samples and reset the stream.

        All outputs joined, without their first ``latency_samples`` samples, are aligned with the
        input and have its length. Allocates; not for the audio path.

        Parameters
        ----------
        out
            (latency_samples, sources, channels) float32, C-contiguous; allocated if not given.
        """
        total = self.latency_samples
        if out is None:
            out = np.empty((total, *self._shape), np.float32)
        else:
            check_array("out", out, (total, *self._shape))
        blocks = -(-total // self.block)
        silence = np.zeros((blocks * self.block, self.channels), np.float32)
        out[:] = self.process(silence)[:total]
        self.reset()
        return out

    def reset(self, stream: int | None = None) -> None:
        """Set all state to zeros, also the model's; counters are kept.

        Parameters
        ----------
        stream
            Reset this stream only, without effect on others. Not supported with resampling.
        """
        self.step.reset(stream)
        frames.clear(self.state.buffers, stream)
        if stream is None:
            self._resampling.reset()

    def _forget(self) -> None:
        """Reset the streams with non-finite frames in a step that has its own state."""
        program = self.state.program
        for stream in np.flatnonzero(program.known == 0):
            self.step.reset(int(stream))
        program.known[:], program.cursors[SETTLED] = 1, 1

    def _abandon(self) -> None:
        """Discard the current block, in which the step failed."""
        cursors = self.state.buffers.cursors
        if cursors[frames.AWAITED]:
            cursors[[frames.POSITION, frames.AWAITED]] = 0
        cursors[frames.TAKEN] = 0
        self.state.rates.cursors[HELD] = -1


def stream_latency(
    engine: Engine, rate_hz: int, device: Mapping[str, int] | None = None
) -> StreamLatency:
    """Return the latency of a stream by the terms of engine, resampling and device.

    Parameters
    ----------
    engine
        Engine for blocks of ``rate_hz``.
    rate_hz
        Sample rate of the stream, in Hz.
    device
        Terms of the device, in samples of that rate; none for an engine alone.
    """
    ratio = rate_hz / engine.spec.sample_rate
    inside = {name: n * ratio for name, n in asdict(engine.latency).items()}
    terms = {**inside, "resampling": engine.resampling, **(device or {})}
    return StreamLatency(rate_hz, terms)
