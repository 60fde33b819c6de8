"""The engine: samples in, as many samples per source out, always the same latency later.

One kernel does everything, offline and live. Where a tape runs the model, it runs in the kernel;
elsewhere the kernel returns for the call and is entered again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp import overlap_add as frames
from rtsep.dsp import polyphase
from rtsep.dsp.held import Held, putter, taker
from rtsep.dsp.kernel import FAST, array, kernel, named
from rtsep.dsp.overlap_add import BUFFERS, Buffers
from rtsep.latency import Latency, StreamLatency
from rtsep.runtime.resampled import HELD, RATES, REPLACED, Rates, Resampling, inner_block
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.interpreter import NO_TAPE, PROGRAM, SETTLED, Program
from rtsep.spec import Float32, Spec, Step, check_array

PIECE_S = 0.1
"""Longest piece worked on at once, in seconds: other threads get their turn in between."""
DONE, MODEL = 0, 1
"""The block is done; or the model is to be called, see `Engine.call`, then go on."""


class EngineState(NamedTuple):
    """What `advance` works on, and where it stands."""

    buffers: Buffers
    program: Program
    rates: Rates


ENGINE_STATE = named(EngineState, BUFFERS, PROGRAM, RATES)

# A part of the kernel: compiled on its own, it would be optimised with all it calls once more.
_part = kernel(inline="always")


@_part
def _advance(state: EngineState, block: Float32, out: Float32) -> int:
    """As `advance`, for samples of the model's rate."""
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
                if program.operations.shape[0] == 0:
                    cursors[frames.AWAITED] = 1
                    return MODEL
                interpreter.step(program)
        if frames.overlap_add(buffers, out, start, count):
            for stream in range(buffers.broken.size):
                if buffers.broken[stream]:
                    buffers.broken[stream] = 0
                    program.known[stream] = 0
                    program.cursors[SETTLED] = 0
        cursors[frames.TAKEN] = start + count
    cursors[frames.TAKEN] = 0
    return DONE


put = putter(ENGINE_STATE)
take = taker(ENGINE_STATE)


@kernel(types.void(ENGINE_STATE, types.int64))
def hold(state: EngineState, address: int) -> None:
    """Put a state to an address."""
    put(state, address)


@kernel(types.int64(types.int64, array(2, readonly=True), array(3)), **FAST)
def advance(address: int, block: Float32, out: Float32) -> int:
    """Separate ``block``, (n, channels), into ``out``, (n, sources, channels), as far as it goes.

    It keeps the interpreter's lock: who gives it up may wait long to get it back.

    Parameters
    ----------
    address
        Of an `EngineState`, see `rtsep.dsp.held.Held`.
    block
        At most `Engine.piece` samples.

    Returns
    -------
    int
        `DONE`, or `MODEL`: to be called with the same block again, after the model.
    """
    state = take(address)
    rates = state.rates
    if rates.mixture.shape[0] == 0:
        return _advance(state, block, out)
    cursors, n, width = rates.cursors, block.shape[0], out.shape[1] * out.shape[2]
    if cursors[HELD] < 0:
        cursors[REPLACED] += polyphase.push(rates.inward, block)
        cursors[HELD] = polyphase.ready(rates.inward)
        polyphase.pull(rates.inward, rates.mixture[: cursors[HELD]])
    held = cursors[HELD]
    stems = rates.stems[:held]
    if _advance(state, rates.mixture[:held], stems) == MODEL:
        return MODEL
    polyphase.push(rates.outward, stems.reshape(held, width))
    polyphase.pull(rates.outward, out.reshape(n, width))
    cursors[HELD] = -1
    return DONE


