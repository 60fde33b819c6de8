"""One model for many streams that are not in step: each call takes those that wait for it.

The state of a stream is a row of arrays, apart from the model. Before a call, the rows of the
waiting streams are copied to the model, and after it back, which takes far less time than the call.
So any streams can share a call, and the state of a stream is a value that can be read and written.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from rtsep.errors import SpecError
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.model_step import make_step
from rtsep.runtime.states import ring_lengths
from rtsep.runtime.tape.interpreter import (
    BASE,
    COPIES,
    COPY_STEP,
    OLDEST,
    SETTLED,
    SIZE,
    STREAM_STEP,
    TURN,
)
from rtsep.spec import Float32, Int64

MOST_CHANNELS = 2
"""Largest number of channels of a stream."""


class Batch:
    """A model and the states of all its streams.

    Parameters
    ----------
    bundle
        The model.
    places
        Largest number of streams.

    Attributes
    ----------
    bundle
        The model.
    fingerprint
        Hash of the graph: streams go on only with the same one.

    Raises
    ------
    BundleError
        The model can't be run.
    """

    def __init__(self, bundle: Bundle, places: int) -> None:
        spec = bundle.spec
        self.bundle = bundle
        self.fingerprint = sha256(bundle.graph).hexdigest()
        self._width = spec.streams(MOST_CHANNELS) if spec.channels == 1 else 1
        rows, frame = places * self._width, (spec.channels, *spec.frame_shape)
        self.mixture = np.zeros((rows, spec.chunk, *frame), np.float32)
        self.sources = np.zeros((rows, spec.chunk, len(spec.sources), *frame), np.float32)
        lengths = ring_lengths(bundle.states)
        self.states = {
            key: np.zeros((rows, lengths[key], int(np.prod(state.shape))), np.float32)
            for key, state in bundle.states.items()
        }
        self.turns = np.zeros(rows, np.int64)
        self.waiting: list[Lane] = []
        self._free = [row * self._width for row in reversed(range(places))]
        sizes = [1 << power for power in range(rows.bit_length())]
        self._models = [_Model(bundle, size) for size in reversed(sizes)]

    def lane(self, channels: int) -> Lane:
        """Return the step of a new stream, with zero state.

        Raises
        ------
        SpecError
            The model processes another number of channels jointly, or all places are taken.
        """
        streams = self.bundle.spec.streams(channels)
        if streams > self._width or not self._free:
            raise SpecError("there is no place for another stream of this model")
        first = self._free.pop()
        lane = Lane(self, first, streams)
        lane.reset()
        return lane

    def give_back(self, lane: Lane) -> None:
        """End the stream of a lane, which can't be used any more."""
        self._free.append(lane.first)

    def run(self) -> None:
        """Call the model for all lanes in ``waiting``, which is empty then."""
        rows = np.concatenate([lane.rows for lane in self.waiting])
        self.waiting.clear()
        done = 0
        for model in self._models:
            while len(rows) - done >= model.size:
                model.run(self, rows[done : done + model.size])
                done += model.size


class Lane:
    """The `rtsep.spec.Step` of one stream in a batch; created by `Batch.lane`.

    A call makes it wait for `Batch.run`, after which ``sources`` are there.

    Attributes
    ----------
    mixture, sources
        As in `rtsep.spec.Step`.
    """

    def __init__(self, batch: Batch, first: int, streams: int) -> None:
        own = slice(first, first + streams)
        self._batch, self._own = batch, own
        self.first, self.rows = first, np.arange(first, first + streams)
        self.mixture, self.sources = batch.mixture[own], batch.sources[own]

    def __call__(self) -> None:
        """Wait for the next call of the model."""
        self._batch.waiting.append(self)

    def reset(self, stream: int | None = None) -> None:
        """Set the state of one channel, or of all, to zeros."""
        rows = self._own if stream is None else slice(self.first + stream, self.first + stream + 1)
        for state in self._batch.states.values():
            state[rows] = 0.0

    @property
    def past(self) -> Float32:
        """(values,): the states that later calls read, between two calls of the model."""
        parts = [ring[self._own, order].ravel() for ring, order in self._past()]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @past.setter
    def past(self, values: Float32) -> None:
        start = 0
        for ring, order in self._past():
            shape = len(self.rows), len(order), ring.shape[2]
            size = int(np.prod(shape))
            ring[self._own, order] = values[start : start + size].reshape(shape)
            start += size

    def _past(self) -> Iterator[tuple[Float32, Int64]]:
        """Yield the ring of each state with its positions that are read later, the newest first."""
        turn = self._batch.turns[self.first]
        for key, state in self._batch.bundle.states.items():
            ring = self._batch.states[key]
            yield ring, (turn - np.arange(1, max(state.inputs) + 1)) % ring.shape[1]


class _Ring(NamedTuple):
    """A state in a model and the calls by which reads of it lie back."""

    positions: Float32
    """(copies, streams, values), a view of the model's memory."""
    delays: list[int]


class _Model:
    """The model for a fixed number of streams."""

    def __init__(self, bundle: Bundle, size: int) -> None:
        self.size, self._step = size, make_step(bundle, size)
        program = self._step.program
        self._cursors = program.cursors
        program.known[:], self._cursors[SETTLED] = self._cursors[OLDEST], 1  # rows are all written
        self._rings: dict[str, _Ring] = {}
        reads = iter(program.reads)
        for key, state in bundle.states.items():
            row, *_ = [next(reads) for _ in state.inputs]
            positions = np.lib.stride_tricks.as_strided(
                program.memory[row[BASE] :],
                (row[COPIES], size, row[SIZE]),
                (4 * row[COPY_STEP], 4 * row[STREAM_STEP], 4),
            )
            self._rings[key] = _Ring(positions, list(state.inputs))

    def run(self, batch: Batch, rows: Int64) -> None:
        """Separate the chunks of these rows and advance their states."""
        turn, turns = int(self._cursors[TURN]), batch.turns[rows]
        self._step.mixture[:] = batch.mixture[rows]
        for key, (positions, delays) in self._rings.items():
            own, copies = batch.states[key], len(positions)
            for delay in delays:
                positions[(turn - delay) % copies] = own[rows, (turns - delay) % copies]
        self._step()
        for key, (positions, _) in self._rings.items():
            copies = len(positions)
            batch.states[key][rows, turns % copies] = positions[turn % copies]
        batch.turns[rows] = turns + 1
        batch.sources[rows] = self._step.sources
