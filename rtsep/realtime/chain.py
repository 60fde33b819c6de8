"""The processing chain of a model: engine, mixer, monitor and recorder."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from rtsep.dsp.kernel import named
from rtsep.dsp.mixer import CONTROLS, Controls, Mixer
from rtsep.dsp.ring import CELLS, Cells
from rtsep.realtime.monitor import Scope
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.stem_reader import Tap
from rtsep.runtime.engine import Engine
from rtsep.runtime.timing import Durations
from rtsep.spec import Float32

_WARM_UP = 20


class ChainState(NamedTuple):
    """Arrays that the compiled loop works on."""

    engine: int
    """Address of an `EngineState`."""
    stems: Float32
    """(block, sources, channels)"""
    out: Float32
    """(block, out channels)"""
    controls: Controls
    scope: Cells


CHAIN_STATE = named(
    ChainState,
    *(types.int64, types.Array(types.float32, 3, "C"), types.Array(types.float32, 2, "C")),
    *(CONTROLS, CELLS),
)


class ProcessingChain:
    """The engine of one model, and the mixer, monitor and recorder of its stems.

    Parameters
    ----------
    engine
        An engine for the rate and the channels of the stream.
    sample_rate
        Rate of the stream in Hz.
    out_channels
        Number of output channels.
    block
        Longest block in samples.

    Attributes
    ----------
    mixer
        Mixer of the stems; its controls may be changed while the stream runs.
    scope
        Newest mixture and stems, which may be read while the stream runs.
    hops
        Durations of hops, resampling and mixing included.
    recorder
        Recorder of mixture and stems, or None.
    tap
        Reader of the stems, or None.
    state
        Arrays that the compiled loop works on.

    Raises
    ------
    ValueError
        The block is longer than a piece of the engine.
    """

    def __init__(self, engine: Engine, sample_rate: int, out_channels: int, block: int) -> None:
        if block > engine.piece:
            raise ValueError(f"blocks of {block} samples are longer than {engine.piece}")
        sources, channels = len(engine.spec.sources), engine.channels
        self.engine = engine
        self.mixer = Mixer(sources, channels, out_channels, sample_rate, engine.latency_samples)
        self.scope = Scope(sources, sample_rate)
        self.hops = Durations()
        self.recorder: Recorder | None = None
        self.tap: Tap | None = None
        self._stems = np.zeros((block, sources, channels), np.float32)
        self._out = np.zeros((block, out_channels), np.float32)
        self.state = ChainState(
            engine.held.address, self._stems, self._out, self.mixer.controls, self.scope.cells
        )

    def process(self, mixture: Float32) -> Float32:
        """Separate samples (n, channels); return the output, valid until the next call."""
        n = len(mixture)
        stems = self.engine.process(mixture, self._stems[:n])
        self.scope.put(mixture, stems)
        return self.mixer.process(mixture, stems, self._out[:n])

    def record(self, mixture: Float32) -> None:
        """Append the last separated block to the recorder, if there is one."""
        if self.recorder is not None:
            self.recorder.put(mixture, self._stems[: len(mixture)])

    def warm_up(self, block: int) -> None:
        """Process silence, then reset; not for the audio path."""
        silence = np.zeros((block, self.engine.channels), np.float32)
        for _ in range(_WARM_UP):
            self.process(silence)
        self.engine.reset()
        self.mixer.reset()

    def go_on_from(self, former: ProcessingChain) -> None:
        """Copy the controls of sources with the same names; other sources are muted.

        If no source is audible then, and one was before, the first one is made audible.
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
        """Return silence (latency, sources, channels), in place of the stems inside the engine."""
        return np.zeros((self.engine.latency_samples, *self._stems.shape[1:]), np.float32)
