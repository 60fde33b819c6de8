"""A network that keeps one voice, chosen by a control: target-speaker extraction.

The separator is that of `rtsep.models.banded` for spectra, and of `rtsep.models.convtasnet` for
samples; before each block, or repeat, its features are scaled and shifted by a linear map of the
control ``voice`` (FiLM: Perez et al., AAAI 2018), as in

K. Zmolikova, M. Delcroix, T. Ochiai, K. Kinoshita, J. Cernocky, D. Yu, "Neural Target Speech
Extraction: An Overview", IEEE Signal Processing Magazine 2023.

The control comes from a recording of the speaker, by `Enroller`: convolutions over time and
statistics over all frames, as in x-vectors (Snyder et al., ICASSP 2018). Both are trained together.
Without a recording the control is zero, and all voices are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.controls import ModelControl
from rtsep.models.banded import SIZES as BANDED
from rtsep.models.banded import Banded
from rtsep.models.convtasnet import MEMORY_S, ConvTasNet
from rtsep.models.convtasnet import SIZES as CONVTASNET
from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Film, full_precision
from rtsep.nn.masks import magnitude
from rtsep.nn.streaming import Enrolling, State
from rtsep.spec import Spec

PAPER = (
    "after Zmolikova, Delcroix, Ochiai, Kinoshita, Cernocky, Yu: Neural Target Speech Extraction: "
    "An Overview, IEEE Signal Processing Magazine 2023"
)
SIZES: dict[str, dict[str, Any]] = {
    **{name: BANDED[name] for name in ("large", "small")},
    "samples": CONVTASNET["half"] | {"blocks": 8, "norm": "frame", "units": 192},
}
"""Those of `rtsep.models.banded`, and one for samples."""

VOICE = "voice"
VALUES = 64
"""Values of the control."""
EPSILON = 1e-6
WINDOW_S = 0.032
"""Least length of the windows in which an enroller hears samples; they overlap by half."""


def build(spec: Spec, **options: Any) -> KeptSpectra | KeptSamples:
    """Build the network for the frames of ``spec``, with the options of its separator.

    Raises
    ------
    ValueError
        There are not two sources: the voice, and the rest of the mixture.
    """
    if len(spec.sources) != 2:
        raise ValueError(f"keptvoice has two sources, voice and rest, not {spec.sources}")
    if spec.frontend == "waveform":
        options.setdefault("memory", MEMORY_S * spec.sample_rate / spec.hop_length)
        return KeptSamples(spec, **options)
    sizes: dict[str, Any] = of_spectra("keptvoice", spec)
    return KeptSpectra(*sizes.values(), **options)


class _Kept(Enrolling):
    """What both networks have: the control, its enroller, and layers that it changes."""

    def _keep(self, enroller: nn.Module, features: int, layers: int) -> None:
        self.controls = {
            VOICE: ModelControl(
                meaning="the voice that is kept, made by `rtsep enroll`; zeros keep all voices",
                default=(0.0,) * VALUES,
                low=-1.0,
                high=1.0,
            )
        }
        self.enrolled, self.enroller, self.layers = VOICE, enroller, layers
        self.films = nn.Linear(VALUES, 2 * features * layers, bias=False)
        nn.init.zeros_(self.films.weight)

    def _films(self, x: Tensor, control: Mapping[str, Tensor] | None) -> list[Film]:
        changes = self.films(self.given(control, x)[VOICE]).unflatten(1, (self.layers, 2, -1))
        return [(1 + change[:, 0], change[:, 1]) for change in changes.unbind(1)]


class KeptSpectra(Banded, _Kept):
    """Separates the voice of the control from the rest, in spectra.

    Shapes and parameters are those of `Banded`.
    """

    def __init__(
        self, bins: int, sources: int, audio_channels: int = 1, lookahead: int = 0, **options: Any
    ) -> None:
        super().__init__(bins, sources, audio_channels, lookahead, **options)
        self._keep(Enroller(bins, VALUES), self.embedding.shape[1], len(self.blocks))

    def forward(
        self, x: Tensor, state: State, control: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Separate; frame ``t`` of the output belongs to frame ``t - lookahead`` of the mixture."""
        return self.separated(x, state, self._films(x, control))


