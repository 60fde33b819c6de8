"""The engine: samples in, as many samples per source out, always the same latency later."""

from __future__ import annotations

import numpy as np

from rtsep.dsp.overlap_add import NONFINITE_IN, NONFINITE_OUT, POSITION, Frames
from rtsep.latency import Latency
from rtsep.spec import Float32, Spec, Step, check_array


class Engine:
    """Run a model over a stream of samples in blocks of any size.

    The output is the reconstruction of the model's frames, exactly ``latency.total`` samples late,
    as long as every block is a multiple of the declared one.

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

    Attributes
    ----------
    latency
        Algorithmic latency by its terms, in samples.
    buffers
        What the kernels work on.
    streams
        How many the step carries; stream ``k`` has the ``spec.channels`` channels from
        ``k * spec.channels`` on.
    nonfinite_in
        Input samples replaced by 0 since construction: NaN, Inf, or beyond
        `rtsep.dsp.overlap_add.LIMIT`.
    nonfinite_out
        Frames since construction that the model spoiled with such values: silence was put in their
        place, in every source of that stream, and the model's state was reset for it.

    Raises
    ------
    SpecError
        If the step's buffers are not those of ``spec`` and ``channels``.
    ValueError
        If the window does not reconstruct, or ``channels`` or ``block`` is below 1.
    """

    def __init__(self, step: Step, spec: Spec, channels: int = 1, block: int = 1) -> None:
        if channels < 1 or block < 1:
            raise ValueError(f"channels and block must be 1 or more, not {channels} and {block}")
        self.spec = spec
        self.channels = channels
        self.block = block
        self.latency = Latency.of(spec, block)
        self._step = step
        self._frames = Frames(spec, step, channels, self.latency.reblocking)
        self.streams = self._frames.streams
        self._shape = (len(spec.sources), channels)
        self._chunk = spec.step_length
        self.buffers = self._frames.buffers
        self._cursors = self.buffers.cursors

    @property
    def latency_samples(self) -> int:
        """``latency.total``: how late the output is, in samples of the blocks given."""
        return self.latency.total

    @property
    def resampling(self) -> float:
        """Part of it that resampling adds: nothing here, see `rtsep.runtime.resampled`."""
        return 0.0

    @property
    def nonfinite_in(self) -> int:
        """Input samples replaced by 0 since construction."""
        return int(self._cursors[NONFINITE_IN])

    @property
    def nonfinite_out(self) -> int:
        """Frames of the model replaced by silence since construction."""
        return int(self._cursors[NONFINITE_OUT])

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
            Sample ``t`` of the whole output belongs to sample ``t - latency.total`` of the input.

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
        done = 0
        while done < n:
            position = int(self._cursors[POSITION])
            count = min(self._chunk - position, n - done)
            self._cursors[NONFINITE_IN] += self._frames.analyse(block, done, count, position)
            self._cursors[POSITION] = (position + count) % self._chunk
            if position + count == self._chunk:
                self._step()
            broken = self._frames.overlap_add(out, done, count, position)
            if broken:
                self._heal(broken)
            done += count
        return out

    def flush(self, out: Float32 | None = None) -> Float32:
        """Return what is still inside, and reset: the next sample starts a new stream.

        After it, all outputs joined and without their first ``latency.total`` samples align with
        the input and are as long. Allocates; not for the audio path.

        Parameters
        ----------
        out
            (latency.total, sources, channels) float32, C-contiguous; made anew if not given.
        """
        total = self.latency.total
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
            Of this stream only: the others go on as if nothing had been.
        """
        self._step.reset(stream)
        self._frames.reset(stream)
        if stream is None:
            self._cursors[POSITION] = 0

    def _heal(self, broken: int) -> None:
        """Count ``broken`` frames and reset the model for the streams that had them."""
        self._cursors[NONFINITE_OUT] += broken
        for stream in range(self.streams):
            if self.buffers.broken[stream]:
                self.buffers.broken[stream] = 0
                self._step.reset(stream)
