"""Layer norms over single frames, and over all frames that a stream has had so far."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.layers import full_precision

EPSILON = 1e-6


def frame_norm(x: Tensor) -> Tensor:
    """Normalise over the features of each frame, (streams, frames, features)."""
    return F.layer_norm(x, x.shape[2:], eps=EPSILON)


class Averages(nn.Module):
    """Weights of running means of frames.

    ``mean[t] = sum_k a^(t-k) x[k] / sum_k a^(t-k)`` over all frames ``k`` up to ``t``; while the
    stream is shorter than the time constant, this is about the mean of all frames. The state is the
    sum of the weights of past frames, which is bounded.
    """

    BLOCK = 512
    """Frames per matrix."""

    def __init__(self, memory: float) -> None:
        super().__init__()
        powers = torch.exp(-torch.arange(self.BLOCK + 1, dtype=torch.float64) / memory).float()
        self.register_buffer("powers", powers, persistent=False)
        self.powers: Tensor

    def forward(self, frames: int, weight: Tensor) -> tuple[list[Tensor], Tensor]:
        """Compute the matrices for the next ``frames`` frames, and the next weight.

        Each is (streams, n, n) and maps the deviations of ``n`` frames from the last mean to the
        change of the mean up to each frame, so rounding errors do not accumulate.
        """
        matrices = []
        for start in range(0, frames, self.BLOCK):
            n = min(self.BLOCK, frames - start)
            t = torch.arange(n, device=weight.device)
            decay = self.powers[(t[:, None] - t).clamp_min(0)].tril()
            past = self.powers[1 : n + 1] * weight
            total = past + decay.sum(dim=1)
            matrices.append(decay / total.unsqueeze(2))
            weight = total[:, -1:]
        return matrices, weight


def cumulative_norm(x: Tensor, statistics: Tensor, averages: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Normalise by mean and deviation over all features and all past frames.

    Parameters
    ----------
    x
        (streams, frames, features).
    statistics
        Mean and mean square of the past, (streams, 1, 2).
    averages
        Matrices of :class:`Averages`.

    Returns
    -------
    (Tensor, Tensor)
        Normalised ``x``, and the statistics up to each frame, (streams, frames, 2).
    """
    with full_precision(x.device.type):  # because a small difference of large numbers follows
        full = x.float()
        now = torch.cat([f.mean(dim=2, keepdim=True) for f in (full, full * full)], dim=2)
        parts, start = [], 0
        for matrix in averages:
            part = now[:, start : start + matrix.shape[1]] if len(averages) > 1 else now
            parts.append(statistics + matrix @ (part - statistics))
            start += part.shape[1]
            statistics = parts[-1][:, -1:]
        running = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        mean, square = running.split(1, dim=2)
        scale = 1 / (square - mean * mean).clamp_min(EPSILON).sqrt()
        return ((full - mean) * scale).to(x.dtype), running


class RunningNorms:
    """The cumulative norms of one call, in order.

    Parameters
    ----------
    statistics
        Of the past frames, for each norm: (streams, 1, 2 * norms). What follows is in ``after``.
    averages
        Matrices of :class:`Averages`.
    """

    def __init__(self, statistics: Tensor, averages: list[Tensor]) -> None:
        self.before = list(statistics.split(2, dim=2))
        self.averages = averages
        self.after: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise ``x``, (streams, frames, features), with the next statistics."""
        x, statistics = cumulative_norm(x, self.before[len(self.after)], self.averages)
        self.after.append(statistics)
        return x
