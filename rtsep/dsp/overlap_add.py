"""Windows, transforms and overlap-add of a stream, before and after each call of a model.

The kernels are functions over arrays, without allocation or locks. Their signatures are explicit,
so they are compiled at import (or loaded from the cache) and reject other types. They do not
release the GIL: they take microseconds, and taking the GIL again may take half a millisecond.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp import windows
from rtsep.dsp.fft import PLAN, forward, inverse, plan
from rtsep.dsp.kernel import FAST, array, inner, kernel, named
from rtsep.errors import SpecError
from rtsep.spec import Float32, Int64, Spec, Step, check_array

LIMIT = np.float32(1e30)
"""Larger magnitudes are replaced by 0, because sums of them may overflow."""

_ZERO = np.float32(0.0)
_int = types.int64


POSITION = 0
"""Index in ``cursors``: samples of the current chunk so far."""
NONFINITE_IN, NONFINITE_OUT = 1, 2
"""Indices in ``cursors``: samples replaced by 0, and frames replaced by silence."""
HOP = 3
"""Index in ``cursors``: hop in samples."""
TAKEN, AWAITED, CALLS = 4, 5, 6
"""Indices in ``cursors`` for `rtsep.runtime.engine.advance`: samples of the block so far, whether
the model is being called, and the number of its calls."""


class Buffers(NamedTuple):
    """Arrays that the kernels work on."""

    mixture: Float32
    """(streams, frames, channels per stream, size of a frame): the model's input."""
    sources: Float32
    """(streams, frames, sources, channels per stream, size of a frame): the model's output."""
    history: Float32
    """(channels, window_length - hop + frames * hop): newest samples of each channel."""
    overlap: Float32
    """(sources, channels, synthesis_length): sums of the frames so far, from the next sample."""
    ready: Float32
    """(reblocking + frames * hop, sources, channels): complete samples of this chunk."""
    analysis: Float32
    """(window_length,) analysis window."""
    synthesis: Float32
    """(synthesis_length,) synthesis window, for the last samples of a frame."""
    factors: Int64
    twiddles: Float32
    work: Float32
    """Plan of the transform; without one (empty ``work``), frames are windowed samples."""
    broken: Int64
    """(streams,): number of frames of each stream replaced by silence."""
    cursors: Int64
    """(7,), see `POSITION` and following."""


BUFFERS = named(
    Buffers,
    *(array(4), array(5), array(2), array(3), array(3), array(1), array(1)),
    *(*PLAN, array(1, types.int64), array(1, types.int64)),
)


@inner
def _shift(row, by, count):  # type: ignore[no-untyped-def]
    """Move ``count`` samples to the front by ``by``, in vectorised non-overlapping pieces."""
    for start in range(0, count, by):
        size = min(by, count - start)
        target, source = row[start : start + size], row[start + by : start + by + size]
        for i in range(size):
            target[i] = source[i]


@inner
def _magnitude(frame):  # type: ignore[no-untyped-def]
    """Return the sum of magnitudes, which is not finite if any value is not."""
    flat, total = frame.reshape(frame.size), _ZERO
    for i in range(flat.size):
        total += abs(flat[i])
    return total


@kernel(types.void(BUFFERS, array(2, readonly=True), _int, _int), **FAST)
def analyse(buffers: Buffers, block: Float32, start: int, count: int) -> None:
    """Append ``count`` samples of ``block``; if they complete a chunk, analyse its frames.

    Values that are not finite, or beyond `LIMIT`, are replaced by 0 and counted.

    Parameters
    ----------
    block
        (n, channels); samples ``start`` to ``start + count`` are read, at most to the chunk's end.
    """
    history, window, work = buffers.history, buffers.analysis, buffers.work
    cursors, replaced = buffers.cursors, 0
    position, hop = cursors[POSITION], cursors[HOP]
    old = window.size - hop
    fresh = block[start : start + count]
    for channel in range(block.shape[1]):
        target = history[channel, old + position : old + position + count]
        for i in range(count):
            sound = abs(fresh[i, channel]) <= LIMIT
            target[i] = fresh[i, channel] if sound else _ZERO
            replaced += not sound
    cursors[NONFINITE_IN] += replaced
    streams, frames, joint = buffers.mixture.shape[:3]
    if position + count < frames * hop:
        return
    for stream in range(streams):
        for frame in range(frames):
            for channel in range(joint):
                samples = history[stream * joint + channel, frame * hop : frame * hop + window.size]
                spectrum = buffers.mixture[stream, frame, channel]
                if work.size:
                    forward(samples, window, buffers.factors, buffers.twiddles, work, spectrum)
                else:
                    for i in range(window.size):
                        spectrum[i] = samples[i] * window[i]
    for channel in range(history.shape[0]):
        _shift(history[channel], frames * hop, old)


