"""The worker's loop, compiled: samples from the device to samples for the device.

Whoever holds the interpreter's lock may be held up itself: by other programs, or by a hypervisor
that has no processor for it just now. A worker that needs the lock waits for that, whatever its
priority. This one takes it only for what is out of the ordinary: see `OTHER`.

Everything here is also done in Python, by the same kernels: in `rtsep.runtime.engine.Engine`,
`rtsep.runtime.resampled.Resampled`, `rtsep.realtime.chain.ProcessingChain` and
`rtsep.realtime.worker.StreamWorker`, for models that ONNX Runtime runs, and for what is out of the
ordinary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtsep.dsp import mixer, overlap_add, polyphase, timed_ring
from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.mixer import CONTROLS, Controls
from rtsep.dsp.overlap_add import BUFFERS, HOP, NONFINITE_IN, NONFINITE_OUT, POSITION, Buffers
from rtsep.dsp.ring import CELLS, READ, WRITTEN, Cells, acquire
from rtsep.realtime import monitor, recorder, stem_reader
from rtsep.realtime.recorder import TRACKS, Tracks
from rtsep.realtime.stem_reader import TAPPED, Tapped
from rtsep.runtime import timing
from rtsep.runtime.resampled import RATES, Rates
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.interpreter import PROGRAM, SETTLED, Program
from rtsep.runtime.timing import HISTOGRAM, Histogram
from rtsep.spec import Float32, Int64

NOTHING, DONE = 0, 1
"""There was no block; there was one, or more."""
OTHER = 2
"""The next block is for Python: too much of a backlog, or a recording that does not take it."""

PROCESSED = 0
"""Of ``progress``: samples separated on the present device."""
IN_TIME = 1
"""Of ``progress``: time, in samples, of the last block that was not too late to be played."""
ASKED = 2
"""Of ``progress``: whether Python wants to do something."""


class LoopState(NamedTuple):
    """Everything the loop works on."""

    input: Cells
    output: Cells
    mixture: Float32
    """(block, channels)"""
    stems: Float32
    """(block, sources, channels)"""
    out: Float32
    """(block, out channels)"""
    rates: Rates
    buffers: Buffers
    program: Program
    controls: Controls
    scope: Cells
    tapped: Tapped
    tracks: Tracks
    steps: Histogram
    hops: Histogram
    progress: Int64
    busy_s: NDArray[np.float64]
    """(1,)"""
    most: Int64
    """(2,): samples of a backlog, and how late it may be before it is dropped."""
    instant: Int64
    """(2,), see `rtsep.runtime.timing.clock`."""


_samples = types.Array(types.float32, 2, "C")
_stems = types.Array(types.float32, 3, "C")
_counts = types.int64[::1]
LOOP_STATE = named(
    LoopState,
    *(CELLS, CELLS, _samples, _stems, _samples, RATES, BUFFERS, PROGRAM, CONTROLS, CELLS),
    *(TAPPED, TRACKS, HISTOGRAM, HISTOGRAM, _counts, types.float64[::1], _counts, _counts),
)


# Parts of one kernel: compiled on their own, each would be optimised with all it calls once more.
_part = kernel(inline="always")


@_part
def _heal(buffers: Buffers, program: Program, broken: int) -> None:
    """Count ``broken`` frames, and reset the model for the streams that had them."""
    buffers.cursors[NONFINITE_OUT] += broken
    for stream in range(buffers.broken.size):
        if buffers.broken[stream]:
            buffers.broken[stream] = 0
            program.known[stream] = 0
            program.cursors[SETTLED] = 0


@_part
def _process(state: LoopState, block: Float32, out: Float32) -> int:
    """Separate samples of the model's rate; return how often the model was called."""
    own, cursors, calls, done = state.buffers, state.buffers.cursors, 0, 0
    hop = cursors[HOP]
    chunk = own.mixture.shape[1] * hop
    while done < block.shape[0]:
        position = cursors[POSITION]
        count = min(chunk - position, block.shape[0] - done)
        cursors[NONFINITE_IN] += overlap_add.analyse(
            block, done, count, position, hop, own.history, own.analysis,
            own.factors, own.twiddles, own.work, own.mixture,
        )  # fmt: skip
        cursors[POSITION] = (position + count) % chunk
        if position + count == chunk:
            start = timing.clock(state.instant)
            interpreter.step(state.program)
            timing.count(state.steps, timing.clock(state.instant) - start)
            calls += 1
        broken = overlap_add.overlap_add(
            own.sources, done, count, position, hop, own.synthesis,
            own.factors, own.twiddles, own.work, own.overlap, own.ready, out, own.broken,
        )  # fmt: skip
        if broken:
            _heal(own, state.program, broken)
        done += count
    return calls


