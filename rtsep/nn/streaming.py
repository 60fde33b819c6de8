"""The contract every model and layer obeys.

A streaming module maps frames and a state to frames and the next state::

    y, next_state = module(x, state)

for any number of frames along axis 1, so that cutting the input changes nothing::

    y1, s1 = module(x[:, :t], s0)
    y2, s2 = module(x[:, t:], s1)
    cat([y1, y2], 1) == module(x, s0)[0]          for every t

Offline is all frames with the zero state, live is one chunk at a time; the same lines run both.
State is a value: a nested dict of tensors of fixed shape with the streams along axis 0, all zero
at birth, passed in, returned, never changed in place. Time is axis 1 of every ``x`` and ``y``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Any]
"""A nested dict whose leaves are tensors of shape (streams, ...)."""


class Streaming(nn.Module):
    """A module with explicit state; see the module docstring for the equation it obeys."""

    def initial_state(self, streams: int) -> State:
        """Zero state for ``streams`` independent streams."""
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


def unflatten(leaves: Mapping[str, Tensor], prefix: str = "state") -> State:
    """Undo :func:`flatten`."""
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
        The lag + frames long input of a causal operation, and the next past (its last lag frames).
    """
    window = torch.cat([past, x], dim=1)
    return window, window[:, x.shape[1] :]
