"""Frames of a stream: windows, transforms and overlap-add around the calls of a model.

The kernels are plain functions over arrays: no allocation, no lock, no policy. Their signatures are
explicit, so they compile at import (or load from the cache) and refuse any other dtype. They keep
the GIL: each takes microseconds, and giving it up invites a wait of half a millisecond to get it
back when another Python thread is busy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp import windows
from rtsep.dsp.fft import PLAN, forward, inner, inverse, plan
from rtsep.dsp.kernel import FAST, array, kernel, named
from rtsep.errors import SpecError
from rtsep.spec import Float32, Int64, Spec, Step, check_array

LIMIT = np.float32(1e30)
"""Largest magnitude taken for sound: beyond it, sums of finite samples may overflow."""

_ZERO = np.float32(0.0)
_int = types.int64
_counts = types.int64[::1]


@inner
def _shift(row, by, count):  # type: ignore[no-untyped-def]
    """Move ``count`` samples ``by`` to the front, in pieces that don't overlap: these vectorise."""
    for start in range(0, count, by):
        size = min(by, count - start)
        target, source = row[start : start + size], row[start + by : start + by + size]
        for i in range(size):
            target[i] = source[i]


@inner
def _magnitude(frame):  # type: ignore[no-untyped-def]
    """Sum of the magnitudes: no non-finite value escapes it."""
    flat, total = frame.reshape(frame.size), _ZERO
    for i in range(flat.size):
        total += abs(flat[i])
    return total


@kernel(_int(array(2, readonly=True), *[_int] * 4, array(2), array(1), *PLAN, array(4)), **FAST)
def analyse(
    block: Float32,
    start: int,
    count: int,
    position: int,
    hop: int,
    history: Float32,
    window: Float32,
    factors: Int64,
    twiddles: Float32,
    work: Float32,
    mixture: Float32,
) -> int:
    """Take ``count`` samples of ``block`` in; once they complete a chunk, analyse its frames.

    Parameters
    ----------
    block
        (n, channels); samples ``start`` to ``start + count`` of it are read.
    position
        Samples of the current chunk taken in before; with ``count`` at most ``frames * hop``.
    history
        (channels, window_length - hop + frames * hop), the newest samples of each channel.
    window
        (window_length,) analysis window.
    factors, twiddles, work
        Plan of the transform; an empty ``work`` means none: frames stay windowed samples.
    mixture
        (streams, frames, channels per stream, size of a frame), written when the chunk is complete.

    Returns
    -------
    int
        Samples replaced by 0 because they were not finite, or beyond `LIMIT`.
    """
    old, replaced = window.size - hop, 0
    fresh = block[start : start + count]
    for channel in range(block.shape[1]):
        target = history[channel, old + position : old + position + count]
        for i in range(count):
            sound = abs(fresh[i, channel]) <= LIMIT
            target[i] = fresh[i, channel] if sound else _ZERO
            replaced += not sound
    streams, frames, joint = mixture.shape[:3]
    if position + count < frames * hop:
        return replaced
    for stream in range(streams):
        for frame in range(frames):
            for channel in range(joint):
                samples = history[stream * joint + channel, frame * hop : frame * hop + window.size]
                target = mixture[stream, frame, channel]
                if work.size:
                    forward(samples, window, factors, twiddles, work, target)
                else:
                    for i in range(window.size):
                        target[i] = samples[i] * window[i]
    for channel in range(history.shape[0]):
        _shift(history[channel], frames * hop, old)
    return replaced


@kernel(_int(array(5), *[_int] * 4, array(1), *PLAN, array(3), array(3), array(3), _counts), **FAST)
def overlap_add(
    sources: Float32,
    start: int,
    count: int,
    position: int,
    hop: int,
    window: Float32,
    factors: Int64,
    twiddles: Float32,
    work: Float32,
    overlap: Float32,
    ready: Float32,
    out: Float32,
    broken: Int64,
) -> int:
    """Hand ``count`` samples out; if they complete a chunk, overlap-add its frames before.

    Parameters
    ----------
    sources
        (streams, frames, sources, channels per stream, size of a frame), read when complete.
    start, count, position, hop, factors, twiddles, work
        As in `analyse`; samples ``start`` to ``start + count`` of ``out`` are written.
    window
        (synthesis_length,) synthesis window, for the last samples of a frame.
    overlap
        (sources, channels, synthesis_length), sums of the frames so far, from the next sample on.
    ready
        (reblocking + frames * hop, sources, channels), finished samples around this chunk.
    out
        (n, sources, channels).
    broken
        (streams,), raised by the frames of each that were left out.

    Returns
    -------
    int
        Frames left out (silence): a value was not finite, or their magnitudes sum beyond `LIMIT`.
    """
    streams, frames, names, joint = sources.shape[:4]
    complete, left_out = position + count == frames * hop, 0
    reblocking = ready.shape[0] - frames * hop
    if complete:
        for frame in range(frames):
            for stream in range(streams):
                sound = _magnitude(sources[stream, frame]) <= LIMIT
                broken[stream] += not sound
                left_out += not sound
                for name in range(names):
                    for channel in range(joint):
                        total = overlap[name, stream * joint + channel]
                        if sound:
                            samples = sources[stream, frame, name, channel]
                            if work.size:
                                inverse(samples, factors, twiddles, work)
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
    return left_out


