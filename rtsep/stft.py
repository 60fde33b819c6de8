"""Frames of a stream: windows, transforms and overlap-add around the calls of a model."""

from __future__ import annotations

import numpy as np

from rtsep import kernels, windows
from rtsep.fft import plan
from rtsep.spec import Float32, Spec, SpecError, Step, check_array


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
    broken
        (streams,) int64, raised by the frames of each that were left out; free to be cleared.
    """

    def __init__(self, spec: Spec, step: Step, channels: int, reblocking: int) -> None:
        self.streams, sources = len(step.mixture), len(spec.sources)
        if channels != self.streams * spec.channels:
            raise SpecError(
                f"the step carries {self.streams} streams of {spec.channels} channels jointly, "
                f"not {channels} channels"
            )
        self.broken = np.zeros(self.streams, np.int64)
        outer = (self.streams, spec.chunk)
        mixture = (*outer, spec.channels, *spec.frame_shape)
        separated = (*outer, sources, spec.channels, *spec.frame_shape)
        check_array("step.mixture", step.mixture, mixture)
        check_array("step.sources", step.sources, separated)
        self._mixture = step.mixture.reshape(*outer, spec.channels, -1)
        self._sources = step.sources.reshape(*outer, sources, spec.channels, -1)

        length, self._hop = spec.window_length, spec.hop_length
        self._analysis, self._synthesis = windows.pair(
            spec.window, length, self._hop, spec.synthesis_length
        )
        if spec.frontend == "stft":
            self._plan = plan(length)
        else:
            self._plan = np.zeros(0, np.int64), np.zeros(0, np.float32), _NO_WORK
        old = length - self._hop
        self._history = np.zeros((channels, old + spec.step_length), np.float32)
        self._overlap = np.zeros((sources, channels, spec.synthesis_length), np.float32)
        self._ready = np.zeros((reblocking + spec.step_length, sources, channels), np.float32)

    def push(self, block: Float32, start: int, count: int, position: int) -> int:
        """Take samples of ``block`` in; a complete chunk fills ``step.mixture``.

        Returns
        -------
        int
            Non-finite samples replaced by 0.
        """
        replaced: int = kernels.push(
            block,
            start,
            count,
            position,
            self._hop,
            self._history,
            self._analysis,
            *self._plan,
            self._mixture,
        )
        return replaced

    def pull(self, out: Float32, start: int, count: int, position: int) -> int:
        """Hand samples out; a complete chunk adds ``step.sources`` first.

        Returns
        -------
        int
            Frames left out because the model's values were not finite.
        """
        left_out: int = kernels.pull(
            self._sources,
            start,
            count,
            position,
            self._hop,
            self._synthesis,
            *self._plan,
            self._overlap,
            self._ready,
            out,
            self.broken,
        )
        return left_out

    def reset(self, stream: int | None = None) -> None:
        """Forget every sample of one stream, or of all."""
        joint = len(self._history) // self.streams
        own = slice(None) if stream is None else slice(stream * joint, (stream + 1) * joint)
        self._history[own] = 0.0
        self._overlap[:, own] = 0.0
        self._ready[:, :, own] = 0.0


_NO_WORK = np.zeros((3, 2, 0), np.float32)
