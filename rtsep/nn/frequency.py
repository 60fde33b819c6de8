"""Convolutions over time and frequency that are strided along frequency only.

A stride along time would wait for frames; a stride along frequency waits for nothing. All layers
map (streams, frames, channels, bins) to the same axes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsep.nn.streaming import State, Streaming, extend


class Frequency(Streaming):
    """A convolution that reads the newest frame and ``taps - 1`` past ones.

    Parameters
    ----------
    inputs, outputs
        Channels.
    bins
        Bins of the input.
    taps, width
        Size of the kernel, in frames and in bins (odd).
    stride
        Bins of the input per bin of the output.
    """

    def __init__(
        self, inputs: int, outputs: int, bins: int, taps: int, width: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.past_shape = taps - 1, inputs, bins
        self.conv: nn.Module = self._convolution(inputs, outputs, (taps, width), stride)

    @staticmethod
    def _convolution(inputs: int, outputs: int, kernel: tuple[int, int], stride: int) -> nn.Module:
        return nn.Conv2d(inputs, outputs, kernel, (1, stride), (0, kernel[1] // 2))

    def initial_state(self, streams: int) -> State:
        """Return zeros for the last ``taps - 1`` input frames."""
        return {"past": torch.zeros(streams, *self.past_shape)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Convolve; output frame ``t`` reads input frames ``t - taps + 1 ... t``."""
        window, past = extend(state["past"], x)
        y: Tensor = self.conv(window.transpose(1, 2)).transpose(1, 2)
        return y, {"past": past}


class FrequencyTransposed(Frequency):
    """The transposed convolution, with ``stride`` bins of the output per bin of the input.

    Along time it is a plain convolution, with its taps in reverse.
    """

    @staticmethod
    def _convolution(inputs: int, outputs: int, kernel: tuple[int, int], stride: int) -> nn.Module:
        taps, width = kernel
        padding = taps - 1, width // 2
        return nn.ConvTranspose2d(inputs, outputs, kernel, (1, stride), padding, (0, stride - 1))