@_part
def _separate(state: LoopState) -> int:
    """Make ``stems`` of ``mixture``; return how often the model was called."""
    rates, block, made = state.rates, state.mixture, state.stems
    resampled = rates.mixture.shape[0] > 0
    if resampled:
        rates.replaced[0] += polyphase.push(rates.inward, state.mixture)
        count = polyphase.ready(rates.inward)
        block, made = rates.mixture[:count], rates.stems[:count]
        polyphase.pull(rates.inward, block)
    calls = _process(state, block, made)
    if resampled:
        width = made.shape[1] * made.shape[2]
        polyphase.push(rates.outward, made.reshape(made.shape[0], width))
        polyphase.pull(rates.outward, state.stems.reshape(state.stems.shape[0], width))
    return calls


@kernel(types.int64(LOOP_STATE, types.int64, types.int64), nogil=True)
def run_loop(state: LoopState, pause_us: int, rest_us: int) -> int:
    """Separate the blocks that are there, and those that come, until Python asks or is needed.

    Parameters
    ----------
    state
        Everything it works on.
    pause_us
        How long to sleep where there is no block, in microseconds; if 0, return then.
    rest_us
        How long no other block is expected after one has been found, in microseconds.

    Returns
    -------
    int
        `NOTHING`, `DONE` or `OTHER`.
    """
    incoming, outgoing, progress = state.input.cursors, state.output.cursors, state.progress
    n, status, expected = state.mixture.shape[0], NOTHING, 0.0
    while not progress[ASKED]:
        start = incoming[READ, 0]
        backlog = (incoming[WRITTEN, 0] - start) // n * n
        if backlog <= 0:
            if pause_us == 0:
                break
            left_us = int(1e6 * (expected - timing.clock(state.instant)))
            timed_ring.pause(max(left_us, pause_us))
            continue
        expected = timing.clock(state.instant) + 1e-6 * rest_us
        if outgoing[WRITTEN, 0] >= outgoing[READ, 0]:
            progress[IN_TIME] = start
        late = incoming[WRITTEN, 0] - progress[IN_TIME]
        if (
            backlog > state.most[0]
            or late > state.most[1]
            or not recorder.room(state.tracks, backlog)
        ):
            return OTHER
        for _ in range(backlog // n):
            if progress[ASKED]:
                break
            began = timing.clock(state.instant)
            timed_ring.copy(state.input.data, start, state.mixture)
            acquire()
            if incoming[WRITTEN, 0] - start > state.input.data.shape[0]:
                return OTHER  # it was overwritten meanwhile
            start += n
            incoming[READ, 0] = start
            calls = _separate(state)
            monitor.keep(state.scope.data, state.scope.cursors, state.mixture, state.stems)
            mixer.mix(state.mixture, state.stems, state.controls, state.out)
            timed_ring.append(state.output.data, state.output.cursors, state.out)
            elapsed = timing.clock(state.instant) - began
            if calls:
                timing.count(state.hops, elapsed / calls)
            state.busy_s[0] += elapsed
            stems = state.stems.reshape(n, state.stems.size // n)
            recorder.put(state.tracks, state.mixture, stems)
            stem_reader.put(state.tapped, stems)
            progress[PROCESSED] += n
        status = DONE
    return status
