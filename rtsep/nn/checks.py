"""What every model must prove before it becomes a bundle: the contract, causality, good health."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rtsep.errors import ContractError
from rtsep.nn.streaming import State, Streaming, flatten


def check_state(model: Streaming, streams: int = 2) -> None:
    """State is a nested dict of float32 tensors, streams first, all zero at birth."""
    for name, leaf in flatten(model.initial_state(streams)).items():
        if leaf.shape[0] != streams or leaf.dtype != torch.float32:
            raise ContractError(f"{name} has shape {tuple(leaf.shape)} and {leaf.dtype}")
        if torch.count_nonzero(leaf):
            raise ContractError(f"{name} is not zero at birth")


@torch.no_grad()
def check_chunking(
    model: Streaming, x: Tensor, chunks: Sequence[int], tolerance: float = 1e-5
) -> float:
    """Cutting the input into ``chunks`` (repeated until it ends) changes nothing.

    Parameters
    ----------
    model, x
        ``x`` is (streams, frames, ...).
    chunks
        Sizes in frames.
    tolerance
        Largest difference allowed, relative to the largest output.

    Returns
    -------
    float
        Largest difference seen, relative to the largest output.

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
    """The gradient of output ``frame`` with regard to future mixture frames is exactly zero.

    Output ``frame`` belongs to mixture frame ``frame - lookahead``, so nothing after mixture frame
    ``frame`` itself may matter, and the mixture frame that is rebuilt must.
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
    """Silence gives silence-like finite frames; noise, full scale and what follows stay finite.

    Parameters
    ----------
    model
        The model.
    shape
        Of one frame, channels included: (channels, *frame_shape).
    frames
        Of each kind of input.
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
                raise ContractError(f"{name} makes {leaf} NaN or Inf")


def check_contract(model: Streaming, shape: tuple[int, ...], lookahead: int, seed: int = 0) -> None:
    """Run every check above on random frames of ``shape`` (channels included)."""
    generator = torch.Generator().manual_seed(seed)
    frames = 3 * lookahead + 70
    x = torch.randn(2, frames, *shape, generator=generator)
    check_state(model)
    for chunks in ([1], [2, 5], [1, 7, 64], [frames - 1, 1]):
        check_chunking(model, x, chunks)
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
