"""Training losses over estimates and targets, both (streams, samples, sources, channels).

A recipe names one of `LOSSES`. Those take the model itself and run it, as some look inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

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
    return _negative_snr(estimate, target, floor).mean()


def _negative_snr(estimate: Tensor, target: Tensor, floor: float = 1e-3) -> Tensor:
    """In dB, (streams, sources, channels)."""
    mixture = target.sum(dim=2, keepdim=True).square().sum(dim=1)
    error = (estimate - target).square().sum(dim=1)
    power = target.square().sum(dim=1)
    tiny = 1e-8
    noise_db = 10 * torch.log10(error + floor * mixture + tiny)
    signal_db = 10 * torch.log10(power + floor * mixture + tiny)
    return noise_db - signal_db


@torch.no_grad()
def _best_order(estimate: Tensor, target: Tensor) -> Tensor:
    orders = torch.tensor([*permutations(range(estimate.shape[2]))], device=estimate.device)
    costs = [_negative_snr(estimate[:, :, order], target).mean(dim=(1, 2)) for order in orders]
    return orders[torch.stack(costs).argmin(dim=0)]


def matched(estimate: Tensor, target: Tensor) -> Tensor:
    """Put the estimates of each stream into the order that fits the targets best.

    The order is that of the least negative SNR. A loss of what this returns is utterance-level
    permutation invariant training: Kolbaek et al., IEEE/ACM TASLP 2017.
    """
    order = _best_order(estimate, target)
    return estimate.gather(2, order[:, None, :, None].expand_as(estimate))


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


def multi_resolution(
    estimate: Tensor, target: Tensor, windows: Sequence[int] = (512, 1024, 2048)
) -> Tensor:
    """Spectral convergence and distance of log magnitudes, means over several STFTs.

    After Yamamoto, Song and Kim, "Parallel WaveGAN", ICASSP 2020, equations 4 to 6, with hops of a
    quarter window. Levels are normalised by the mixture's, and the convergence is that of all
    sources of a stream together, so that a silent source has no infinite one.
    """
    level = _level(target)
    loss = estimate.new_zeros(())
    for window in windows:
        x, t = (_magnitude(_stft(s / level, window)) for s in (estimate, target))
        size = t.square().sum(dim=(1, 2, 3, 4)).sqrt()
        convergence = ((x - t).square().sum(dim=(1, 2, 3, 4)) + 1e-8).sqrt() / size
        loss = loss + convergence.mean() + (x.log() - t.log()).abs().mean()
    return loss / len(windows)


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


COMPRESSED_MS = 32
"""Window of the loss "compressed"."""

Loss = Callable[[Streaming, Frontend, Tensor, Tensor], Tensor]
"""Of a model, its front end, mixtures (streams, samples, channels) and targets: what to make small.

A single number; the model is run in there.
"""


def _snr(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    estimate = separate(model, frontend, mixture)
    return negative_snr(estimate, target) + 20.0 * compressed_spectrum(estimate, target)


def _pit(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    estimate = matched(separate(model, frontend, mixture), target)
    return negative_snr(estimate, target) + 20.0 * compressed_spectrum(estimate, target)


def _compressed(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    window = frontend.spec.sample_rate * COMPRESSED_MS // 2000 * 2  # even
    return compressed_spectrum(separate(model, frontend, mixture), target, window)


def _multi(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    return multi_resolution(separate(model, frontend, mixture), target)


def _chandna(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    spec = frontend.spec
    estimate = separate(model, frontend, mixture)
    return dissimilarity(estimate, target, spec.sources, spec.window_length)


def _attractors(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    if not isinstance(model, Dilated):
        raise ValueError("loss 'attractors' is for model 'dilated'")
    targets = frontend.analyse(target.flatten(2)).unflatten(2, target.shape[2:])
    return model.loss(frontend.analyse(mixture), targets)


LOSSES: dict[str, Loss] = {
    "snr": _snr,
    "pit": _pit,
    "compressed": _compressed,
    "multi-resolution": _multi,
    "chandna": _chandna,
    "attractors": _attractors,
}
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
