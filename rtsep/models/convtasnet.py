"""Causal Conv-TasNet of Luo and Mesgarani.

Y. Luo, N. Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech
Separation", IEEE/ACM TASLP 2019, arXiv 1809.07454.

A learned filterbank maps short windows of samples to N features; a temporal convolutional network
of R times X blocks, whose depthwise convolutions are dilated by 1, 2, ... 2^(X-1) frames, computes
a sigmoid mask per source, after a lookahead if one is wanted; the masked features are mapped back
to samples. What the sources lack of the mixture is shared equally among them (S. Wisdom et al.,
"Differentiable Consistency Constraints for Improved Deep Speech Enhancement", ICASSP 2019), so they
add up to it. The engine does the overlap-add. For spectra, the filterbank is the Fourier transform:
the network reads logarithmic magnitudes and compressed spectra, and its masks are complex, with a
sum of one.

The cumulative layer norm of the paper uses mean and variance over all features and all past frames.
Here frames fade with a time constant far longer than an utterance, so the statistics stay bounded
and precise for hours. Optionally only the first norm is cumulative, and the others normalise single
frames, which trains a third faster and needs fewer nodes in the graph. Parameters without effect
are omitted: biases that another bias includes, and the last block's residual path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.layers import Delay, Film, initial_states
from rtsep.nn.masks import compressed, multiply
from rtsep.nn.norms import Averages, RunningNorms, frame_norm
from rtsep.nn.recurrent import Recurrent
from rtsep.nn.streaming import Line, State, Streaming, recall
from rtsep.spec import Spec

PAPER = (
    "Luo, Mesgarani: Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech "
    "Separation, IEEE/ACM TASLP 2019"
)
SIZES: dict[str, dict[str, Any]] = {
    "full": {"filters": 512, "bottleneck": 128, "hidden": 512, "skip": 128},
    "half": {"filters": 256, "bottleneck": 128, "hidden": 256, "blocks": 7, "repeats": 2},
    "small": {
        "filters": 128,
        "bottleneck": 64,
        "hidden": 128,
        "skip": 64,
        "blocks": 6,
        "repeats": 2,
    },
    "spectra": {
        "bottleneck": 128,
        "hidden": 256,
        "skip": 128,
        "blocks": 6,
        "repeats": 2,
        "norm": "frame",
    },
}
"""The causal network of the paper, smaller ones, and one for spectra that trains quickly."""

NORMS = ("cumulative", "frame")
"""Norms of the layers after the first one: over all past frames, or of single frames."""
MEMORY_S = 30.0
"""Default time constant of the normalisation: longer than an utterance, short enough to adapt to
another room."""

Norm = Callable[[Tensor], Tensor]


def build(spec: Spec, **options: Any) -> ConvTasNet:
    """Build the network for the frames of ``spec``, with the options of `ConvTasNet`."""
    options.setdefault("memory", MEMORY_S * spec.sample_rate / spec.hop_length)
    shapes = spec.frame_shape, len(spec.sources), spec.channels
    return ConvTasNet(*shapes, lookahead=spec.lookahead, **options)


class ConvTasNet(Streaming):
    """Maps windows or spectra of the mixture to those of the sources.

    Shapes: (streams, frames, channels, *frame_shape) ->
    (streams, frames, sources, channels, *frame_shape). All channels are read jointly.

    Parameters
    ----------
    frame_shape, channels, sources
        Shape of a frame, ``(L,)`` or ``(2, bins)``, and numbers of channels and sources.
    filters, bottleneck, hidden, skip, kernel, blocks, repeats
        N, B, H, Sc, P, X and R of the paper.
    memory
        Time constant of the normalisation's statistics, in frames.
    norm
        One of `NORMS`.
    floor
        Share of the mixture, 0 to 1, that is added to each source of spectra except the last one,
        to cover artefacts. Not in training, which would compensate for it.
    lookahead
        Number of later frames that the masks of a frame are made from.
    units, stride
        Size of the recurrent memory before each repeat but the first, 0 for none, and the number of
        frames that one of its steps takes.

    Raises
    ------
    ValueError
        The norm is unknown, or the share is out of range.
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        sources: int,
        channels: int = 1,
        filters: int = 512,
        bottleneck: int = 128,
        hidden: int = 512,
        skip: int = 128,
        kernel: int = 3,
        blocks: int = 8,
        repeats: int = 3,
        memory: float = 30000.0,
        norm: str = "cumulative",
        floor: float = 0.0,
        lookahead: int = 0,
        units: int = 0,
        stride: int = 8,
    ) -> None:
        if norm not in NORMS:
            raise ValueError(f"there is no norm {norm!r}; there are: {', '.join(NORMS)}")
        if not 0.0 <= floor < 1.0:
            raise ValueError(f"the floor must be a share from 0 to below 1, not {floor}")
        super().__init__()
        self.skip, self.norm = skip, norm
        self.averages = Averages(memory)
        self.delay = Delay(lookahead, (channels, *frame_shape))
        self.domain: _Filterbank | _Spectra
        if len(frame_shape) == 1:
            if floor:
                raise ValueError("a floor is for spectra")
            self.domain = _Filterbank(frame_shape[0], channels, sources, filters)
        else:
            self.domain = _Spectra(frame_shape[1], channels, sources, floor)
        self.bottleneck = _NormLinear(self.domain.features, bottleneck)
        self.blocks = nn.ModuleList()
        for i in range(blocks * repeats):
            last = i == blocks * repeats - 1
            block = _Block(bottleneck, hidden, skip, kernel, 2 ** (i % blocks), last)
            self.blocks.append(block)
        self.repeat = blocks
        count = repeats - 1 if units else 0
        self.memories = nn.ModuleList(_Memory(bottleneck, units, stride) for _ in range(count))
        self.activation = nn.PReLU()
        self.mask = nn.Linear(skip, self.domain.masks)

    @property
    def receptive_field(self) -> int:
        """Number of frames that the convolutions of an output read."""
        return 1 + sum(block.delays[0] for block in self._each())

    def initial_state(self, streams: int) -> State:
        """Return zeros for the convolutions' past inputs and the statistics of the norms."""
        return {
            "blocks": {
                str(i): {"past": torch.zeros(streams, block.delays[0], block.hidden)}
                for i, block in enumerate(self._each())
            },
            "weight": torch.zeros(streams, 1),
            "statistics": torch.zeros(streams, 1, 2 * self._statistics),
            "memories": initial_states(self.memories, streams),
            "delay": self.delay.initial_state(streams),
        }

    @property
    def _statistics(self) -> int:
        """Number of norms with state."""
        return 1 + 2 * len(self.blocks) * (self.norm == "cumulative")

    def _each(self) -> list[_Block]:
        return cast("list[_Block]", list(self.blocks))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Separate; frame ``t`` of the output belongs to frame ``t - lookahead`` of the mixture."""
        return self.separated(x, state)

    def separated(
        self, x: Tensor, state: State, films: Sequence[Film] = ()
    ) -> tuple[Tensor, State]:
        """Separate, with factors and offsets (streams, bottleneck) before each repeat, if given."""
        frames = x.shape[1]
        averages, weight = self.averages(frames, state["weight"])
        running = RunningNorms(state["statistics"], averages)
        norm = running if self.norm == "cumulative" else frame_norm
        features = self.domain(x)
        h = self.bottleneck(running(features).flatten(0, 1))
        h = F.pad(h, (0, self.skip))  # the sum of the skip paths is joined to the residual path
        pasts: State = {}
        known: State = {}
        for i, block in enumerate(self._each()):
            repeat, first = divmod(i, self.repeat)
            if self.memories and repeat and not first:
                memory, name = self.memories[repeat - 1], str(repeat - 1)
                h = h.unflatten(0, (-1, frames))
                h, known[name] = memory(h, state["memories"][name])
                h = h.flatten(0, 1)
            if films and not first:
                h = self._changed(h, frames, *films[repeat])
            h, past = block(h, frames, state["blocks"][str(i)]["past"], norm)
            pasts[str(i)] = {"past": past}
        masks = self.mask(self.activation(h)).unflatten(0, (-1, frames))
        statistics = torch.cat(running.after, dim=2)[:, -1:]
        x, delayed = self.delay(x, state.get("delay", {}))
        if self.delay.frames:
            features = self.domain(x)  # again, which is less than to keep them
        y = self.domain.separate(masks, x, features)
        norms = {"weight": weight, "statistics": statistics}
        return y, {"blocks": pasts, **norms, "memories": known, "delay": delayed}

    def _changed(self, h: Tensor, frames: int, factor: Tensor, offset: Tensor) -> Tensor:
        """Scale and shift the features of the residual path, and leave those of the skip path."""
        # Padded with zeros, not with factors of one, which would keep the graph off the tape.
        change = F.pad(torch.stack([factor - 1, offset], dim=1), (0, self.skip))
        changed: Tensor = h.unflatten(0, (-1, frames)) * (1 + change[:, :1]) + change[:, 1:]
        return changed.flatten(0, 1)


class _Memory(Streaming):
    """Adds to the first features of each frame what a recurrent unit knows of the stream so far.

    Shapes: (streams, frames, at least `features`) -> the same. A step takes ``stride`` frames, so
    the unit remembers for longer; that many sequences interleave, so it answers for every frame.
    """

    def __init__(self, features: int, units: int, stride: int) -> None:
        super().__init__()
        self.features, self.stride = features, stride
        self.norm = nn.LayerNorm(features)
        self.unit = Recurrent(features, units)
        self.out = nn.Linear(units, features)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the hidden vectors of the last ``stride`` frames."""
        return {"past": torch.zeros(streams, self.stride, self.unit.hidden)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Add the memory to the frames of ``x``."""
        frames = x.shape[1]
        lanes = min(frames, self.stride)
        given = self.norm(x[..., : self.features])
        given = F.pad(given, (0, 0, 0, -frames % lanes)).unflatten(1, (-1, lanes))
        y = self.unit(given, state["past"][:, :lanes]).flatten(1, 2)[:, :frames]
        past = torch.cat([state["past"], y], dim=1)[:, -self.stride :]
        return x + F.pad(self.out(y), (0, x.shape[2] - self.features)), {"past": past.float()}


class _Filterbank(nn.Module):
    """The linear encoder and decoder of the paper, and its sigmoid masks."""

    def __init__(self, window_length: int, channels: int, sources: int, filters: int) -> None:
        super().__init__()
        self.channels, self.sources = channels, sources
        self.features, self.masks = filters, sources * filters
        self.encoder = nn.Linear(channels * window_length, filters, bias=False)
        self.decoder = nn.Linear(filters, channels * window_length, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.encoder(x.flatten(2))
        return y

    def separate(self, masks: Tensor, x: Tensor, features: Tensor) -> Tensor:
        masks = torch.sigmoid(masks).unflatten(2, (self.sources, -1))
        y: Tensor = self.decoder(masks * features.unsqueeze(2)).unflatten(3, (self.channels, -1))
        return y + (x.unsqueeze(2) - y.sum(dim=2, keepdim=True)) / self.sources


class _Spectra(nn.Module):
    """Features of spectra: log magnitudes and compressed spectra; and complex masks per channel.

    The last source is the rest of the mixture.
    """

    def __init__(self, bins: int, channels: int, sources: int, floor: float) -> None:
        super().__init__()
        self.channels, self.sources, self.floor = channels, sources, floor
        self.features, self.masks = 3 * channels * bins, 2 * (sources - 1) * channels * bins

    def forward(self, x: Tensor) -> Tensor:
        small, power = compressed(x)
        return torch.cat([power.log(), small], dim=3).flatten(2)

    def separate(self, masks: Tensor, x: Tensor, _: Tensor) -> Tensor:
        mask = masks.unflatten(2, (self.sources - 1, self.channels, 2, -1))
        x = x.unsqueeze(2)
        y = multiply(mask, x)
        if self.floor and not self.training:
            y = y + self.floor * (x - y)
        return torch.cat([y, x - y.sum(dim=2, keepdim=True)], dim=2)


class _Block(nn.Module):
    """One block of the temporal convolutional network.

    Shapes: (streams * frames, bottleneck + skip) -> the same; the last block returns (.., skip).
    """

    def __init__(
        self, bottleneck: int, hidden: int, skip: int, kernel: int, dilation: int, last: bool
    ) -> None:
        super().__init__()
        self.bottleneck, self.hidden, self.last = bottleneck, hidden, last
        self.delays = [dilation * k for k in range(kernel - 1, 0, -1)]
        self.up = nn.Linear(bottleneck, hidden)
        self.up_activation = nn.PReLU()
        self.depthwise = _NormDepthwise(hidden, kernel)
        self.activation = nn.PReLU()
        self.down = _NormLinear(hidden, skip if last else bottleneck + skip, bias=last)

    def forward(
        self, x: Tensor, frames: int, past: Tensor | Line, norm: Norm
    ) -> tuple[Tensor, Tensor]:
        """Return the output and the next past."""
        h = self.up_activation(self.up(x[:, : self.bottleneck])).unflatten(0, (-1, frames))
        h = norm(h)
        late, past = recall(past, h, self.delays)
        h = norm(self.activation(self.depthwise([*late, h])))
        if self.last:
            x = x[:, self.bottleneck :]
        return self.down(h.flatten(0, 1), x), past


class _NormLinear(nn.Module):
    """Gain and bias of a norm and the linear layer after it, as one matrix product.

    If another tensor is given, it is added to the result.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(inputs))
        self.shift = nn.Parameter(torch.zeros(inputs))
        self.linear = nn.Linear(inputs, outputs, bias)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        bias = self.linear.weight @ self.shift
        if self.linear.bias is not None:
            bias = bias + self.linear.bias
        if other is not None:
            bias = bias + other
        return torch.addmm(bias, x, (self.linear.weight * self.gain).T)


class _NormDepthwise(nn.Module):
    """Gain and bias of a norm and the depthwise convolution after it, over delayed frames.

    Before the start of the stream the convolution reads the norm's bias, not zeros.
    """

    def __init__(self, features: int, kernel: int) -> None:
        super().__init__()
        bound = kernel**-0.5
        self.gain = nn.Parameter(torch.ones(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.weight = nn.Parameter(torch.empty(kernel, features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, taps: list[Tensor]) -> Tensor:
        y = self.bias + self.shift * self.weight.sum(dim=0)
        for tap, weight in zip(taps, self.weight * self.gain, strict=True):
            y = y + weight * tap
        return y
