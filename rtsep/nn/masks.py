"""Separation of spectra by masks that a network computes from their magnitudes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Delay
from rtsep.nn.streaming import State, Streaming
from rtsep.spec import Spec

EPSILON = 1e-6
"""Added to powers, to keep roots and their gradients finite."""
COMPRESSION = 0.3
"""Exponent of the magnitudes that a network reads: it reduces 20 dB of level to 6 dB."""


def magnitude(x: Tensor, exponent: float = COMPRESSION) -> Tensor:
    """Return compressed magnitudes of all channels jointly, (streams, frames, bins).

    Parameters
    ----------
    x
        Spectra (streams, frames, channels, 2, bins).
    exponent
        Exponent of the magnitudes.
    """
    power = x.square().sum(dim=(2, 3)) / x.shape[2]
    return torch.pow(power + EPSILON, exponent / 2)


def compressed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return spectra (..., 2, bins) with compressed magnitudes, and their powers (..., 1, bins)."""
    power = x.square().sum(dim=-2, keepdim=True) + EPSILON
    return x * torch.pow(power, (COMPRESSION - 1) / 2), power


def shares_of(estimates: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a softmax over sources, as numerators (1, streams, sources, n) and their sum.

    In ONNX Runtime a softmax over an axis that is not the last takes five times as long, the tape
    has none, and pooling is the fastest maximum. The subtracted maximum has no influence on the
    result, hence no gradient; the largest numerator is 1, so the sum is at least 1.

    Parameters
    ----------
    estimates
        (streams, sources, n).
    """
    estimates = estimates[None]
    sources = estimates.shape[2]
    numerators = torch.exp(estimates - F.max_pool2d(estimates.detach(), (sources, 1)))
    return numerators, numerators.new_ones(1, sources) @ numerators


def multiply(masks: Tensor, x: Tensor) -> Tensor:
    """Multiply complex masks and spectra, both (..., 2, bins)."""
    real, imaginary = masks.split(1, dim=-2)
    turned = torch.cat([-x[..., 1:, :], x[..., :1, :]], dim=-2)
    y: Tensor = real * x + imaginary * turned
    return y


class Masked(Streaming):
    """Separates spectra by the masks of a network.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, sources, channels, 2, bins).
    All channels get the same masks, from their joint magnitude.

    Parameters
    ----------
    network
        Maps compressed magnitudes (streams, frames, bins) to masks (streams, frames, sources,
        bins).
    bins, channels
        Sizes of the spectra.
    lookahead
        Frames by which the mixture is delayed before it is masked.
    """

    def __init__(self, network: Streaming, bins: int, channels: int, lookahead: int) -> None:
        super().__init__()
        self.network = network
        self.delay = Delay(lookahead, (channels, 2, bins))

    def masks(self, x: Tensor) -> Tensor:
        """Return the masks of whole spectra, (streams, frames, sources, bins), aligned with them.

        The last ones see silence in place of the frames after the end.
        """
        ahead = F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.delay.frames))
        with x.device:
            state = self.network.initial_state(x.shape[0])
        masks: Tensor = self.network(magnitude(ahead), state)[0]
        return masks[:, self.delay.frames :]

    def initial_state(self, streams: int) -> State:
        """Return the network's initial state, and zeros for the delayed mixture."""
        return {
            "network": self.network.initial_state(streams),
            "delay": self.delay.initial_state(streams),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``."""
        masks, network = self.network(magnitude(x), state.get("network", {}))
        late, delay = self.delay(x, state.get("delay", {}))
        return masks[:, :, :, None, None] * late.unsqueeze(2), {"network": network, "delay": delay}


def masked(network: type[Streaming], name: str, spec: Spec, **options: object) -> Masked:
    """Build ``network(bins, sources, **options)`` and mask the spectra of ``spec`` with it.

    Raises
    ------
    ValueError
        The stream's frames are no spectra; the message names the model.
    """
    sizes = of_spectra(name, spec)
    made = network(sizes["bins"], sizes["sources"], **options)
    return Masked(made, sizes["bins"], sizes["channels"], sizes["lookahead"])
