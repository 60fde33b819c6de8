"""A U-Net for any stem, chosen by a control: Conditioned-U-Net.

G. Meseguer-Brocal, G. Peeters, "Conditioned-U-Net: Introducing a Control Mechanism in the U-Net for
Multiple Source Separations", ISMIR 2019.

Between batch norm and activation, each layer on the way down is scaled and shifted by a small
network of the control (FiLM: Perez et al., AAAI 2018; here one factor and offset per feature). The
control has a value for each stem: 1 and 0 as in the paper, or shares of several.

Causality: as in `rtsep.models.unet`, no frame is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rtsep.controls import ModelControl
from rtsep.models.unet import UNet
from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Delay, Film
from rtsep.nn.masks import magnitude
from rtsep.nn.streaming import Controlled, State
from rtsep.spec import Spec

PAPER = (
    "Meseguer-Brocal, Peeters: Conditioned-U-Net: Introducing a Control Mechanism in the U-Net "
    "for Multiple Source Separations, ISMIR 2019"
)
SIZES: dict[str, dict[str, Any]] = {
    "full": {"filters": 16, "levels": 6, "taps": 5, "hidden": (16, 128, 1024)},
    "small": {"filters": 6, "levels": 5, "taps": 3, "hidden": (16, 32)},
}
"""The network of the paper, and one for a laptop."""
STEMS = ("vocals", "drums", "bass", "other")


def build(spec: Spec, **options: Any) -> ConditionedUNet:
    """Build the network for the frames of ``spec``, with the options of `ConditionedUNet`.

    Raises
    ------
    ValueError
        There are not two sources: the chosen stems, and the rest of the mixture.
    """
    sizes: dict[str, Any] = of_spectra("conditionedunet", spec)
    if sizes.pop("sources") != 2:
        raise ValueError(
            f"conditionedunet has two sources, the chosen one and the rest, not {spec.sources}"
        )
    return ConditionedUNet(**sizes, **options)


class ConditionedUNet(Controlled):
    """Separates the stems of the control ``stem`` from the rest.

    Shapes: (streams, frames, channels, 2, bins) -> (streams, frames, 2, channels, 2, bins). All
    channels get the same masks, from their joint magnitude; both masks add up to 1.

    Parameters
    ----------
    bins, channels, lookahead
        Sizes of the spectra, and frames by which the mixture is delayed before it is masked.
    filters, levels, taps
        As in `rtsep.models.unet.UNet`.
    hidden
        Sizes of the layers of the network of the control.
    stems
        Labels of the control's values.

    Raises
    ------
    ValueError
        The bins cannot be halved in every layer.
    """

    def __init__(
        self,
        bins: int,
        channels: int,
        lookahead: int,
        filters: int = 16,
        levels: int = 6,
        taps: int = 5,
        hidden: Sequence[int] = (16, 128, 1024),
        stems: Sequence[str] = STEMS,
    ) -> None:
        super().__init__()
        self.controls = {
            "stem": ModelControl(
                meaning="stems in the first source, each from none to all of it",
                default=(1.0, *(0.0 for _ in stems[1:])),
                labels=tuple(stems),
            )
        }
        self.unet = UNet(bins, 1, filters, levels, taps)
        self.delay = Delay(lookahead, (channels, 2, bins))
        self.filters = [filters * 2**i for i in range(levels)]
        layers: list[nn.Module] = []
        inputs = len(stems)
        for size in hidden:
            layers += [nn.Linear(inputs, size), nn.ReLU()]
            inputs = size
        self.films = nn.Sequential(*layers, nn.Linear(inputs, 2 * sum(self.filters)))

    def initial_state(self, streams: int) -> State:
        """Return the state of the U-Net, and zeros for the delayed mixture."""
        return {
            "unet": self.unet.initial_state(streams),
            "delay": self.delay.initial_state(streams),
        }

    def forward(
        self, x: Tensor, state: State, control: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Separate; output frame ``t`` belongs to mixture frame ``t - lookahead``."""
        films = self._films(self.given(control, x)["stem"])
        mask, unet = self.unet(magnitude(x), state["unet"], films)
        late, delay = self.delay(x, state.get("delay", {}))
        chosen = mask[:, :, 0, None, None] * late
        return torch.stack([chosen, late - chosen], dim=2), {"unet": unet, "delay": delay}

    def _films(self, stem: Tensor) -> list[Film]:
        """Return factors and offsets of each layer; factors begin around 1."""
        factors, offsets = self.films(stem).chunk(2, dim=1)
        sizes = self.filters
        return list(zip((1 + factors).split(sizes, 1), offsets.split(sizes, 1), strict=True))