class Engine:
    """Run a model over a stream of samples in blocks of any size, of its own rate or another.

    The output is the reconstruction of the model's frames, exactly ``latency_samples`` late, as
    long as every block is a multiple of the declared one.

    Many streams share the calls of one model, and none hears of another: give a step of that many
    streams, and ``streams * spec.channels`` channels. Where one has left, another may join at any
    time: `reset` it, and it is as if silence had come before.

    Parameters
    ----------
    step
        One call of the model over its fixed buffers. The engine uses it alone.
    spec
        The stream the model was made for.
    channels
        Audio channels of the blocks. A model of one channel runs on each as a stream of its own.
    block
        In samples; every call brings a multiple of it. With 1, the size may vary freely.
    rate_hz
        Of the blocks; the model's own if None. Sound of any other is resampled on the way in and
        out, see `rtsep.runtime.resampled`.

    Attributes
    ----------
    latency
        Algorithmic latency by its terms, in samples of the model's rate.
    latency_samples
        How late the output is, in samples of the blocks; resampling included.
    resampling
        The part of it that resampling adds; may be fractional.
    piece
        Samples that are worked on at once, at most.
    held
        What the kernel works on.
    streams
        How many the step carries; stream ``k`` has the ``spec.channels`` channels from
        ``k * spec.channels`` on.

    Raises
    ------
    SpecError
        If the step's buffers are not those of ``spec`` and ``channels``, or the rates are too odd.
    ValueError
        If the window does not reconstruct, or a figure is below 1.
    """

    def __init__(
        self,
        step: Step,
        spec: Spec,
        channels: int = 1,
        block: int = 1,
        rate_hz: int | None = None,
    ) -> None:
        if channels < 1 or block < 1:
            raise ValueError(f"channels and block must be 1 or more, not {channels} and {block}")
        self.spec = spec
        self.channels = channels
        self.block = block
        rate_hz = spec.sample_rate if rate_hz is None else rate_hz
        self.latency = Latency.of(spec, inner_block(rate_hz, spec.sample_rate, block))
        self.streams = len(step.mixture)
        self._step = step
        self._shape = (len(spec.sources), channels)
        buffers = frames.make_buffers(spec, step, channels, self.latency.reblocking)
        self.piece = max(1, round(PIECE_S * rate_hz) // block) * block
        self._resampling = Resampling(
            *(rate_hz, spec.sample_rate, block, self.piece, self.latency.total), *self._shape
        )
        self.latency_samples = self._resampling.latency_samples
        self.resampling = self._resampling.added
        self._program: Program | None = getattr(step, "program", None)
        own = NO_TAPE._replace(
            known=np.ones(self.streams, np.int64), cursors=NO_TAPE.cursors.copy()
        )
        state = EngineState(buffers, self._program or own, self._resampling.rates)
        self.held = Held(state, ENGINE_STATE, hold)

    @property
    def state(self) -> EngineState:
        """What the kernel works on."""
        return self.held.value

    @property
    def calls(self) -> int:
        """Calls of the model since construction."""
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
        """Frames since construction that the model spoiled with such values.

        Silence was put in their place, in every source of that stream, and the model's state was
        reset for it.
        """
        return int(self.state.buffers.cursors[frames.NONFINITE_OUT])

    def process(self, block: Float32, out: Float32 | None = None) -> Float32:
        """Separate the next samples.

        Parameters
        ----------
        block
            (n, channels) float32, C-contiguous; n >= 0 is a multiple of the declared block.
        out
            (n, sources, channels) float32, C-contiguous, not overlapping ``block``; filled and
            returned. Made anew if not given; on the audio path, give it.

        Returns
        -------
        out
            Sample ``t`` of the whole output belongs to sample ``t - latency_samples`` of the input.

        Raises
        ------
        ValueError
            If an array does not fit; nothing has been taken in then.
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
                last = first + self.piece
                part, stems = block[first:last], out[first:last]
                while advance(address, part, stems) == MODEL:
                    self.call()
        except BaseException:
            self._abandon()
            raise
        return out

    def call(self) -> None:
        """Call the model, where the kernel does not."""
        if self._program is None and not self.state.program.cursors[SETTLED]:
            self._forget()
        self._step()

    def flush(self, out: Float32 | None = None) -> Float32:
        """Return what is still inside, and reset: the next sample starts a new stream.

        After it, all outputs joined and without their first ``latency_samples`` samples align with
        the input and are as long. Allocates; not for the audio path.

        Parameters
        ----------
        out
            (latency_samples, sources, channels) float32, C-contiguous; made anew if not given.
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
        """State := zeros, the model's too, as if newly made; only the counters go on.

        Parameters
        ----------
        stream
            Of this stream only: the others go on as if nothing had been. Not where it resamples.
        """
        self._step.reset(stream)
        frames.clear(self.state.buffers, stream)
        if stream is None:
            self._resampling.reset()

    def _forget(self) -> None:
        """Reset a step that keeps its state to itself, for the streams whose frames were broken."""
        program = self.state.program
        for stream in np.flatnonzero(program.known == 0):
            self._step.reset(int(stream))
        program.known[:], program.cursors[SETTLED] = 1, 1

    def _abandon(self) -> None:
        """Begin with the next block anew: the step has failed within this one."""
        cursors = self.state.buffers.cursors
        if cursors[frames.AWAITED]:
            cursors[[frames.POSITION, frames.AWAITED]] = 0
        cursors[frames.TAKEN] = 0
        self.state.rates.cursors[HELD] = -1


def stream_latency(
    engine: Engine, rate_hz: int, device: Mapping[str, int] | None = None
) -> StreamLatency:
    """Latency of a stream by its terms: the engine's, resampling, and those of a device.

    Parameters
    ----------
    engine
        Works on sound of ``rate_hz``.
    rate_hz
        Of the stream, in Hz.
    device
        Terms of the device it runs on, in samples of that rate; none for an engine alone.
    """
    ratio = rate_hz / engine.spec.sample_rate
    inside = {name: n * ratio for name, n in asdict(engine.latency).items()}
    terms = {**inside, "resampling": engine.resampling, **(device or {})}
    return StreamLatency(rate_hz, terms)
