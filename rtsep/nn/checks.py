"""Checks of a model before it becomes a bundle: chunking, state, causality, finite output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rtsep.errors import ContractError
from rtsep.nn.streaming import Bound, Controlled, State, Streaming, flatten, random_controls


def check_state(model: Streaming, streams: int = 2) -> None:
    """Check that the initial state is a nested dict of float32 zeros, streams first."""
    for name, leaf in flatten(model.initial_state(streams)).items():
        if leaf.shape[0] != streams or leaf.dtype != torch.float32:
            raise ContractError(f"{name} has shape {tuple(leaf.shape)} and {leaf.dtype}")
        if torch.count_nonzero(leaf):
            raise ContractError(f"the initial value of {name} is not zero")


@torch.no_grad()
def check_chunking(
    model: Streaming, x: Tensor, chunks: Sequence[int], tolerance: float = 1e-5
) -> float:
    """Check that cutting the input into ``chunks`` (repeated) does not change the output.

    Parameters
    ----------
    model, x
        The model and its input (streams, frames, ...).
    chunks
        Sizes in frames.
    tolerance
        Largest difference allowed, relative to the largest output.

    Returns
    -------
    float
        Largest difference found, relative to the largest output.

    Raises
    ------
    ContractError
        Outputs or final states differ, a state changed shape or was changed in place.
    """
    whole, final = model(x, model.initial_state(x.shape[0]))
    state, start = model.initial_state(x.shape[0]), 0
    parts: list[Tensor] = []
    while start < x.shape[1]:
        size = chunks[len(parts) % len(chunks)]
        before = {name: leaf.clone() for name, leaf in flatten(state).items()}
        y, following = model(x[:, start : start + size], state)
        _compare_states(before, flatten(state), 0.0, "was changed in place")
        state = following
        parts.append(y)
        start += size
    scale = max(float(whole.abs().max()), 1e-6)
    difference = float((torch.cat(parts, dim=1) - whole).abs().max()) / scale
    if not difference <= tolerance:
        raise ContractError(
            f"chunks of {list(chunks)} frames change the output by {difference:.1e}"
        )
    _compare_states(flatten(state), flatten(final), 10 * tolerance, "depends on the chunks")
    return difference


def check_causality(model: Streaming, x: Tensor, frame: int, lookahead: int) -> None:
    """Check that the gradient of output ``frame`` for future mixture frames is zero.

    Output ``frame`` belongs to mixture frame ``frame - lookahead``: it must depend on that frame
    and must not depend on mixture frames after ``frame``.
    """
    x = x.clone().requires_grad_()
    y, _ = model(x, model.initial_state(x.shape[0]))
    (gradient,) = torch.autograd.grad(y[:, frame].square().sum(), x)
    reach = gradient.flatten(2).abs().amax(dim=(0, 2))
    if torch.count_nonzero(reach[frame + 1 :]):
        late = int(torch.nonzero(reach)[-1]) - frame
        raise ContractError(f"output frame {frame} depends on {late} frames beyond the lookahead")
    if frame >= lookahead and not reach[frame - lookahead] > 0:
        raise ContractError(f"output frame {frame} does not depend on frame {frame - lookahead}")


@torch.no_grad()
def check_health(model: Streaming, shape: tuple[int, ...], frames: int = 400) -> None:
    """Check that outputs and states are finite for silence, noise, full scale and combinations.

    Parameters
    ----------
    model
        The model.
    shape
        Shape of one frame with channels: (channels, *frame_shape).
    frames
        Number of frames of each kind of input.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, frames, *shape, generator=generator)
    state: State = model.initial_state(1)
    for name, x in {
        "silence": torch.zeros_like(noise),
        "noise": noise,
        "full scale": 1000.0 * torch.sign(noise),
        "silence after full scale": torch.zeros_like(noise),
        "noise at -120 dB": 1e-6 * noise,
    }.items():
        y, state = model(x, state)
        leaves = {"the output": y, **flatten(state)}
        for leaf, value in leaves.items():
            if not torch.isfinite(value).all():
                raise ContractError(f"{leaf} becomes NaN or Inf for {name}")


def check_contract(model: Streaming, shape: tuple[int, ...], lookahead: int, seed: int = 0) -> None:
    """Run every check above on random frames of ``shape`` (channels included).

    Controls have their default, and random values once.
    """
    generator = torch.Generator().manual_seed(seed)
    frames = 3 * lookahead + 70
    x = torch.randn(2, frames, *shape, generator=generator)
    check_state(model)
    for chunks in ([1], [2, 5], [1, 7, 64], [frames - 1, 1]):
        check_chunking(model, x, chunks)
    if isinstance(model, Controlled):
        check_chunking(Bound(model, random_controls(model, len(x))), x, [1, 7, 64])
    check_causality(model, x, frame=frames - 20, lookahead=lookahead)
    check_health(model, shape)


def _compare_states(
    left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float, fault: str
) -> None:
    if left.keys() != right.keys():
        raise ContractError(f"the state's names change: {sorted(left.keys() ^ right.keys())}")
    for name, value in left.items():
        if value.shape != right[name].shape:
            raise ContractError(f"{name} changes its shape to {tuple(right[name].shape)}")
        scale = max(float(value.abs().max()), 1.0) if value.numel() else 1.0
        if value.numel() and not float((value - right[name]).abs().max()) <= tolerance * scale:
            raise ContractError(f"{name} {fault}")
