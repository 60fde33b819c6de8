"""The spec of a stream: the figures that a bundle declares and the engine uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import SpecError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Frontend = Literal["stft", "waveform"]


@dataclass(frozen=True)
class Spec:
    """Sample rate, front end, windows and sources of a model's stream.

    Attributes
    ----------
    sample_rate
        Sample rate of the model, in Hz.
    channels
        Channels that the model processes jointly. If 1, each input channel is a separate stream.
    frontend
        ``"stft"``: frames are spectra; ``"waveform"``: frames are windowed samples.
    window
        Name of the window pair, see :func:`rtsep.dsp.windows.pair`.
    window_length, hop_length
        In samples.
    chunk
        Frames per call of the model.
    lookahead
        Frames the model waits for: output frame ``t`` belongs to mixture frame ``t - lookahead``.
    sources
        Names of the outputs, in order.
    synthesis_length
        Samples at the end of a frame that are overlap-added; 0 means ``window_length``. A shorter
        one lowers the latency at the same frequency resolution.
    """

    sample_rate: int
    channels: int
    frontend: Frontend
    window: str
    window_length: int
    hop_length: int
    chunk: int
    lookahead: int
    sources: tuple[str, ...]
    synthesis_length: int = 0

    def __post_init__(self) -> None:
        """Check that an engine can run these figures."""
        for name in ("sample_rate", "channels", "window_length", "hop_length", "chunk"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= 1 << 20:
                raise SpecError(f"{name} must be a whole number from 1 to {1 << 20}, not {value!r}")
        if not isinstance(self.lookahead, int) or not 0 <= self.lookahead <= 1 << 16:
            raise SpecError(f"lookahead must be 0 to {1 << 16} frames, not {self.lookahead!r}")
        if self.synthesis_length == 0:
            object.__setattr__(self, "synthesis_length", self.window_length)
        if not isinstance(self.synthesis_length, int):
            raise SpecError(f"synthesis_length must be a whole number: {self.synthesis_length!r}")
        if not self.hop_length <= self.synthesis_length <= self.window_length:
            raise SpecError(
                f"synthesis_length {self.synthesis_length} must lie between hop_length "
                f"{self.hop_length} and window_length {self.window_length}"
            )
        if self.frontend not in ("stft", "waveform"):
            raise SpecError(f"frontend must be 'stft' or 'waveform', not {self.frontend!r}")
        if self.frontend == "stft" and self.window_length % 2:
            raise SpecError(f"an stft window_length must be even, not {self.window_length}")
        if not self.sources or len(set(self.sources)) != len(self.sources):
            raise SpecError(f"sources must be distinct names, not {self.sources!r}")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one channel's frame: ``(2, bins)`` for spectra, else ``(window_length,)``.

        Spectra have a row of real parts and one of imaginary parts, because masks multiply whole
        rows several times faster than complex pairs.
        """
        if self.frontend == "stft":
            return (2, self.window_length // 2 + 1)
        return (self.window_length,)

    @property
    def step_length(self) -> int:
        """Samples per call of the model: ``chunk * hop_length``."""
        return self.chunk * self.hop_length

    def streams(self, channels: int) -> int:
        """Return the batch size of the model for ``channels`` audio channels.

        Raises
        ------
        SpecError
            The model processes another number of channels jointly.
        """
        if self.channels == 1:
            return channels
        if channels != self.channels:
            raise SpecError(f"the model separates {self.channels} channels jointly, not {channels}")
        return 1


class Step(Protocol):
    """One call of a model over fixed buffers: fill ``mixture``, call, read ``sources``.

    ``mixture`` is (streams, chunk, channels, *frame_shape) and ``sources`` is
    (streams, chunk, sources, channels, *frame_shape), both C-contiguous float32.
    """

    mixture: Float32
    sources: Float32

    def __call__(self) -> Any:
        """Advance the state by one chunk."""

    def reset(self, stream: int | None = None) -> None:
        """Set the state of one stream, or of all, to zeros."""


_FLOAT32 = np.dtype(np.float32)


def check_array(name: str, array: Float32, shape: tuple[int, ...]) -> None:
    """Check an array before compiled kernels read or write it.

    Raises
    ------
    SpecError
        The array is not C-contiguous float32 of ``shape``.
    """
    if array.shape != shape or array.dtype != _FLOAT32 or not array.flags.c_contiguous:
        raise SpecError(
            f"{name} must be C-contiguous float32 of shape {shape}, "
            f"not {array.dtype} {array.shape} with strides {array.strides}"
        )
