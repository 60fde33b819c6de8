"""The streaming contract, which every model and layer obeys.

A streaming module maps frames and a state to frames and the next state::

    y, next_state = module(x, state)

for any number of frames along axis 1. Cutting the input does not change the output::

    y1, s1 = module(x[:, :t], s0)
    y2, s2 = module(x[:, t:], s1)
    cat([y1, y2], 1) == module(x, s0)[0]          for every t

Offline processing passes all frames with the zero state, live processing one chunk at a time. The
state is a nested dict of tensors of fixed shape with the streams along axis 0. It starts as zeros,
is passed in and returned, and is never changed in place. Time is axis 1 of every ``x`` and ``y``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Any]
"""A nested dict whose leaves are tensors of shape (streams, ...)."""


class Streaming(nn.Module):
    """A module with explicit state that obeys the equation in the docstring of this file."""

    def initial_state(self, streams: int) -> State:
        """Return the zero state for ``streams`` independent streams."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map frames (streams, frames, ...) and a state to frames and the next state."""
        raise NotImplementedError


def flatten(state: Mapping[str, Any], prefix: str = "state") -> dict[str, Tensor]:
    """Name every leaf by its path: ``{"a": {"past": t}}`` -> ``{"state.a.past": t}``."""

    def walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Tensor]]:
        for key, value in node.items():
            name = f"{path}.{key}"
            if isinstance(value, Mapping):
                yield from walk(value, name)
            else:
                yield name, value

    return dict(walk(state, prefix))


def unflatten(leaves: Mapping[str, Any], prefix: str = "state") -> State:
    """Invert :func:`flatten`."""
    state: State = {}
    for name, value in leaves.items():
        *path, last = name.removeprefix(prefix + ".").split(".")
        node = state
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value
    return state


def extend(past: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Put ``past`` (streams, lag, ...) before ``x`` (streams, frames, ...) along time.

    Returns
    -------
    (Tensor, Tensor)
        The input of a causal operation, lag + frames long, and the next past, its last lag frames.
    """
    window = torch.cat([past, x], dim=1)
    return window, window[:, x.shape[1] :]


@dataclass(frozen=True)
class Line:
    """Replaces, in an exported graph, a past that a module reads at a few delays only.

    The frames of ``k`` calls ago are a separate input of the graph, so nothing is shifted or
    copied; the runtime keeps the calls in a ring.

    Attributes
    ----------
    calls
        The module's input 1, 2, ... calls ago, each (streams, chunk, ...).
    """

    calls: Mapping[int, Tensor]

    @staticmethod
    def needs(delay: int, chunk: int) -> set[int]:
        """Return the calls that contain the frames of ``delay`` frames ago."""
        return {-(-delay // chunk), delay // chunk} - {0}

    def read(self, x: Tensor, delays: Sequence[int]) -> list[Tensor]:
        """Return ``x`` delayed by each of ``delays`` frames, each (streams, chunk, ...)."""
        chunk = x.shape[1]
        calls = {0: x, **self.calls}
        pairs: dict[int, Tensor] = {}  # two successive calls, for delays that are not whole calls
        late = []
        for delay in delays:
            whole, rest = divmod(delay, chunk)
            if rest and whole not in pairs:
                pairs[whole] = torch.cat([calls[whole + 1], calls[whole]], dim=1)
            late.append(pairs[whole][:, chunk - rest : 2 * chunk - rest] if rest else calls[whole])
        return late


_reads: ContextVar[dict[int, tuple[int, ...]] | None] = ContextVar("reads", default=None)


def recall(past: Tensor | Line, x: Tensor, delays: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Delay ``x`` (streams, frames, ...) by several numbers of frames.

    Parameters
    ----------
    past
        State of shape (streams, max(delays), ...).
    x
        The newest frames.
    delays
        Delays in frames, each 1 or more.

    Returns
    -------
    (list of Tensor, Tensor)
        ``x`` delayed by each of ``delays``, and the next past.
    """
    if isinstance(past, Line):
        return past.read(x, delays), x
    seen = None if torch.compiler.is_compiling() else _reads.get()  # not traceable
    if seen is not None:
        seen[id(past)] = tuple(delays)
    window, following = extend(past, x)
    lag, frames = past.shape[1], x.shape[1]
    return [window[:, lag - d : lag - d + frames] for d in delays], following


@torch.no_grad()
def reads(model: Streaming, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Run ``model`` once on ``x``; return the states read by :func:`recall`, and their delays."""
    state = model.initial_state(x.shape[0])
    seen: dict[int, tuple[int, ...]] = {}
    token = _reads.set(seen)
    try:
        model(x, state)
    finally:
        _reads.reset(token)
    return {name: seen[id(leaf)] for name, leaf in flatten(state).items() if id(leaf) in seen}
