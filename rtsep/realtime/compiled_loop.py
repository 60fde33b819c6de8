"""The compiled loop of the worker, from the device's samples to samples for the device.

It runs without the interpreter lock, because a thread that holds the lock may be delayed by other
programs or by a hypervisor, and would delay the worker whatever its priority. The loop returns to
Python where ONNX Runtime must run the model, and for rare events; called again, it continues within
the same block.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types

from rtsep.dsp import mixer, timed_ring
from rtsep.dsp.held import putter, taker
from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.overlap_add import CALLS
from rtsep.dsp.ring import CELLS, READ, WRITTEN, Cells, acquire
from rtsep.realtime import monitor, recorder, stem_reader
from rtsep.realtime.chain import CHAIN_STATE, ChainState
from rtsep.realtime.crossfade import FADE, Fade, cross
from rtsep.realtime.recorder import TRACKS, Tracks
from rtsep.realtime.stem_reader import TAPPED, Tapped
from rtsep.runtime import engine, timing
from rtsep.runtime.timing import HISTOGRAM, Histogram
from rtsep.spec import Float32, Float64, Int64

NOTHING, DONE = 0, 1
"""No block was available; blocks were separated, or a cross-fade is complete."""
MODEL = 2
"""Python must call a model, see `STAGE`."""
LATE = 3
"""Python must drop the backlog, which is too long or was overwritten."""
UNRECORDED = 4
"""Python must record the block: the recorder has no room, or samples before it were lost."""

PROCESSED = 0
"""Index in ``progress``: samples separated on the current device."""
IN_TIME = 1
"""Index in ``progress``: time in samples of the last block that was in time."""
ASKED = 2
"""Index in ``progress``: whether Python requests control."""
STAGE = 3
"""Index in ``progress``: stage of the current block, see `BETWEEN` and following."""
LEFT = 4
"""Index in ``progress``: blocks of the backlog that are still to be separated."""
CALLED = 5
"""Index in ``progress``: calls of the model before the current block."""
BETWEEN, PRESENT, ARRIVING, PLAYED, RECORDED = range(5)
"""Stages: between blocks; the current model separates; the model that is being faded in separates;
the block is played; the block is recorded."""

REST = 0.95
"""Share of a block's time until the next block is looked for. With less, it is looked for twice,
and every wake of this thread may delay the sound server's thread."""
BUSY, BEGAN, ABSENT, ARRIVED = 0, 1, 2, 3
"""Indices in ``seconds``: duration of all blocks; start of the current block; last time when no
block was available; and latest possible arrival of the newest block."""


class LoopState(NamedTuple):
    """Buffers and progress of the loop."""

    input: Cells
    output: Cells
    mixture: Float32
    """(block, channels)"""
    chain: ChainState
    arriving: ChainState
    """The chain that is being faded in; without stems if there is none."""
    fade: Fade
    tapped: Tapped
    tracks: Tracks
    hops: Histogram
    answers: Histogram
    """Times from the arrival of blocks until their output is written."""
    progress: Int64
    """(6,), see `PROCESSED` and following."""
    seconds: Float64
    """(4,), see `BUSY` and following."""
    most: Int64
    """(2,): largest number of samples of a backlog, and largest lateness in samples."""
    instant: Int64
    """(2,), see `rtsep.runtime.timing.clock`."""


_samples = types.Array(types.float32, 2, "C")
_counts = types.int64[::1]
LOOP_STATE = named(
    LoopState,
    *(CELLS, CELLS, _samples, CHAIN_STATE, CHAIN_STATE, FADE, TAPPED, TRACKS, HISTOGRAM, HISTOGRAM),
    *(_counts, types.float64[::1], _counts, _counts),
)


# Parts of one kernel; compiled separately, each would be optimised again with all that it calls.
_part = kernel(inline="always")


@_part
def _look(state: LoopState) -> int:
    """Look for blocks; `NOTHING`, `DONE` or `LATE`."""
    incoming, outgoing, progress = state.input.cursors, state.output.cursors, state.progress
    n, start = state.mixture.shape[0], incoming[READ, 0]
    progress[LEFT] = (incoming[WRITTEN, 0] - start) // n
    if progress[LEFT] <= 0:
        return NOTHING
    if outgoing[WRITTEN, 0] >= outgoing[READ, 0]:
        progress[IN_TIME] = start
    late = incoming[WRITTEN, 0] - progress[IN_TIME]
    return LATE if n * progress[LEFT] > state.most[0] or late > state.most[1] else DONE


