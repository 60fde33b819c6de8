"""A session's model with the engine and the mixer around it, and how one follows another."""

from __future__ import annotations

import threading
from collections import defaultdict

import numpy as np

from rtsep import weights
from rtsep.dsp.mixer import Mixer
from rtsep.realtime.monitor import Scope
from rtsep.runtime.bundle import Bundle, BundleError
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import Separator
from rtsep.runtime.resampled import around
from rtsep.spec import Float32
from rtsep.ui.protocol import Control, Hello
from rtsep.ui.spectra import Spectra


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
        self._idle: defaultdict[tuple[str, int], list[Separator]] = defaultdict(list)
        self._lock = threading.Lock()
        for separator in [self.take(self.default, 1) for _ in range(spare)]:
            self.give(self.default, 1, separator)

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

    def take(self, name: str, channels: int) -> Separator:
        """Return a model for so many channels, at its start. Takes a while; for any thread."""
        with self._lock:  # one after the other
            bundle = self.bundle(name)
            streams = bundle.spec.streams(channels)
            idle = self._idle[name, streams]
            return idle.pop() if idle else Separator(bundle, streams)

    def give(self, name: str, channels: int, separator: Separator) -> None:
        """Take a model back."""
        with self._lock:
            separator.reset()
            self._idle[name, separator.bundle.spec.streams(channels)].append(separator)


class Chain:
    """Sound of a session in, what is heard out.

    Parameters
    ----------
    name
        Of the model in the pool.
    pool
        Where the model comes from, and goes back to by `close`.
    hello
        The session's sound. A model that hears channels jointly gets as many as it wants; the last
        one is repeated.

    Raises
    ------
    BundleError
        The model can't be run.
    """

    def __init__(self, name: str, pool: Pool, hello: Hello) -> None:
        self.name, self._pool, self._hello = name, pool, hello
        self.spec = spec = pool.bundle(name).spec
        self._channels = hello.channels if spec.channels == 1 else spec.channels
        self._separator: Separator | None = pool.take(name, self._channels)
        step, channels = self._separator, self._channels
        rate = hello.sample_rate
        self.engine = around(
            lambda block: Engine(step, spec, channels, block), rate, spec.sample_rate, hello.frame
        )
        late = self.engine.latency_samples
        self.mixer = Mixer(len(spec.sources), channels, hello.channels, rate, late)
        self.mixer.muted[1:] = True  # as `rtsep run`: the first source is heard
        self._scope = Scope(len(spec.sources), rate)
        self.spectra = Spectra(self._scope, spec.sample_rate / 2, late)
        self._mixture = np.zeros((hello.frame, channels), np.float32)
        self._stems = np.zeros((hello.frame, len(spec.sources), channels), np.float32)
        self._warm_up()

    def _warm_up(self) -> None:
        silence = np.zeros((self._hello.frame, self._hello.channels), np.float32)
        for _ in range(3):
            self.process(silence, np.empty_like(silence))
        self.engine.reset()
        self.mixer.reset()
        self.spectra.columns()

    def process(self, sound: Float32, out: Float32) -> Float32:
        """Separate and mix a frame, (frame, channels) of the session."""
        for channel in range(self._channels):
            self._mixture[:, channel] = sound[:, min(channel, sound.shape[1] - 1)]
        stems = self.engine.process(self._mixture, self._stems)
        self.mixer.process(self._mixture, stems, out)
        self._scope.put(self._mixture, stems)
        return out

    def control(self, change: Control) -> bool:
        """Set the mixer; tell whether there is such a source."""
        return change.set(self.mixer, self.spec.sources)

    def go_on_from(self, former: Chain) -> None:
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
            "resampling": 1000 * self.engine.resampling / self._hello.sample_rate,
        }

    def close(self) -> None:
        """Give the model back; nothing may be processed any more."""
        separator, self._separator = self._separator, None
        if separator is not None:
            self._pool.give(self.name, self._channels, separator)