class KeptSamples(ConvTasNet, _Kept):
    """Separates the voice of the control from the rest, in samples.

    Shapes and options are those of `ConvTasNet` for the frames of ``spec``.
    """

    def __init__(self, spec: Spec, **options: Any) -> None:
        shapes = spec.frame_shape, len(spec.sources), spec.channels
        super().__init__(*shapes, lookahead=spec.lookahead, **options)
        step = math.ceil(WINDOW_S * spec.sample_rate / (2 * spec.hop_length))
        windows = Windows(spec.hop_length, step)
        enroller = nn.Sequential(windows, Enroller(windows.bins, VALUES))
        self._keep(enroller, self.bottleneck.linear.out_features, len(self.blocks) // self.repeat)

    def forward(
        self, x: Tensor, state: State, control: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Separate; frame ``t`` of the output belongs to frame ``t - lookahead`` of the mixture."""
        return self.separated(x, state, self._films(x, control))


class Windows(nn.Module):
    """Maps frames of samples to spectra of Hann windows that overlap by half.

    Shapes: (streams, frames, channels, samples) -> (streams, frames // step, channels, 2, bins).

    Parameters
    ----------
    hop, step
        Samples from a frame to the next one, and frames from a window to the next one.
    """

    def __init__(self, hop: int, step: int) -> None:
        super().__init__()
        self.hop, self.step = hop, step
        length = 2 * hop * step
        self.bins = length // 2 + 1
        turns = torch.outer(torch.arange(length), torch.arange(self.bins)) % length
        angles = turns * (2 * math.pi / length)
        waves = torch.stack([angles.cos(), -angles.sin()]) * torch.hann_window(length)[:, None]
        self.register_buffer("transform", waves, persistent=False)
        self.transform: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the spectra."""
        count = x.shape[1] // self.step
        new = x[:, : count * self.step, :, -self.hop :].unflatten(1, (count, self.step))
        new = new.transpose(2, 3).flatten(3)
        before = F.pad(new, (0, 0, 0, 0, 1, 0))[:, :count]
        windows = torch.cat([before, new], dim=3)[:, :, :, None, None]
        with full_precision(x.device.type):
            return (windows @ self.transform).squeeze(4)


class Enroller(nn.Module):
    """Maps a recording of a speaker to values of the control, a vector of length 1.

    Shapes: spectra (streams, frames, channels, 2, bins) -> (streams, values). The level of the
    recording does not matter; for silence the values are zero.

    Parameters
    ----------
    bins, values, features
        Sizes of the spectra, of the result and of the layers.
    """

    def __init__(self, bins: int, values: int, features: int = 64) -> None:
        super().__init__()
        self.enter = nn.Linear(bins, features)
        self.norms = nn.ModuleList(nn.LayerNorm(features) for _ in range(4))
        self.layers = nn.ModuleList(
            nn.Conv1d(features, features, 3, padding=dilation, dilation=dilation)
            for dilation in (1, 2, 4)
        )
        self.weigh = nn.Linear(features, 1)
        self.leave = nn.Linear(2 * features, values)

    def forward(self, x: Tensor) -> Tensor:
        """Describe the speaker."""
        with full_precision(x.device.type):
            power = x.square().sum(dim=(2, 3, 4))
            level = power.mean(dim=1) / x.shape[-1]
            heard = (level > EPSILON**2).to(x.dtype)
            x = x * (level + EPSILON**2).rsqrt()[:, None, None, None, None]
            h = F.relu(self.norms[0](self.enter(magnitude(x))))
            for norm, layer in zip(list(self.norms)[1:], self.layers, strict=True):
                h = h + F.relu(norm(layer(h.transpose(1, 2)).transpose(1, 2)))
            weights = torch.softmax(self.weigh(h), dim=1)
            mean = (weights * h).sum(dim=1)
            spread = ((weights * h.square()).sum(dim=1) - mean.square()).clamp_min(EPSILON).sqrt()
            values = self.leave(torch.cat([mean, spread], dim=1))
            y: Tensor = F.normalize(values, dim=1) * heard[:, None]
        return y