POSITION = 0
"""Of ``cursors``: samples of the current chunk already moved."""
NONFINITE_IN, NONFINITE_OUT = 1, 2
"""Of ``cursors``: samples replaced by 0, and frames left out."""
HOP = 3
"""Of ``cursors``: samples from frame to frame."""


class Buffers(NamedTuple):
    """What the kernels work on, as `analyse` and `overlap_add` say of each."""

    mixture: Float32
    sources: Float32
    history: Float32
    overlap: Float32
    ready: Float32
    analysis: Float32
    synthesis: Float32
    factors: Int64
    twiddles: Float32
    work: Float32
    broken: Int64
    cursors: Int64


BUFFERS = named(
    Buffers,
    *(array(4), array(5), array(2), array(3), array(3), array(1), array(1)),
    *(*PLAN, array(1, types.int64), array(1, types.int64)),
)


class Frames:
    """Samples in, frames to the model; frames from the model, samples out.

    Frame ``m`` covers the ``window_length`` samples before sample ``(m + 1) * hop_length``, zeros
    before the start; only its last ``synthesis_length`` samples are overlap-added. Both front ends
    are here: the kernels leave the transform out where the plan is empty. A chunk is
    ``spec.step_length`` samples; ``position`` counts the samples of the current one already moved,
    and no call may cross its end.

    Parameters
    ----------
    spec
        The stream.
    step
        The model; its buffers are bound here, so it must keep them for life.
    channels
        Audio channels.
    reblocking
        Samples of silence ahead of the first frame, see `rtsep.latency.Latency`.

    Attributes
    ----------
    streams
        How many ``step`` carries side by side: each has ``spec.channels`` of the channels.
    buffers
        What the kernels work on. Of it, ``broken`` is (streams,) int64, raised by the frames of
        each that were left out, free to be cleared; ``cursors`` is the user's to move.
    """

    def __init__(self, spec: Spec, step: Step, channels: int, reblocking: int) -> None:
        self.streams, sources = len(step.mixture), len(spec.sources)
        if channels != self.streams * spec.channels:
            raise SpecError(
                f"the step carries {self.streams} streams of {spec.channels} channels jointly, "
                f"not {channels} channels"
            )
        outer = (self.streams, spec.chunk)
        mixture = (*outer, spec.channels, *spec.frame_shape)
        separated = (*outer, sources, spec.channels, *spec.frame_shape)
        check_array("step.mixture", step.mixture, mixture)
        check_array("step.sources", step.sources, separated)
        length, self._hop = spec.window_length, spec.hop_length
        analysis, synthesis = windows.pair(spec.window, length, self._hop, spec.synthesis_length)
        transform = spec.frontend == "stft"
        factors, twiddles, work = plan(length) if transform else _NO_PLAN
        self.buffers = Buffers(
            mixture=step.mixture.reshape(*outer, spec.channels, -1),
            sources=step.sources.reshape(*outer, sources, spec.channels, -1),
            history=np.zeros((channels, length - self._hop + spec.step_length), np.float32),
            overlap=np.zeros((sources, channels, spec.synthesis_length), np.float32),
            ready=np.zeros((reblocking + spec.step_length, sources, channels), np.float32),
            analysis=analysis,
            synthesis=synthesis,
            factors=factors,
            twiddles=twiddles,
            work=work,
            broken=np.zeros(self.streams, np.int64),
            cursors=np.array([0, 0, 0, self._hop], np.int64),
        )

    def analyse(self, block: Float32, start: int, count: int, position: int) -> int:
        """Take samples of ``block`` in; a complete chunk fills ``step.mixture``.

        Returns
        -------
        int
            Non-finite samples replaced by 0.
        """
        own = self.buffers
        replaced: int = analyse(
            block, start, count, position, self._hop, own.history, own.analysis,
            own.factors, own.twiddles, own.work, own.mixture,
        )  # fmt: skip
        return replaced

    def overlap_add(self, out: Float32, start: int, count: int, position: int) -> int:
        """Hand samples out; a complete chunk adds ``step.sources`` first.

        Returns
        -------
        int
            Frames left out because the model's values were not finite.
        """
        own = self.buffers
        left_out: int = overlap_add(
            own.sources, start, count, position, self._hop, own.synthesis,
            own.factors, own.twiddles, own.work, own.overlap, own.ready, out, own.broken,
        )  # fmt: skip
        return left_out

    def reset(self, stream: int | None = None) -> None:
        """Forget every sample of one stream, or of all."""
        joint = len(self.buffers.history) // self.streams
        own = slice(None) if stream is None else slice(stream * joint, (stream + 1) * joint)
        self.buffers.history[own] = 0.0
        self.buffers.overlap[:, own] = 0.0
        self.buffers.ready[:, :, own] = 0.0


_NO_PLAN = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((3, 2, 0), np.float32)
