"""The two front ends in torch: the engine's analysis and synthesis over whole signals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.dsp.windows import pair
from rtsep.latency import Latency
from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec


class Frontend(nn.Module):
    """Frames, windows and transforms signals by ``spec``, and inverts by overlap-add.

    Frame ``m`` ends with sample ``(m + 1) * hop_length``. Analysis followed by synthesis delays the
    input by ``synthesis_length - hop_length`` samples, exactly like the engine.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        analysis, synthesis = pair(
            spec.window, spec.window_length, spec.hop_length, spec.synthesis_length
        )
        self.register_buffer("analysis", torch.from_numpy(analysis))
        self.register_buffer("synthesis", torch.from_numpy(synthesis))
        self.analysis: Tensor
        self.synthesis: Tensor

    def analyse(self, x: Tensor) -> Tensor:
        """Map samples (streams, n, channels) to (streams, n / hop, channels, *frame_shape).

        ``n`` is a multiple of the hop.
        """
        spec = self.spec
        x = F.pad(x.transpose(1, 2), (spec.window_length - spec.hop_length, 0))
        frames = x.unfold(-1, spec.window_length, spec.hop_length).transpose(1, 2) * self.analysis
        if spec.frontend == "waveform":
            return frames
        spectra = torch.fft.rfft(frames)
        return torch.stack([spectra.real, spectra.imag], dim=-2)

    def synthesise(self, frames: Tensor) -> Tensor:
        """Map (streams, m, sources, channels, ...) to (streams, m * hop, sources, channels)."""
        spec = self.spec
        if spec.frontend == "stft":
            frames = torch.fft.irfft(torch.complex(frames[..., 0, :], frames[..., 1, :]))
        frames = frames[..., -spec.synthesis_length :] * self.synthesis
        parts = -(-spec.synthesis_length // spec.hop_length)
        frames = F.pad(frames, (0, parts * spec.hop_length - spec.synthesis_length))
        count, late = frames.shape[1], frames.unflatten(-1, (parts, spec.hop_length)).unbind(-2)
        y: Tensor = late[0]
        for i in range(1, min(parts, count)):
            y = y + F.pad(late[i], (0, 0) * 3 + (i, -i))
        return y.permute(0, 1, 4, 2, 3).flatten(1, 2)


def of_spectra(model: str, spec: Spec) -> dict[str, int]:
    """Constructor arguments that networks over spectra take from their stream.

    Raises
    ------
    ValueError
        The stream's frames are no spectra; the message names the model.
    """
    if spec.frontend != "stft":
        raise ValueError(
            f"{model} works on spectra: frontend must be 'stft', not {spec.frontend!r}"
        )
    return {
        "bins": spec.window_length // 2 + 1,
        "sources": len(spec.sources),
        "channels": spec.channels,
        "lookahead": spec.lookahead,
    }


def separate(model: Streaming, frontend: Frontend, x: Tensor) -> Tensor:
    """Separate whole signals offline, latency removed.

    Parameters
    ----------
    model
        Model that works on the frames of ``frontend``.
    frontend
        Front end of the model's spec.
    x
        Mixtures (streams, samples, channels).

    Returns
    -------
    Tensor
        (streams, samples, sources, channels), aligned with ``x``.
    """
    spec = frontend.spec
    late = Latency.of(spec, spec.step_length).total
    samples = x.shape[1]
    x = F.pad(x, (0, 0, 0, late + -(samples + late) % spec.step_length))
    with x.device:
        state = model.initial_state(x.shape[0])
    frames, _ = model(frontend.analyse(x), state)
    # Autocast is off here: transforms and overlap-add need single precision.
    return frontend.synthesise(frames.float())[:, late : late + samples]
