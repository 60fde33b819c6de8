"""A model at work on a stream: what it makes, what is heard of it, and how it is taken over."""

from __future__ import annotations

import numpy as np

from rtsep.dsp.mixer import Mixer
from rtsep.dsp.ring import Cells
from rtsep.realtime.compiled_loop import LoopState
from rtsep.realtime.monitor import Scope
from rtsep.realtime.recorder import NO_TRACKS, Recorder
from rtsep.realtime.stem_reader import NO_TAP, Tap
from rtsep.runtime.engine import Engine
from rtsep.runtime.resampled import ONE_RATE, Processor, Resampled
from rtsep.runtime.timing import Durations, TimedStep
from rtsep.spec import Float32, Float64, Int64

_WARM_UP = 20


class ProcessingChain:
    """One model at work: its engine, and what is heard, seen and recorded of it.

    Parameters
    ----------
    engine
        Works at the sound's rate, on its channels.
    step
        What the engine calls.
    sample_rate
        Of the sound that goes in and out, in Hz.
    out_channels
        Of what is heard.
    most
        Samples of the longest block.

    Attributes
    ----------
    mixer
        Its controls may be changed while the stream runs.
    scope
        May be looked at while the stream runs.
    hops
        Time of one hop from input to output, resampling and mixing included.
    recorder
        Gets mixture and stems, if there is one.
    tap
        Gets the stems, if there is one.
    """

    def __init__(
        self,
        engine: Processor | Resampled,
        step: TimedStep,
        sample_rate: int,
        out_channels: int,
        most: int,
    ) -> None:
        sources, channels = len(engine.spec.sources), engine.channels
        self.engine, self.step = engine, step
        self.mixer = Mixer(sources, channels, out_channels, sample_rate, engine.latency_samples)
        self.scope = Scope(sources, sample_rate)
        self.hops = Durations()
        self.recorder: Recorder | None = None
        self.tap: Tap | None = None
        self._stems = np.zeros((most, sources, channels), np.float32)
        self._out = np.zeros((most, out_channels), np.float32)

    def process(self, mixture: Float32) -> Float32:
        """Separate the next samples (n, channels) and return what is heard, until the next call."""
        n = len(mixture)
        stems = self.engine.process(mixture, self._stems[:n])
        self.scope.put(mixture, stems)
        return self.mixer.process(mixture, stems, self._out[:n])

    def record(self, mixture: Float32) -> None:
        """Hand what was processed last to the recorder and the tap, if there are any."""
        recorder, stems = self.recorder, self._stems[: len(mixture)]
        if recorder is not None:
            recorder.put(mixture, stems)
        if self.tap is not None:
            self.tap.put(stems)

    def loop_state(
        self,
        block: int,
        incoming: Cells,
        outgoing: Cells,
        progress: Int64,
        busy_s: Float64,
        most: Int64,
    ) -> LoopState | None:
        """Collect what the compiled loop works on; None for a model that has to run in Python.

        Parameters
        ----------
        block
            Samples that are separated at once.
        incoming, outgoing, progress, busy_s, most
            As of `rtsep.realtime.compiled_loop.LoopState`.
        """
        engine, rates = self.engine, ONE_RATE
        if isinstance(engine, Resampled) and block <= engine.piece:
            rates, engine = engine.rates, engine.engine
        program = self.step.program
        if program is None or not isinstance(engine, Engine):
            return None
        return LoopState(
            incoming,
            outgoing,
            np.zeros((block, engine.channels), np.float32),
            self._stems[:block],
            self._out[:block],
            rates,
            engine.buffers,
            program,
            self.mixer.controls,
            self.scope.cells,
            NO_TAP if self.tap is None else self.tap.tapped,
            NO_TRACKS if self.recorder is None else self.recorder.tracks,
            self.step.times.histogram,
            self.hops.histogram,
            progress,
            busy_s,
            most,
            np.zeros(2, np.int64),
        )

    def warm_up(self, block: int) -> None:
        """Run every path once, then start from nothing; not for the audio path."""
        silence = np.zeros((block, self.engine.channels), np.float32)
        for _ in range(_WARM_UP):
            self.process(silence)
        self.engine.reset()
        self.mixer.reset()
        self.step.times = Durations()

    def go_on_from(self, former: ProcessingChain) -> None:
        """Take over the controls: of sources of the same names as they are; others are muted.

        Where nothing would be heard then, and something was, the first source is heard.
        """
        before, after = former.engine.spec.sources, self.engine.spec.sources
        own, other = self.mixer, former.mixer
        own.muted[:] = True
        for index, name in enumerate(after):
            if name in before:
                old = before.index(name)
                own.gains[index] = other.gains[old]
                own.muted[index] = other.muted[old]
                own.soloed[index] = other.soloed[old]
        if other.heard.any() and not own.heard.any():
            own.gains[0], own.muted[0], own.soloed[:] = 1.0, False, False
        own.bypass = other.bypass
        own.reset()

    def silent_tail(self) -> Float32:
        """(latency, sources, channels) of silence, in place of the stems still inside."""
        return np.zeros((self.engine.latency_samples, *self._stems.shape[1:]), np.float32)
