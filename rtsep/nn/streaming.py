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

A model may have controls, which a user sets while it runs: its ``forward`` has a third, optional
argument, see `Controlled`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rtsep.controls import ModelControl

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


class Controlled(Streaming):
    """A streaming module with controls, ``forward(x, state, control)``.

    ``control`` has a tensor (streams, values) by the name of each control, the same for all frames
    of a call. Without it, all have their default.
    """

    controls: Mapping[str, ModelControl]

    def forward(
        self, x: Tensor, state: State, control: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Map frames, a state and the controls to frames and the next state."""
        raise NotImplementedError

    def given(self, control: Mapping[str, Tensor] | None, x: Tensor) -> Mapping[str, Tensor]:
        """Return ``control``, or the defaults for the streams of ``x``."""
        if control is not None:
            return control
        return {
            name: x.new_tensor(one.default).expand(x.shape[0], -1)
            for name, one in self.controls.items()
        }


class Enrolling(Controlled):
    """A controlled module that makes one of its controls from a recording.

    ``enrolled`` is the name of the control; ``enroller`` maps all frames of a recording, (streams,
    frames, channels, *frame_shape), to its values, (streams, values).
    """

    enrolled: str
    enroller: nn.Module


class Bound(Streaming):
    """A controlled module with given controls, as a module without.

    Parameters
    ----------
    module
        The module.
    control
        Its third argument.
    """

    def __init__(self, module: Controlled, control: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.module, self.control = module, control

    def initial_state(self, streams: int) -> State:
        """Return the zero state of the module."""
        return self.module.initial_state(streams)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Call the module with the given controls."""
        y: tuple[Tensor, State] = self.module(x, state, self.control)
        return y


def random_controls(module: Controlled, streams: int, seed: int = 0) -> dict[str, Tensor]:
    """Return random controls within their ranges, (streams, values) each."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, one in module.controls.items():
        share = torch.rand(streams, len(one.default), generator=generator)
        found[name] = one.low + (one.high - one.low) * share
    return found


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
