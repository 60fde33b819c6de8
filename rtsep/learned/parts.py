"""Parts of the graph of learned sources: fixed decoders, and the protocol of all parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from rtsep.learned.decoder import EPSILON, LIMIT, PACE, Decoder, Penalty
from rtsep.learned.onnxgraph import Writer
from rtsep.spec import Float32


@dataclass(frozen=True)
class Frame:
    """Names of the values that the parts of a graph share.

    Attributes
    ----------
    x
        (streams, window, bins): magnitudes of the newest frames.
    level
        (streams, 1, 1): sum over the newest frame's bins.
    window
        Number of frames that are fitted together.
    sources
        Number of sources.
    memory
        Weight of the last frame's activations in the initial values.
    gate
        (streams, 1, 1): 1 once separation has begun, 0 before; 1 if empty.
    """

    x: str
    level: str
    window: int
    sources: int
    memory: float
    gate: str = ""


class Part(Protocol):
    """One or more sources of a graph."""

    def begin(self, frame: Frame) -> None:
        """Read the state and initialise the newest activations."""

    def explain(self) -> str:
        """Return the magnitudes, summed over the part's sources, (streams, window, bins)."""

    def improve(self, ratio: str) -> None:
        """Update the activations; ``ratio`` is mixture over decoded magnitudes."""

    def newest(self) -> list[str]:
        """Return the newest frame, (streams, sources, bins), as pieces along the sources."""

    def end(self, ratio: str) -> None:
        """Write the state."""


def stacked(decoders: Sequence[Decoder]) -> Decoder:
    """Join linear decoders of equal taps: one matrix product costs less than several."""
    taps, bins = decoders[0].taps, decoders[0].bins
    cubes = [d.matrices[0].reshape(taps, d.rank, bins) for d in decoders]
    matrix = np.concatenate(cubes, axis=1).reshape(-1, bins)
    usual = np.concatenate([d.usual for d in decoders])
    return replace(decoders[0], matrices=(matrix,), usual=usual)


class Activations:
    """Activations of a window of frames; the older frames are state."""

    def __init__(self, g: Writer, name: str, usual: Float32, taps: int, frame: Frame) -> None:
        self.g, self.name, self.rank = g, name, len(usual)
        self.window, self.old = frame.window, taps - 1
        self._rows = frame.window + taps - 2  # frames that are state; at least one
        past = g.input(f"state.{name}", (max(self._rows, 1), self.rank))
        last = past
        if self._rows > 1:
            last = g("Slice", past, g.integers(-1), g.integers(1 << 30), g.integers(1))
        share = (1 - frame.memory) * usual / frame.sources
        guess = g(
            "Add",
            g("Mul", last, g.number(frame.memory)),
            g("Mul", frame.level, g.number(share.reshape(1, 1, -1))),
        )
        if frame.gate:
            guess = g("Mul", guess, frame.gate)
        whole = g("Concat", past, guess, axis=1) if self._rows else guess
        self.frozen, self.live = "", whole
        if self.old:
            end, axis = g.integers(1 << 30), g.integers(1)
            self.frozen = g("Slice", whole, g.integers(0), g.integers(self.old), axis)
            self.live = g("Slice", whole, g.integers(self.old), end, axis)

    def whole(self) -> str:
        """Return all activations, (streams, window + taps - 1, rank)."""
        return self.g("Concat", self.frozen, self.live, axis=1) if self.old else self.live

    def multiply(self, factor: str) -> None:
        """Multiply the activations of the window by a factor."""
        self.live = self.g("Mul", self.live, factor)

    def hand_out(self) -> None:
        """Write the state for the next call."""
        g, rows = self.g, max(self._rows, 1)
        last = self.whole()
        if self._rows:
            last = g("Slice", last, g.integers(-rows), g.integers(1 << 30), g.integers(1))
        g.output(last, f"next_state.{self.name}", (rows, self.rank))


