"""A model at work in a live stream: what it makes, what is heard of it, and how it is taken over.

Where one model takes another's place, both work side by side: the new one listens for a while, so
that it knows the sound it is in, then what is heard goes over to it along a raised cosine. Each
brings the mixture as late as its own stems.
"""

from __future__ import annotations

import threading
from collections import defaultdict

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from rtsep import weights
from rtsep.dsp.mixer import Mixer, raised_cosine
from rtsep.dsp.ring import Cells, Float32, Int64
from rtsep.errors import BundleError
from rtsep.realtime.compiled_loop import LoopState
from rtsep.realtime.monitor import Scope
from rtsep.realtime.recorder import NO_TRACKS, Recorder
from rtsep.realtime.stem_reader import NO_TAP, Tap
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import ModelStep
from rtsep.runtime.resampled import ONE_RATE, Processor, Resampled, around
from rtsep.runtime.timing import Durations, TimedStep

LISTEN_S = 0.3
"""Time for which a new model works unheard, beside its latency, in seconds."""
CROSS_S = 0.05
"""Duration of the cross-fade from model to model, in seconds."""
_WARM_UP = 20

Float64 = NDArray[np.float64]

_samples = types.Array(types.float32, 2, "C")


class ProcessingChain:
    """One model at work: its engine, and what is heard, seen and recorded of it.

    Parameters
    ----------
    engine
        Works at the device's rate, on its input channels.
    step
        What the engine calls.
    sample_rate
        Of the device, in Hz.
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

    def silent_tail(self) -> Float32:
        """(latency, sources, channels) of silence, in place of the stems still inside."""
        return np.zeros((self.engine.latency_samples, *self._stems.shape[1:]), np.float32)


@njit(types.void(_samples, types.float32[::1], types.int64[::1], _samples), cache=True)
def cross(fresh: Float32, fade: Float32, cursor: Int64, out: Float32) -> None:
    """Go over from ``out`` to ``fresh``, both (n, channels), in ``out``.

    Parameters
    ----------
    fade
        (length + 1,) from 0 to 1.
    cursor
        (1,): samples of the fade so far; negative before it begins.
    """
    length = fade.size - 1
    for n in range(out.shape[0]):
        cursor[0] = min(cursor[0] + 1, length)
        share = fade[max(cursor[0], 0)]
        for channel in range(out.shape[1]):
            if share == 1.0:
                out[n, channel] = fresh[n, channel]
            else:
                out[n, channel] += share * (fresh[n, channel] - out[n, channel])


class Crossfade:
    """A chain on its way to take another's place.

    Parameters
    ----------
    chain
        Warmed up.
    sample_rate
        In Hz.
    """

    def __init__(self, chain: ProcessingChain, sample_rate: int) -> None:
        self.chain = chain
        self._fade = raised_cosine(max(1, round(CROSS_S * sample_rate)))
        unheard = chain.engine.latency_samples + round(LISTEN_S * sample_rate)
        self._cursor = np.full(1, -unheard, np.int64)

    def process(self, mixture: Float32, out: Float32) -> None:
        """Separate the next samples, and put into ``out``, what is heard so far, its share."""
        cross(self.chain.process(mixture), self._fade, self._cursor, out)

    @property
    def complete(self) -> bool:
        """Whether only the new chain is heard."""
        return int(self._cursor[0]) == len(self._fade) - 1


class Pool:
    """Models that are loaded, for sessions to take and give back.

    To load one keeps the interpreter busy for a moment, which other sessions would hear, so none is
    loaded twice.

    Parameters
    ----------
    first
        What sessions begin with: a shipped model's name, or the path of a bundle; the default one
        if None.
    spare
        Copies of it to load now.

    Raises
    ------
    BundleError
        It can't be run.
    """

    def __init__(self, first: str | None = None, spare: int = 0) -> None:
        bundle = weights.find(first)
        self.default = first if first in weights.names() else bundle.metadata["name"]
        self._bundles: dict[str, Bundle] = {self.default: bundle}
        self._idle: defaultdict[tuple[str, int], list[ModelStep]] = defaultdict(list)
        self._lock = threading.Lock()
        for model_step in [self.take(self.default, 1) for _ in range(spare)]:
            self.give(self.default, 1, model_step)

    @property
    def names(self) -> list[str]:
        """Of all models, the default one first."""
        return [self.default, *(name for name in weights.names() if name != self.default)]

    def bundle(self, name: str) -> Bundle:
        """Return the model of one of `names`; nothing else is looked for.

        Raises
        ------
        BundleError
            There is none of this name, or it can't be run.
        """
        if name not in self.names:
            raise BundleError(f"there is no such model; there are: {', '.join(self.names)}")
        if name not in self._bundles:
            self._bundles[name] = weights.find(name)
        return self._bundles[name]

    def take(self, name: str, channels: int) -> ModelStep:
        """Return a model for so many channels, at its start. Takes a while; for any thread."""
        with self._lock:  # one after the other
            bundle = self.bundle(name)
            streams = bundle.spec.streams(channels)
            idle = self._idle[name, streams]
            return idle.pop() if idle else ModelStep(bundle, streams)

    def give(self, name: str, channels: int, model_step: ModelStep) -> None:
        """Take a model back."""
        with self._lock:
            model_step.reset()
            self._idle[name, model_step.bundle.spec.streams(channels)].append(model_step)


class SessionChain:
    """Sound of a session in, what is heard out; its model comes from a pool.

    Parameters
    ----------
    name
        Of the model in the pool.
    pool
        Where the model comes from, and goes back to by `close`.
    sample_rate, channels
        Of the session's sound, in Hz. A model that hears channels jointly gets as many as it wants;
        the last one is repeated.
    frame
        Samples that are separated at once.

    Raises
    ------
    BundleError
        The model can't be run.
    """

    def __init__(self, name: str, pool: Pool, sample_rate: int, channels: int, frame: int) -> None:
        self.name, self._pool = name, pool
        self._rate = sample_rate
        self.spec = spec = pool.bundle(name).spec
        self._channels = channels if spec.channels == 1 else spec.channels
        self._step: ModelStep | None = pool.take(name, self._channels)
        step, heard = self._step, self._channels
        self.engine = around(
            lambda block: Engine(step, spec, heard, block), sample_rate, spec.sample_rate, frame
        )
        late = self.engine.latency_samples
        self.mixer = Mixer(len(spec.sources), heard, channels, sample_rate, late)
        self.mixer.muted[1:] = True  # as `rtsep run`: the first source is heard
        self.scope = Scope(len(spec.sources), sample_rate)
        self._mixture = np.zeros((frame, heard), np.float32)
        self._stems = np.zeros((frame, len(spec.sources), heard), np.float32)
        self._warm_up(frame, channels)

    def _warm_up(self, frame: int, channels: int) -> None:
        silence = np.zeros((frame, channels), np.float32)
        for _ in range(3):
            self.process(silence, np.empty_like(silence))
        self.engine.reset()
        self.mixer.reset()

    def process(self, sound: Float32, out: Float32) -> Float32:
        """Separate and mix a frame, (frame, channels) of the session."""
        for channel in range(self._channels):
            self._mixture[:, channel] = sound[:, min(channel, sound.shape[1] - 1)]
        stems = self.engine.process(self._mixture, self._stems)
        self.mixer.process(self._mixture, stems, out)
        self.scope.put(self._mixture, stems)
        return out

    def go_on_from(self, former: SessionChain) -> None:
        """Take over the controls of sources of one name; where there are any, no other is heard."""
        before, after = former.spec.sources, self.spec.sources
        if set(before) & set(after):
            self.mixer.muted[:] = True
        for index, name in enumerate(after):
            if name in before:
                old = before.index(name)
                self.mixer.gains[index] = former.mixer.gains[old]
                self.mixer.muted[index] = former.mixer.muted[old]
                self.mixer.soloed[index] = former.mixer.soloed[old]
        self.mixer.bypass = former.mixer.bypass
        self.mixer.reset()

    def latency_terms_ms(self) -> dict[str, float]:
        """Latency of the engine by its terms, in ms."""
        terms, model_rate = self.engine.latency, self.spec.sample_rate
        return {
            "overlap": 1000 * terms.overlap / model_rate,
            "reblocking": 1000 * terms.reblocking / model_rate,
            "lookahead": 1000 * terms.lookahead / model_rate,
            "resampling": 1000 * self.engine.resampling / self._rate,
        }

    def close(self) -> None:
        """Give the model back; nothing may be processed any more."""
        model_step, self._step = self._step, None
        if model_step is not None:
            self._pool.give(self.name, self._channels, model_step)
