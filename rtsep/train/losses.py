"""Training losses over estimates and targets, both (streams, samples, sources, channels).

A recipe names one of `LOSSES`. Those take the model itself and run it, as some look inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rtsep.models.dilated import Dilated
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.streaming import Streaming


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
    level = _level(target)

    def spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
        s = _stft(x / level, window)
        magnitude = _magnitude(s)
        return magnitude**exponent, s * magnitude ** (exponent - 1)

    m, z = spectrum(estimate)
    target_m, target_z = spectrum(target)
    return (m - target_m).square().mean() + 0.3 * (z - target_z).abs().square().mean()


def dissimilarity(
    estimate: Tensor,
    target: Tensor,
    sources: Sequence[str],
    window: int = 1024,
    alpha: float = 0.001,
    beta: float = 0.01,
    beta_voc: float = 0.03,
) -> Tensor:
    """Be near to one's own target and, a little, far from those of the others.

    Squared distances of magnitude spectra ``|Y_i|`` of the estimates to ``|T_j|`` of the targets,
    weighted as by Chandna, Miron, Janer, Gomez, LVA/ICA 2017: 1 to their own target, ``-alpha`` to
    every other one, but ``-beta`` to that of "other", and ``-beta_voc`` from "vocals" to "other".
    As theirs, an estimate of "other" is judged by what the rest leave for it alone. Levels are
    normalised by the mixture's, and distances are means over bins, frames, channels and streams.

    Parameters
    ----------
    estimate, target
        (streams, samples, sources, channels).
    sources
        Their names. Without an "other", every estimate has its own target, and ``beta`` no effect.
    window
        Of the spectra, in samples; a quarter of it is the hop.
    """
    level = _level(target)
    estimates, targets = (_magnitude(_stft(x / level, window)) for x in (estimate, target))
    loss = estimates.new_zeros(())
    for i, mine in enumerate(sources):
        if mine == "other":
            continue
        for j, theirs in enumerate(sources):
            if theirs == mine:
                weight = 1.0
            elif theirs == "other":
                weight = -beta_voc if mine == "vocals" else -beta
            else:
                weight = -alpha
            loss = loss + weight * (estimates[:, i] - targets[:, j]).square().mean()
    return loss


def _level(target: Tensor) -> Tensor:
    """RMS of the mixture, (streams, 1, 1, channels)."""
    return target.sum(dim=2, keepdim=True).square().mean(dim=1, keepdim=True).sqrt() + 1e-5


def _stft(x: Tensor, window: int) -> Tensor:
    """Samples (streams, samples, sources, channels) to (streams, sources, channels, bins, m)."""
    flat = x.permute(0, 2, 3, 1)
    hann = torch.hann_window(window, device=x.device)
    spectra = torch.stft(flat.flatten(0, 2), window, window // 4, window=hann, return_complex=True)
    scaled: Tensor = spectra.unflatten(0, flat.shape[:3]) / window**0.5
    return scaled


def _magnitude(spectra: Tensor) -> Tensor:
    """Absolute value with a finite gradient at zero."""
    return torch.sqrt(spectra.real.square() + spectra.imag.square() + 1e-8)


Loss = Callable[[Streaming, Frontend, Tensor, Tensor], Tensor]
"""Of a model, its front end, mixtures (streams, samples, channels) and targets: what to make small.

A single number; the model is run in there.
"""


def _snr(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    estimate = separate(model, frontend, mixture)
    return negative_snr(estimate, target) + 20.0 * compressed_spectrum(estimate, target)


def _chandna(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    spec = frontend.spec
    estimate = separate(model, frontend, mixture)
    return dissimilarity(estimate, target, spec.sources, spec.window_length)


def _attractors(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    if not isinstance(model, Dilated):
        raise ValueError("loss 'attractors' is for model 'dilated'")
    targets = frontend.analyse(target.flatten(2)).unflatten(2, target.shape[2:])
    return model.loss(frontend.analyse(mixture), targets)


LOSSES: dict[str, Loss] = {"snr": _snr, "chandna": _chandna, "attractors": _attractors}
"""What a recipe can name."""


def named(name: str) -> Loss:
    """Look a loss up.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; there are: {', '.join(LOSSES)}")
    return LOSSES[name]