class Learned:
    """Fixed decoders: several linear ones, stacked, or a single nonlinear one.

    Parameters
    ----------
    g
        Graph to write to.
    name
        Name of the state.
    decoders
        Decoders of the sources, in order.
    penalty
        Penalty of the activations; only its sparsity is used.
    """

    def __init__(self, g: Writer, name: str, decoders: Sequence[Decoder], penalty: Penalty) -> None:
        self._g, self._name, self._penalty = g, name, penalty
        self._own = [decoder.rank for decoder in decoders]
        self._decoder = stacked(decoders) if decoders[0].linear else decoders[0]
        self._slopes: list[str] = []

    def begin(self, frame: Frame) -> None:
        """Read the state and initialise the newest activations."""
        d = self._decoder
        self._h = Activations(self._g, self._name, d.usual, d.taps, frame)
        self._window = frame.window

    def explain(self) -> str:
        """Return the magnitudes of all frames of the window."""
        return self._decode(self._unfold(self._h.whole(), self._window))

    def _unfold(self, h: str, frames: int) -> str:
        taps, g = self._decoder.taps, self._g
        if taps == 1:
            return h
        order = np.arange(frames)[:, None] + np.arange(taps)[::-1]
        shape = g.integers(0, frames, taps * self._h.rank)
        return g("Reshape", g("Gather", h, g.indices(order), axis=1), shape)

    def _decode(self, x: str) -> str:
        g, decoder = self._g, self._decoder
        self._slopes = []
        for matrix in decoder.matrices:
            x = g("MatMul", x, g.number(matrix))
            if not decoder.linear:
                self._slopes.append(g("Sigmoid", x))
                x = g("Softplus", x)
        return x if decoder.linear else g("Mul", x, g.number(decoder.scale))

    def improve(self, ratio: str) -> None:
        """Update the activations once, as `rtsep.learned.decoder.improve`."""
        g, decoder = self._g, self._decoder
        least = self._penalty.sparsity + EPSILON
        if decoder.linear:
            sums = decoder.matrices[0].sum(axis=1).reshape(decoder.taps, -1)
            # The entries of the last frames of the window are not complete yet.
            ahead = np.minimum(np.arange(self._window)[::-1] + 1, decoder.taps)
            loss = np.cumsum(sums, axis=0)[ahead - 1] + np.float32(least)
            matrix = decoder.matrices[0].T
            if decoder.taps == 1:
                factor = g("MatMul", ratio, g.number(matrix / loss[0]))
            else:
                gain = self._fold(g("MatMul", ratio, g.number(matrix)))
                factor = g("Mul", gain, g.number(1 / loss))
            self._h.multiply(factor)
            return
        one, scale = g.number(1.0), g.number(decoder.scale)
        total = g("Mul", g("Add", ratio, one), scale)
        gradient = g("Mul", g("Sub", one, ratio), scale)
        for matrix, slope in zip(reversed(decoder.matrices), reversed(self._slopes), strict=True):
            magnitudes = g.number(np.abs(matrix).T)
            total = g("MatMul", g("Mul", total, slope), magnitudes)
            gradient = g("MatMul", g("Mul", gradient, slope), g.number(matrix.T))
        total, gradient = self._fold(total), self._fold(gradient)
        gain = g("Relu", g("Sub", total, gradient))
        loss_ = g("Add", g("Relu", g("Add", total, gradient)), g.number(2 * least))
        factor = g("Pow", g("Div", gain, loss_), g.number(PACE))
        self._h.multiply(g("Min", factor, g.number(LIMIT)))

    def _fold(self, u: str) -> str:
        """Sum the gradients of each activation: shift each frame's row by one and add."""
        taps, window, g, rank = self._decoder.taps, self._window, self._g, self._h.rank
        if taps == 1:
            return u
        wide = window + taps - 1
        newest_last = np.arange(taps)[::-1]
        u = g("Reshape", u, g.integers(0, window, taps, rank))
        u = g("Gather", u, g.indices(newest_last), axis=2)
        u = g("Pad", u, g.integers(0, 0, 0, 0, 0, 0, wide + 1 - taps, 0))
        u = g("Reshape", u, g.integers(0, window * (wide + 1), rank))
        u = g("Slice", u, g.integers(0), g.integers(window * wide), g.integers(1))
        u = g("Reshape", u, g.integers(0, window, wide, rank))
        u = g("ReduceSum", u, g.integers(1), keepdims=0)
        return g("Slice", u, g.integers(taps - 1), g.integers(wide), g.integers(1))

    def newest(self) -> list[str]:
        """Return the newest frame, source by source."""
        g, taps, rank = self._g, self._decoder.taps, self._h.rank
        h = self._h.whole()
        if self._window > 1:
            h = g("Slice", h, g.integers(-taps), g.integers(1 << 30), g.integers(1))
        x = self._unfold(h, 1)
        if len(self._own) > 1:
            owner = np.repeat(np.arange(len(self._own)), self._own)
            chosen = owner == np.arange(len(self._own))[:, None]
            x = g("Mul", x, g.number(np.tile(chosen, taps).reshape(1, -1, taps * rank)))
        return [self._decode(x)]

    def end(self, ratio: str) -> None:
        """Hand the state out."""
        self._h.hand_out()
