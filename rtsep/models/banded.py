"""A network with weights shared over frequency: recurrent over time, then over bands.

It follows DPCRN (Le et al., Interspeech 2021), GTCRN (Rong et al., ICASSP 2024) and FastEnhancer
(Ahn et al., ICASSP 2026). Convolutions along frequency read the compressed complex spectrum, a
linear map gathers their positions into a few bands, and each block is a recurrent unit over time,
the same for every band, followed by one up and one down the bands. The way back, with skip
connections, ends in a complex mask for every source but the last, which gets the rest of the
mixture.

The state is one vector per band and block. What the network reads depends on the level unless its
input is divided by a running one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.frontend import of_spectra
from rtsep.nn.layers import Delay, Film, ForgettingMean
from rtsep.nn.masks import multiply
from rtsep.nn.recurrent import Recurrent, SharedGRU, both_ways
from rtsep.nn.streaming import State, Streaming, recall
from rtsep.spec import Spec

PAPER = (
    "after Le, Chen, Chen, Lu: DPCRN: Dual-Path Convolution Recurrent Network for Single Channel "
    "Speech Enhancement, Interspeech 2021"
)
SIZES: dict[str, dict[str, Any]] = {
    "base": {"features": 32, "bands": 24, "channels": 48, "blocks": 3},
    "small": {"features": 24, "bands": 24, "channels": 32, "blocks": 3},
    "large": {
        "features": 32,
        "bands": 24,
        "channels": 64,
        "blocks": 4,
        "context": 3,
        "taps": 3,
    },
    "music": {"features": 32, "bands": 48, "channels": 48, "blocks": 3, "warp": 1.5},
}
"""Sizes with 108,000, 53,000 and 233,000 weights for windows of 512 samples; the one for music has
132,000 for four stems and windows of 2,048."""

STRIDE = 4
"""Neighbouring bins per position."""
EPSILON = 1e-6
COMPRESSION = 0.3
"""Exponent of the magnitudes of the spectra that the network reads."""
USUAL, QUIETEST = 0.5, 0.15
"""Running level of compressed magnitudes to which the input is amplified, and the least one."""


def build(spec: Spec, **options: Any) -> Banded:
    """Build the network for the frames of ``spec``, with the options of `Banded`."""
    return Banded(*of_spectra("banded", spec).values(), **options)


class Banded(Streaming):
    """Maps spectra of the mixture to spectra of the sources.

    Shapes: (streams, frames, audio channels, 2, bins) ->
    (streams, frames, sources, audio channels, 2, bins). All audio channels are read jointly.

    Parameters
    ----------
    bins, sources, audio_channels, lookahead
        Sizes of the frames; ``bins`` is a multiple of `STRIDE`, plus one.
    features
        Features of the convolutions along frequency, at each position of `STRIDE` bins.
    bands, channels, blocks
        Number of bands, size of each one's vector (even), and number of blocks.
    context
        Number of frames, the newest and those before it, that the first convolution reads.
    warp
        Exponent of the positions of the bands: 1 starts with bands of the same width, more with
        narrower ones at low frequencies. Training can change it.
    taps
        Number of frames that are multiplied by masks of their own and added up: more than one
        filters each bin over time (Mack and Habets, "Deep Filtering for Signal Extraction and
        Reconstruction Using Complex Time-Frequency Filters", IEEE SPL 2020).
    level_frames
        Time constant in frames of the running level that the network's input is divided by; 0
        leaves its level as it is.

    Raises
    ------
    ValueError
        A size is invalid.
    """

    def __init__(
        self,
        bins: int,
        sources: int,
        audio_channels: int = 1,
        lookahead: int = 0,
        features: int = 24,
        bands: int = 24,
        channels: int = 32,
        blocks: int = 3,
        context: int = 1,
        taps: int = 1,
        warp: float = 1.0,
        level_frames: float = 0.0,
    ) -> None:
        if (bins - 1) % STRIDE:
            raise ValueError(f"the number of bins less one must be a multiple of {STRIDE}: {bins}")
        if channels % 2:
            raise ValueError(f"channels must be even, not {channels}")
        if not warp > 0:
            raise ValueError(f"warp must be more than 0, not {warp}")
        super().__init__()
        self.sources, self.audio_channels, self.taps = sources, audio_channels, taps
        positions = (bins - 1) // STRIDE
        self.delay = Delay(lookahead, (audio_channels, 2, bins))
        self.level = ForgettingMean(level_frames) if level_frames else None
        inputs = 3 * audio_channels * STRIDE
        self.recent = _Recent(context, (positions, inputs))
        self.filtered = _Recent(taps, (audio_channels, 2, bins))
        self.enter = _Convolution(context * inputs, features)
        self.encoder = _Convolution(features, features)
        at, band_at = _heights(positions, warp), _heights(bands)
        self.gather = _Regroup(at, band_at, features, channels)
        self.embedding = nn.Parameter(torch.zeros(bands, channels))
        self.blocks = nn.ModuleList(_Block(bands, channels) for _ in range(blocks))
        self.spread = _Regroup(band_at, at, channels, features)
        self.merge = nn.Linear(2 * features, features)
        self.decoder = _Convolution(features, features)
        self.join = nn.Linear(2 * features, features)
        self.masks = _Convolution(features, taps * (sources - 1) * audio_channels * 2 * STRIDE)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the hidden vectors and for the frames that are read again."""
        blocks = {str(i): block.initial_state(streams) for i, block in enumerate(self._each())}
        again = {name: layer.initial_state(streams) for name, layer in self._memories().items()}
        level = {} if self.level is None else {"level": self.level.initial_state(streams)}
        return {"blocks": blocks, **again, **level}

    def _memories(self) -> dict[str, Streaming]:
        return {"delay": self.delay, "recent": self.recent, "filtered": self.filtered}

    def _each(self) -> list[_Block]:
        return cast("list[_Block]", list(self.blocks))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; frame ``t`` of the output belongs to frame ``t - lookahead`` of the mixture."""
        return self.separated(x, state)

    def separated(
        self, x: Tensor, state: State, films: Sequence[Film] = ()
    ) -> tuple[Tensor, State]:
        """Separate, with a factor and an offset (streams, channels) before each block, if given."""
        given, level = self._features(x, state)
        features, recent = self.recent(given, state.get("recent", {}))
        first = F.relu(self.enter(features.transpose(2, 3).flatten(3)))
        second = first + F.relu(self.encoder(first))
        h = self.gather(second) + self.embedding
        after: State = {}
        for i, block in enumerate(self._each()):
            if films:
                factor, offset = films[i]
                h = h * factor[:, None, None] + offset[:, None, None]
            h, after[str(i)] = block(h, state["blocks"][str(i)])
        h = F.relu(self.merge(torch.cat([self.spread(h), second], dim=-1)))
        h = h + F.relu(self.decoder(h))
        h = F.relu(self.join(torch.cat([h, first], dim=-1)))
        late, delayed = self.delay(x, state.get("delay", {}))
        frames, filtered = self.filtered(late, state.get("filtered", {}))
        memories = {"delay": delayed, "recent": recent, "filtered": filtered, **level}
        return self._separate(self.masks(h), frames), {"blocks": after, **memories}

    def _features(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return compressed spectra and magnitudes, (streams, frames, positions, features).

        The exponent of the spectra is `COMPRESSION`, that of the magnitudes one more; the weights
        were trained with it. The highest bin is left out. The state is that of the level, if the
        input is divided by one.
        """
        x, after = x[..., :-1], dict[str, Any]()
        power = x.square().sum(dim=3, keepdim=True) + EPSILON
        if self.level is not None:
            loud = (power ** (COMPRESSION / 2)).mean(dim=(2, 3, 4))
            level, after["level"] = self.level(loud, state["level"])
            gain = (USUAL / level.clamp_min(QUIETEST)) ** (1 / COMPRESSION)
            gain = gain[:, :, None, None, None]
            x, power = x * gain, power * gain.square()
        scale = power ** ((COMPRESSION - 1) / 2)
        stacked = torch.cat([x * scale, power * scale], dim=3).flatten(2, 3)
        return stacked.unflatten(3, (-1, STRIDE)).transpose(2, 3).flatten(3), after

    def _separate(self, masks: Tensor, frames: Tensor) -> Tensor:
        masks = masks.unflatten(3, (self.sources - 1, self.taps, self.audio_channels, 2, STRIDE))
        masks = masks.permute(0, 1, 4, 3, 5, 6, 2, 7).flatten(6)
        masks = F.pad(masks, (0, 1))  # the highest bin goes to the last source
        y = multiply(masks, frames.unsqueeze(3)).sum(dim=2)
        return torch.cat([y, frames[:, :, :1] - y.sum(dim=2, keepdim=True)], dim=2)


class _Recent(Streaming):
    """The newest frames: (streams, frames, ...) -> (streams, frames, count, ...), newest first."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.count, self.shape = count, shape

    def initial_state(self, streams: int) -> State:
        past = self.count - 1
        return {"past": torch.zeros(streams, past, *self.shape)} if past else {}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if self.count == 1:
            return x.unsqueeze(2), {}
        older, past = recall(state["past"], x, range(1, self.count))
        return torch.stack([x, *older], dim=2), {"past": past}


class _Convolution(nn.Module):
    """Convolution of width 3 along positions: (..., positions, inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():  # products, which need no other order of axes
            wide, size = F.pad(x, (0, 0, 1, 1)), x.shape[:-1]
            below, own, above = self.conv.weight.squeeze(2).unbind(2)
            z = F.linear(wide[..., :-2, :].flatten(0, 2), below, self.conv.bias)
            z = torch.addmm(z, wide[..., 1:-1, :].flatten(0, 2), own.T)
            z = torch.addmm(z, wide[..., 2:, :].flatten(0, 2), above.T)
            return z.unflatten(0, size)  # type: ignore[no-any-return]
        y: Tensor = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y


def _heights(count: int, warp: float = 1.0) -> Tensor:
    """Return the places of positions or bands between the lowest, 0, and the highest, 1."""
    return ((torch.arange(count) + 0.5) / count) ** (1 / warp)


class _Regroup(nn.Module):
    """Linear map from positions to bands, or back, then one of the features of each.

    Each output starts as a weighted mean of the inputs of about its height.
    """

    def __init__(self, given: Tensor, made: Tensor, features: int, channels: int) -> None:
        super().__init__()
        inputs, outputs = len(given), len(made)
        distance = (given - made[:, None]).abs() * min(inputs, outputs)
        near = (1 - distance).clamp_min(0)
        near = near / near.sum(dim=1, keepdim=True).clamp_min(EPSILON)
        noise = torch.empty(outputs, inputs).uniform_(-1, 1)
        self.weight = nn.Parameter(near + 0.3 * inputs**-0.5 * noise)
        self.linear = nn.Linear(features, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.weight @ x)
        return y


class _Block(Streaming):
    """A recurrent unit over time for every band, then one over the bands; both residual."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        self.first = nn.LayerNorm(channels)
        self.gru = SharedGRU(bands, channels, channels)
        self.out = nn.Linear(channels, channels)
        self.second = nn.LayerNorm(channels)
        self.mixing = _Mixing(channels)

    def initial_state(self, streams: int) -> State:
        return self.gru.initial_state(streams)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, after = self.gru(self.first(x), state)
        x = x + self.out(h)
        return x + self.mixing(self.second(x)), after


class _Mixing(nn.Module):
    """A recurrent unit up and one down the bands of a frame, each with half of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = Recurrent(channels, channels // 2)
        self.down = Recurrent(channels, channels // 2, reverse=True)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        streams, frames = x.shape[:2]
        lanes = x.flatten(0, 1).transpose(0, 1).unsqueeze(0)  # bands take the place of time
        y = both_ways(self.up, self.down, lanes)
        z: Tensor = self.out(y.squeeze(0).transpose(0, 1)).unflatten(0, (streams, frames))
        return z
