"""The worker's loop, compiled: samples from the device to samples for the device.

Whoever holds the interpreter's lock may be held up itself: by other programs, or by a hypervisor
that has no processor for it just now. A worker that needs the lock waits for that, whatever its
priority. This one takes it only where ONNX Runtime runs the model, and for what is out of the
ordinary; it then stands within a block, and goes on from there when it is entered again.
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
"""There was no block; there was one, or more. Also where a cross-fade is complete."""
MODEL = 2
"""A model is to be called, see `STAGE`."""
LATE = 3
"""The backlog is for Python to drop: it is too long, or has been overwritten meanwhile."""
UNRECORDED = 4
"""The block is for Python to record: there is no room, or something was lost before it."""

PROCESSED = 0
"""Of ``progress``: samples separated on the present device."""
IN_TIME = 1
"""Of ``progress``: time, in samples, of the last block that was not too late to be played."""
ASKED = 2
"""Of ``progress``: whether Python wants to do something."""
STAGE = 3
"""Of ``progress``: how far the present block is, see `BETWEEN` and what follows."""
LEFT = 4
"""Of ``progress``: blocks left of the backlog that was found."""
CALLED = 5
"""Of ``progress``: calls of the model before the present block."""
BETWEEN, PRESENT, ARRIVING, PLAYED, RECORDED = range(5)
"""There is none; the model at work separates it; the one that is to take its place does; it is
played; it is recorded."""

REST = 0.95
"""Share of a block's time in which the next one is not looked for; with less, it is looked for
twice, and every wake of this thread is one more moment for the sound server's to be held up."""
BUSY, BEGAN, ABSENT, ARRIVED = 0, 1, 2, 3
"""Of ``seconds``: time that all blocks took; when the present one began; when there was none; and
when the newest one arrived, at the latest."""


class LoopState(NamedTuple):
    """Everything the loop works on, and where it stands."""

    input: Cells
    output: Cells
    mixture: Float32
    """(block, channels)"""
    chain: ChainState
    arriving: ChainState
    """On its way to take the other's place, if there is one."""
    fade: Fade
    tapped: Tapped
    tracks: Tracks
    hops: Histogram
    progress: Int64
    """(6,), see `PROCESSED` and what follows."""
    seconds: Float64
    """(4,), see `BUSY` and what follows."""
    most: Int64
    """(2,): samples of a backlog, and how late it may be before it is dropped."""
    instant: Int64
    """(2,), see `rtsep.runtime.timing.clock`."""


_samples = types.Array(types.float32, 2, "C")
_counts = types.int64[::1]
LOOP_STATE = named(
    LoopState,
    *(CELLS, CELLS, _samples, CHAIN_STATE, CHAIN_STATE, FADE, TAPPED, TRACKS, HISTOGRAM),
    *(_counts, types.float64[::1], _counts, _counts),
)


# Parts of one kernel: compiled on their own, each would be optimised with all it calls once more.
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
    """Take the next block in; tell whether it was still there."""
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
    """Mix what has been separated, and show it."""
    monitor.keep(chain.scope.data, chain.scope.cursors, mixture, chain.stems)
    mixer.mix(mixture, chain.stems, chain.controls, chain.out)


@_part
def _play(state: LoopState) -> None:
    """Hand over what is heard, and count the time it took."""
    timed_ring.append(state.output.data, state.output.cursors, state.chain.out)
    seconds, progress = state.seconds, state.progress
    elapsed = timing.clock(state.instant) - seconds[BEGAN]
    calls = engine.take(state.chain.engine).buffers.cursors[CALLS] - progress[CALLED]
    if calls and state.arriving.stems.size == 0:
        timing.count(state.hops, elapsed / calls)
    seconds[BUSY] += elapsed


_put = putter(LOOP_STATE)
_get = taker(LOOP_STATE)


@kernel(types.void(LOOP_STATE, types.int64))
def hold(state: LoopState, address: int) -> None:
    """Put a state to an address."""
    _put(state, address)


@kernel(types.int64(types.int64, types.int64, types.int64), nogil=True)
def run_loop(address: int, pause_us: int, block_us: int) -> int:
    """Separate the blocks that are there, and those that come, until Python asks or is needed.

    Parameters
    ----------
    address
        Of a `LoopState`, see `rtsep.dsp.held.Held`.
    pause_us
        How long to sleep where there is no block, in microseconds; if 0, return then.
    block_us
        Time of a block in microseconds. After `REST` of it from when a block has arrived, the next
        one is looked for.

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
                # Where this thread was woken late, the block has arrived before it was found: a
                # block's time after the last one, but not before it was found to be absent.
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
            _play(state)
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