@_part
def _take(state: LoopState) -> bool:
    """Copy the next block; return False if it was overwritten."""
    incoming, data = state.input.cursors, state.input.data
    start = incoming[READ, 0]
    timed_ring.copy(data, start, state.mixture)
    acquire()
    if incoming[WRITTEN, 0] - start > data.shape[0]:
        return False
    incoming[READ, 0] = start + state.mixture.shape[0]
    return True


@_part
def _hear(chain: ChainState, mixture: Float32) -> None:
    """Mix the stems, and copy mixture and stems to the monitor."""
    monitor.keep(chain.scope.data, chain.scope.cursors, mixture, chain.stems)
    mixer.mix(mixture, chain.stems, chain.controls, chain.out)


@_part
def _play(state: LoopState, block_us: int) -> None:
    """Append the output to its timeline, and count the times of the block."""
    timed_ring.append(state.output.data, state.output.cursors, state.chain.out)
    seconds, progress = state.seconds, state.progress
    now = timing.clock(state.instant)
    elapsed = now - seconds[BEGAN]
    later_s = 1e-6 * block_us * (progress[LEFT] - 1)  # between this block and the newest one
    timing.count(state.answers, now - seconds[ARRIVED] + later_s)
    calls = engine.take(state.chain.engine).buffers.cursors[CALLS] - progress[CALLED]
    if calls and state.arriving.stems.size == 0:
        timing.count(state.hops, elapsed / calls)
    seconds[BUSY] += elapsed


_put = putter(LOOP_STATE)
_get = taker(LOOP_STATE)


@kernel(types.void(LOOP_STATE, types.int64))
def hold(state: LoopState, address: int) -> None:
    """Store a state at an address."""
    _put(state, address)


@kernel(types.int64(types.int64, types.int64, types.int64), nogil=True)
def run_loop(address: int, pause_us: int, block_us: int) -> int:
    """Separate blocks as they arrive, until Python requests control or is needed.

    Parameters
    ----------
    address
        Address of a `LoopState`, see `rtsep.dsp.held.Held`.
    pause_us
        Sleep while no block is available, in microseconds; if 0, return instead.
    block_us
        Duration of a block in microseconds. The next block is looked for after `REST` of it.

    Returns
    -------
    int
        `NOTHING`, `DONE`, `MODEL`, `LATE` or `UNRECORDED`.
    """
    state = _get(address)
    progress, seconds, chain, arriving = state.progress, state.seconds, state.chain, state.arriving
    n, status = state.mixture.shape[0], NOTHING
    while True:
        if progress[STAGE] == BETWEEN:
            if progress[ASKED]:
                progress[LEFT] = 0
                return status
            if progress[LEFT] == 0:
                found = _look(state)
                if found == LATE:
                    return LATE
                if found == NOTHING:
                    if pause_us == 0:
                        return status
                    seconds[ABSENT] = timing.clock(state.instant)
                    left_us = 1e6 * (seconds[ARRIVED] - seconds[ABSENT]) + REST * block_us
                    timed_ring.pause(max(int(left_us), pause_us))
                    continue
                # If this thread was woken late, the block arrived before it was found: one block
                # after the last one, but not before it was last found to be absent.
                due = max(seconds[ARRIVED] + 1e-6 * block_us, seconds[ABSENT])
                seconds[ARRIVED] = min(timing.clock(state.instant), due)
            seconds[BEGAN] = timing.clock(state.instant)
            if not _take(state):
                return LATE
            progress[CALLED] = engine.take(chain.engine).buffers.cursors[CALLS]
            progress[STAGE] = PRESENT
        if progress[STAGE] == PRESENT:
            if engine.advance(chain.engine, state.mixture, chain.stems) == engine.MODEL:
                return MODEL
            _hear(chain, state.mixture)
            progress[STAGE] = ARRIVING
        if progress[STAGE] == ARRIVING:
            if arriving.stems.size:
                if engine.advance(arriving.engine, state.mixture, arriving.stems) == engine.MODEL:
                    return MODEL
                _hear(arriving, state.mixture)
                cross(arriving.out, state.fade, chain.out)
            _play(state, block_us)
            progress[STAGE] = PLAYED
        stems = chain.stems.reshape(n, chain.stems.size // n)
        if progress[STAGE] == PLAYED:
            if not recorder.room(state.tracks, n):
                return UNRECORDED
            recorder.put(state.tracks, state.mixture, stems)
        stem_reader.put(state.tapped, stems)
        progress[PROCESSED] += n
        progress[LEFT] -= 1
        progress[STAGE] = BETWEEN
        status = DONE
        if arriving.stems.size and state.fade.cursor[0] == state.fade.curve.size - 1:
            return DONE