@kernel(_int(BUFFERS, array(3), _int, _int), **FAST)
def overlap_add(buffers: Buffers, out: Float32, start: int, count: int) -> int:
    """Output ``count`` samples; if they complete a chunk, first overlap-add its frames.

    Call it after `analyse` of as many samples, and after the model if they complete a chunk.

    Parameters
    ----------
    out
        (n, sources, channels); samples ``start`` to ``start + count`` are written.

    Returns
    -------
    int
        Frames replaced by silence, because a value was not finite or the sum of magnitudes exceeds
        `LIMIT`. They are counted, also per stream in ``broken``.
    """
    sources, overlap, ready = buffers.sources, buffers.overlap, buffers.ready
    window, work, cursors = buffers.synthesis, buffers.work, buffers.cursors
    position, hop, left_out = cursors[POSITION], cursors[HOP], 0
    streams, frames, names, joint = sources.shape[:4]
    complete = position + count == frames * hop
    reblocking = ready.shape[0] - frames * hop
    if complete:
        for frame in range(frames):
            for stream in range(streams):
                sound = _magnitude(sources[stream, frame]) <= LIMIT
                buffers.broken[stream] += not sound
                left_out += not sound
                for name in range(names):
                    for channel in range(joint):
                        total = overlap[name, stream * joint + channel]
                        if sound:
                            samples = sources[stream, frame, name, channel]
                            if work.size:
                                inverse(samples, buffers.factors, buffers.twiddles, work)
                                samples = work[2].reshape(2 * work.shape[2])
                            samples = samples[samples.size - window.size :]
                            for i in range(window.size):
                                total[i] += samples[i] * window[i]
                        for i in range(hop):
                            at = reblocking + frame * hop + i
                            ready[at, name, stream * joint + channel] = total[i]
                        _shift(total, hop, window.size - hop)
                        total[window.size - hop :] = _ZERO
    width = names * streams * joint
    queue = ready.reshape(ready.size)
    source, target = queue[position * width :], out.reshape(out.size)[start * width :]
    for i in range(count * width):
        target[i] = source[i]
    if complete:
        _shift(queue, frames * hop * width, reblocking * width)
    cursors[POSITION] = 0 if complete else position + count
    cursors[NONFINITE_OUT] += left_out
    return left_out


_NO_PLAN = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((3, 2, 0), np.float32)


def make_buffers(spec: Spec, step: Step, channels: int, reblocking: int) -> Buffers:
    """Allocate the arrays of the kernels, filled with silence.

    Frame ``m`` has the ``window_length`` samples before sample ``(m + 1) * hop_length``, zeros
    before the start; only its last ``synthesis_length`` samples are overlap-added. For the front
    end of samples, the plan of the transform is empty.

    Parameters
    ----------
    spec
        Spec of the stream.
    step
        The model. Its buffers are used here and must not be replaced. With several streams, each
        has ``spec.channels`` of the channels.
    channels
        Audio channels.
    reblocking
        Samples of silence before the first frame, see `rtsep.latency.Latency`.

    Raises
    ------
    SpecError
        The step's buffers are not those of ``spec`` and ``channels``.
    """
    streams, sources = len(step.mixture), len(spec.sources)
    if channels != streams * spec.channels:
        raise SpecError(
            f"the step has {streams} streams of {spec.channels} channels jointly, "
            f"not {channels} channels"
        )
    outer = (streams, spec.chunk)
    mixture = (*outer, spec.channels, *spec.frame_shape)
    separated = (*outer, sources, spec.channels, *spec.frame_shape)
    check_array("step.mixture", step.mixture, mixture)
    check_array("step.sources", step.sources, separated)
    length, hop = spec.window_length, spec.hop_length
    analysis, synthesis = windows.pair(spec.window, length, hop, spec.synthesis_length)
    factors, twiddles, work = plan(length) if spec.frontend == "stft" else _NO_PLAN
    return Buffers(
        mixture=step.mixture.reshape(*outer, spec.channels, -1),
        sources=step.sources.reshape(*outer, sources, spec.channels, -1),
        history=np.zeros((channels, length - hop + spec.step_length), np.float32),
        overlap=np.zeros((sources, channels, spec.synthesis_length), np.float32),
        ready=np.zeros((reblocking + spec.step_length, sources, channels), np.float32),
        analysis=analysis,
        synthesis=synthesis,
        factors=factors,
        twiddles=twiddles,
        work=work,
        broken=np.zeros(streams, np.int64),
        cursors=np.array([0, 0, 0, hop, 0, 0, 0], np.int64),
    )


def clear(buffers: Buffers, stream: int | None = None) -> None:
    """Reset one stream, or all; then the next sample starts a chunk."""
    joint = len(buffers.history) // len(buffers.mixture)
    own = slice(None) if stream is None else slice(stream * joint, (stream + 1) * joint)
    buffers.history[own] = 0.0
    buffers.overlap[:, own] = 0.0
    buffers.ready[:, :, own] = 0.0
    if stream is None:
        buffers.cursors[[POSITION, TAKEN, AWAITED]] = 0
