"""Weights for a larger network from those of a smaller one, which it equals at first.

After Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR
2016: new units are heard by nobody at first, and new residual layers add nothing, so training goes
on from what the smaller network has learned. Only norms over more features than before change a
little.
"""

from __future__ import annotations

from torch import Tensor

GATES = {"gates.weight": 3, "gates.bias": 3, "recurrent": 3}
"""Ends of the names of weights whose rows are several equal parts, and their number."""
SILENT = ("out.weight", "out.bias")
"""Ends of the names of the last weights of a residual layer."""
MASKS = ("mask.weight", "mask.bias")
"""Ends of the names of weights whose rows are the masks of all sources."""
ENDS = ("masks.conv.weight", "masks.conv.bias")
"""Ends of the names of weights whose outputs leave the network: new ones start as zeros."""


def grown(
    given: dict[str, Tensor], fresh: dict[str, Tensor], before: int = 2, after: int = 2
) -> dict[str, Tensor]:
    """Fit the weights of a smaller network into a larger one.

    Parameters
    ----------
    given
        Weights of the smaller network.
    fresh
        Weights with which the larger one begins otherwise; they give the shapes, and new units
        keep theirs.
    before, after
        Numbers of sources. The masks of more sources start as those of fewer, repeated; of fewer
        sources, as those of the first ones.

    Raises
    ------
    ValueError
        The larger network is smaller somewhere, lacks a layer, or has more sources and other sizes.
    """
    lacking = given.keys() - fresh.keys()
    if lacking:
        raise ValueError(f"it has no {min(lacking)}")
    return {name: _grown(name, given.get(name), new, before, after) for name, new in fresh.items()}


def _grown(name: str, old: Tensor | None, fresh: Tensor, before: int, after: int) -> Tensor:
    new = fresh.clone()
    if old is None:
        return new.zero_() if name.endswith(SILENT) else new
    if old.shape == new.shape:
        return old
    if after < before and name.endswith(MASKS) and len(new) * before == len(old) * after:
        old = old[: len(new)]
    smaller = [n < m for n, m in zip(new.shape, old.shape, strict=False)]
    if old.ndim != new.ndim or any(smaller):
        raise ValueError(f"{name} is {tuple(new.shape)}, not {tuple(old.shape)}")
    if before != after and name.endswith(ENDS):
        times, rest = divmod(after - 1, before - 1)
        if rest or len(new) != times * len(old) or old.shape[1:] != new.shape[1:]:
            raise ValueError(f"{name} is {tuple(new.shape)}, {tuple(old.shape)} for fewer sources")
        return old.repeat(times, *[1] * (old.ndim - 1))
    parts = next((n for end, n in GATES.items() if name.endswith(end)), 1)
    if name.endswith(ENDS):
        new.zero_()
        parts = before - 1
    for mine, theirs in zip(new.chunk(parts), old.chunk(parts), strict=True):
        rows = mine[: len(theirs)]
        if old.ndim > 1:
            rows[:, theirs.shape[1] :] = 0.0  # what was there does not hear new inputs yet
            rows = rows[:, : theirs.shape[1]]
        rows.copy_(theirs)
    return new
