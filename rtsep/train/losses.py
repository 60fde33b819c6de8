"""Training losses over estimates and targets, both (streams, samples, sources, channels)."""

from __future__ import annotations

import torch
from torch import Tensor


def negative_snr(estimate: Tensor, target: Tensor, floor: float = 1e-3) -> Tensor:
    """Mean negative SNR in dB, softly limited where the error is below ``floor`` x mixture power.

    The limit (Wisdom et al., "Unsupervised Sound Separation Using Mixture Invariant Training",
    2020) keeps easy and silent examples from taking over the gradient.
    """
    mixture = target.sum(dim=2, keepdim=True).square().sum(dim=1, keepdim=True)
    error = (estimate - target).square().sum(dim=1, keepdim=True)
    power = target.square().sum(dim=1, keepdim=True)
    tiny = 1e-8
    noise_db = 10 * torch.log10(error + floor * mixture + tiny)
    signal_db = 10 * torch.log10(power + floor * mixture + tiny)
    return (noise_db - signal_db).mean()


def compressed_spectrum(
    estimate: Tensor, target: Tensor, window: int = 512, exponent: float = 0.3
) -> Tensor:
    """Squared error of power-compressed magnitudes and of the compressed complex spectra.

    After Braun and Tashev, "A consolidated view of loss functions for supervised deep
    learning-based speech enhancement", 2021; levels are normalised by the mixture's.
    """
    level = target.sum(dim=2, keepdim=True).square().mean(dim=1, keepdim=True).sqrt() + 1e-5

    def spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
        flat = (x / level).transpose(1, -1).flatten(0, -2)
        hann = torch.hann_window(window, device=x.device)
        s = torch.stft(flat, window, window // 4, window=hann, return_complex=True) / window**0.5
        magnitude = (s.real.square() + s.imag.square() + 1e-8).sqrt()
        return magnitude**exponent, s * magnitude ** (exponent - 1)

    m, z = spectrum(estimate)
    target_m, target_z = spectrum(target)
    return (m - target_m).square().mean() + 0.3 * (z - target_z).abs().square().mean()
