"""A dictionary that adapts live: a part of the graph whose entries are state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtsep.learned.decoder import EPSILON
from rtsep.learned.onnxgraph import Writer
from rtsep.learned.parts import Activations, Frame
from rtsep.spec import Float32


class Learning:
    """A source whose dictionary is state and adapts to the mixture (semi-supervised).

    A. Lefevre, F. Bach, C. Fevotte, "Online algorithms for nonnegative matrix factorization with
    the Itakura-Saito divergence", WASPAA 2011, here under the Kullback-Leibler divergence: an
    entry is the exponentially forgotten sum of its shares of all frames so far.

    Parameters
    ----------
    g
        Graph to write to.
    name
        Prefix of its states.
    first
        (rank, bins): initial dictionary.
    trust
        Weight of ``first``, in frames, for each entry.
    memory_frames
        Time constant with which it forgets, in frames.
    gate
        Name of a value (streams, 1, 1) from 0 to 1: weight of the newest frame in learning; 1 if
        empty.
    anchor
        Strength, in frames, of a Gamma prior that keeps the activations near their mean over the
        learned frames once separation has begun.
    learned_frames
        Number of frames to learn from; with an anchor, this source alone explains them.
    """

    def __init__(
        self,
        g: Writer,
        name: str,
        first: Float32,
        *,
        trust: float,
        memory_frames: float,
        gate: str = "",
        anchor: float = 0.0,
        learned_frames: float = 0.0,
    ) -> None:
        self._g, self._name, self._gate = g, name, gate
        self._anchor, self._frames = anchor, learned_frames
        self._first = first / first.sum(axis=1, keepdims=True)
        self._trust, self._keep = trust, float(np.exp(-1 / memory_frames))

    def begin(self, frame: Frame) -> None:
        """Read the state, compute the dictionary, and initialise the activations."""
        g, (rank, bins) = self._g, self._first.shape
        usual = np.full(rank, 1 / rank, np.float32)
        own = replace(frame, gate="") if self._frames else frame
        self._h = Activations(g, self._name, usual, 1, own)
        if self._frames:
            self._mean = g.input(f"state.{self._name}.mean", (1, rank))
            self._pull = g("Mul", frame.gate, g.number(self._anchor))
            self._kept = g("Mul", self._mean, self._pull)
            self._share = g("Reciprocal", g("Add", self._pull, g.number(1.0)))
        self._seen = g.input(f"state.{self._name}.heard", (rank, bins))
        w = g("Add", self._seen, g.number(self._trust * self._first[None]))
        self._w = g("Div", w, g("ReduceSum", w, g.integers(2)))
        self._wt = g("Transpose", self._w, perm=[0, 2, 1])
        self._frame = frame

    def explain(self) -> str:
        """Return the magnitudes of all frames of the window."""
        return self._g("MatMul", self._h.live, self._w)

    def improve(self, ratio: str) -> None:
        """Update the activations once; the entries sum to 1."""
        g, h = self._g, self._h
        h.multiply(g("MatMul", ratio, self._wt))
        if self._frames:
            h.live = g("Mul", g("Add", h.live, self._kept), self._share)

    def newest(self) -> list[str]:
        """Return the magnitudes of the newest frame."""
        return [self._g("MatMul", self._last(self._h.live), self._w)]

    def _last(self, rows: str) -> str:
        g = self._g
        if self._frame.window == 1:
            return rows
        return g("Slice", rows, g.integers(-1), g.integers(1 << 30), g.integers(1))

    def end(self, ratio: str) -> None:
        """Learn from the newest frame and write the state."""
        g, (rank, bins) = self._g, self._first.shape
        level = g("Add", self._frame.level, g.number(EPSILON))
        part = g("Div", self._last(self._h.live), level)
        if self._gate:
            part = g("Mul", part, self._gate)
        part = g("Reshape", part, g.integers(0, rank, 1))
        told = g("Mul", g("MatMul", part, self._last(ratio)), self._w)
        keep = g.number(self._keep)
        if self._gate:  # without learning there is no forgetting
            forgotten = g("Mul", self._gate, g.number(1 - self._keep))
            keep = g("Sub", g.number(1.0), forgotten)
        seen = g("Add", g("Mul", self._seen, keep), told)
        g.output(seen, f"next_state.{self._name}.heard", (rank, bins))
        if self._frames:
            now = g("Mul", self._last(self._h.live), self._gate)
            mean = g("Add", self._mean, g("Mul", now, g.number(1 / self._frames)))
            g.output(mean, f"next_state.{self._name}.mean", (1, rank))
        self._h.hand_out()
