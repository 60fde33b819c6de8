"""Frames of a stream: windows, transforms and overlap-add around the calls of a model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp import overlap_add, windows
from rtsep.dsp.fft import PLAN, Int64, array, plan
from rtsep.dsp.types import named
from rtsep.spec import Float32, Spec, SpecError, Step, check_array

POSITION = 0
"""Of ``cursors``: samples of the current chunk already moved."""
NONFINITE_IN, NONFINITE_OUT = 1, 2
"""Of ``cursors``: samples replaced by 0, and frames left out."""
HOP = 3
"""Of ``cursors``: samples from frame to frame."""


class Buffers(NamedTuple):
    """What the kernels work on, as `rtsep.dsp.overlap_add` says of each."""

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

    def push(self, block: Float32, start: int, count: int, position: int) -> int:
        """Take samples of ``block`` in; a complete chunk fills ``step.mixture``.

        Returns
        -------
        int
            Non-finite samples replaced by 0.
        """
        own = self.buffers
        replaced: int = overlap_add.push(
            block, start, count, position, self._hop, own.history, own.analysis,
            own.factors, own.twiddles, own.work, own.mixture,
        )  # fmt: skip
        return replaced

    def pull(self, out: Float32, start: int, count: int, position: int) -> int:
        """Hand samples out; a complete chunk adds ``step.sources`` first.

        Returns
        -------
        int
            Frames left out because the model's values were not finite.
        """
        own = self.buffers
        left_out: int = overlap_add.pull(
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
