"""Training losses over estimates and targets, both (streams, samples, sources, channels).

A recipe names one of `LOSSES`. They run the model themselves, because some use its inner results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rtsep.models.clustering import Clustering
from rtsep.models.dilated import Dilated
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.masks import Masked
from rtsep.nn.streaming import Streaming
from rtsep.train.adversarial import Adversarial

TINY = 1e-8
"""Added to powers, to keep logarithms and gradients finite."""


def negative_snr(estimate: Tensor, target: Tensor, floor: float = 1e-3) -> Tensor:
    """Mean negative SNR in dB, softly limited where the error is below ``floor`` x mixture power.

    The limit (Wisdom et al., "Unsupervised Sound Separation Using Mixture Invariant Training",
    2020) keeps easy and silent examples from dominating the gradient.
    """
    return _negative_snr(estimate, target, floor).mean()


def _negative_snr(estimate: Tensor, target: Tensor, floor: float = 1e-3) -> Tensor:
    """Return the negative SNR in dB, (streams, sources, channels)."""
    mixture = target.sum(dim=2, keepdim=True).square().sum(dim=1)
    error = (estimate - target).square().sum(dim=1)
    power = target.square().sum(dim=1)
    noise_db = 10 * torch.log10(error + floor * mixture + TINY)
    signal_db = 10 * torch.log10(power + floor * mixture + TINY)
    return noise_db - signal_db


def _orders(count: int, sources: Sequence[str]) -> list[list[int]]:
    """Return all orders of sources whose names differ only in a number; of all, if there are none.

    With "speaker1", "speaker2" and "noise", the speakers are exchangeable and the noise is not.
    """
    kinds = [name.rstrip("0123456789") for name in sources]
    if len(set(kinds)) == len(kinds):
        kinds = [""] * count
    every = permutations(range(count))
    return [list(order) for order in every if [kinds[i] for i in order] == kinds]


@torch.no_grad()
def _best_order(estimate: Tensor, target: Tensor, sources: Sequence[str]) -> Tensor:
    orders = torch.tensor(_orders(estimate.shape[2], sources), device=estimate.device)
    costs = [_negative_snr(estimate[:, :, order], target).mean(dim=(1, 2)) for order in orders]
    return orders[torch.stack(costs).argmin(dim=0)]


def matched(estimate: Tensor, target: Tensor, sources: Sequence[str] = ()) -> Tensor:
    """Put the estimates of each stream into the order that fits the targets best.

    The best order has the lowest negative SNR. A loss of the result is utterance-level permutation
    invariant training: Kolbaek et al., IEEE/ACM TASLP 2017. Only ``sources`` whose names differ in
    a number change places, unless there are none such.
    """
    order = _best_order(estimate, target, sources)
    return estimate.gather(2, order[:, None, :, None].expand_as(estimate))


def compressed_spectrum(
    estimate: Tensor, target: Tensor, window: int = 512, exponent: float = 0.3
) -> Tensor:
    """Squared error of power-compressed magnitudes and of the compressed complex spectra.

    After Braun and Tashev, "A consolidated view of loss functions for supervised deep
    learning-based speech enhancement", 2021; levels are normalised by the mixture's. The hop is
    half a window.
    """
    level = _level(target)

    def compressed(x: Tensor) -> tuple[Tensor, Tensor]:
        spectra = _spectra(x / level, window, window // 2)
        power = spectra.square().sum(dim=-1) + TINY
        magnitude = power ** (exponent / 2)
        return magnitude, spectra * (magnitude * power.rsqrt()).unsqueeze(-1)

    m, z = compressed(estimate)
    with torch.no_grad():
        target_m, target_z = compressed(target)
    complex_error = (z - target_z).square().sum(dim=-1)
    return (m - target_m).square().mean() + 0.3 * complex_error.mean()


def multi_resolution(
    estimate: Tensor, target: Tensor, windows: Sequence[int] = (512, 1024, 2048)
) -> Tensor:
    """Spectral convergence and distance of log magnitudes, means over several STFTs.

    After Yamamoto, Song and Kim, "Parallel WaveGAN", ICASSP 2020, equations 4 to 6, with hops of a
    quarter window. Levels are normalised by the mixture's. The convergence is computed over all
    sources of a stream together, so a silent source does not make it infinite.
    """
    level = _level(target)
    loss = estimate.new_zeros(())
    for window in windows:
        x, t = (_magnitudes(s / level, window) for s in (estimate, target))
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
    """Squared distance of each estimate to its target, minus a little of that to the others.

    Squared distances of magnitude spectra ``|Y_i|`` of the estimates to ``|T_j|`` of the targets,
    weighted as by Chandna, Miron, Janer, Gomez, LVA/ICA 2017: 1 to their own target, ``-alpha`` to
    every other one, but ``-beta`` to that of "other", and ``-beta_voc`` from "vocals" to "other".
    As in the paper, the estimate of "other" has no term of its own. Levels are
    normalised by the mixture's, and distances are means over bins, frames, channels and streams.

    Parameters
    ----------
    estimate, target
        (streams, samples, sources, channels).
    sources
        Names of the sources. Without "other", ``beta`` and ``beta_voc`` have no effect.
    window
        Window length of the spectra, in samples; the hop is a quarter of it.
    """
    level = _level(target)
    estimates, targets = (_magnitudes(x / level, window) for x in (estimate, target))
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


def binary_mask(masks: Tensor, mixture: Tensor, target: Tensor, frontend: Frontend) -> Tensor:
    """Cross-entropy of masks with the ideal binary masks, weighted by the mixture's magnitude.

    After Simpson, Roma and Plumbley, "Deep Karaoke", LVA/ICA 2015: in the ideal binary mask, each
    bin belongs to the source that is the loudest there. Silent bins have no weight.

    Parameters
    ----------
    masks
        (streams, frames, sources, bins), 0 to 1, aligned with the frames of ``mixture``.
    mixture, target
        (streams, samples, channels) and (streams, samples, sources, channels).
    frontend
        Front end of spectra.
    """
    analysed = frontend.analyse(target.flatten(2)).unflatten(2, target.shape[2:])
    powers = analysed.square().sum(dim=(3, 4))
    ideal = (powers == powers.amax(dim=2, keepdim=True)).float()
    weight = frontend.analyse(mixture).square().sum(dim=(2, 3)).sqrt().unsqueeze(2)
    entropy = F.binary_cross_entropy(masks.float().clamp(0, 1), ideal, reduction="none")
    return (weight * entropy).sum() / (weight.sum() * masks.shape[2] + TINY)


def _level(target: Tensor) -> Tensor:
    """Return the RMS of the mixture, (streams, 1, 1, channels)."""
    return target.sum(dim=2, keepdim=True).square().mean(dim=1, keepdim=True).sqrt() + 1e-5


def _spectra(x: Tensor, window: int, hop: int) -> Tensor:
    """STFT of (streams, samples, sources, channels): (streams, sources, channels, m, bins, 2).

    The last axis is real and imaginary part: gradients of complex arithmetic are slow.
    """
    flat = x.permute(0, 2, 3, 1).flatten(1, 2)
    frames = F.pad(flat, (window // 2, window // 2), "reflect").unfold(-1, window, hop)
    hann = torch.hann_window(window, device=x.device) / window**0.5
    spectra = torch.view_as_real(torch.fft.rfft(frames * hann))
    unfolded: Tensor = spectra.unflatten(1, x.shape[2:])
    return unfolded


def _magnitudes(x: Tensor, window: int) -> Tensor:
    """Return magnitude spectra with a finite gradient at zero; the hop is a quarter window."""
    return (_spectra(x, window, window // 4).square().sum(dim=-1) + TINY).sqrt()


COMPRESSED_MS = 32
"""Window of the loss "compressed"."""

EMBEDDINGS = 10.0
"""Weight of the attractors' own loss beside that of what comes out, which is in dB."""

Loss = Callable[[Streaming, Frontend, Tensor, Tensor], Tensor]
"""Runs a model with its front end on mixtures (streams, samples, channels); returns the loss, ().
"""


def _heard(estimate: Tensor, target: Tensor, weight: float) -> Tensor:
    loss = negative_snr(estimate, target)
    return loss + weight * compressed_spectrum(estimate, target) if weight else loss


def _snr(
    model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor, weight: float
) -> Tensor:
    return _heard(separate(model, frontend, mixture), target, weight)


def _pit(
    model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor, weight: float
) -> Tensor:
    estimate = matched(separate(model, frontend, mixture), target, frontend.spec.sources)
    return _heard(estimate, target, weight)


def _taught(
    model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor, weight: float
) -> Tensor:
    true, teacher = target.chunk(2, dim=2)
    estimate = separate(model, frontend, mixture)
    with torch.no_grad():
        errors = [_negative_snr(x, true).mean(dim=(1, 2)) for x in (teacher, estimate)]
        better = errors[0] < errors[1]
    loss = _heard(estimate, true, weight)
    if better.any():
        loss = loss + better.float().mean() * _heard(estimate[better], teacher[better], weight)
    return loss


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
    return _of_bins(model, frontend, mixture, target)


def _clustering(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    if not isinstance(model, Clustering):
        raise ValueError("loss 'clustering' is for model 'clustering'")
    return _of_bins(model, frontend, mixture, target)


def _of_bins(
    model: Dilated | Clustering, frontend: Frontend, mixture: Tensor, target: Tensor
) -> Tensor:
    targets = frontend.analyse(target.flatten(2)).unflatten(2, target.shape[2:])
    orders = _orders(target.shape[2], frontend.spec.sources)
    return model.loss(frontend.analyse(mixture), targets, orders)


def _tracked(
    model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor, weight: float
) -> Tensor:
    """Return the loss of what comes out as if live, and of the embeddings that it comes from.

    The attractors of a stream follow what they select, frame by frame, and are trained to.
    """
    if not isinstance(model, Dilated):
        raise ValueError("loss 'tracked' is for model 'dilated'")
    given: list[Tensor] = []
    hook = model.attractors.register_forward_pre_hook(lambda _, args: given.extend(args[:2]))
    with hook:
        estimate = separate(model, frontend, mixture)
    spec, (embeddings, loudness) = frontend.spec, given
    frames = embeddings.shape[1] - spec.lookahead
    padding = (0, 0, 0, frames * spec.hop_length - target.shape[1])
    spectra = frontend.analyse(F.pad(torch.cat([mixture, target.flatten(2)], dim=2), padding))
    count, bins = mixture.shape[2], embeddings.shape[2]
    mixtures, targets = spectra[..., :bins].tensor_split([count], dim=2)
    late = slice(spec.lookahead, None)
    clustering = model.attractors.loss(
        embeddings[:, late],
        loudness[:, late],
        mixtures,
        targets.unflatten(2, target.shape[2:]),
        _orders(target.shape[2], spec.sources),
    )
    estimate = matched(estimate, target, spec.sources)
    return _heard(estimate, target, weight) + EMBEDDINGS * clustering


def _binary(model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor) -> Tensor:
    if not isinstance(model, Masked):
        raise ValueError("loss 'binary' is for models that mask magnitudes")
    return binary_mask(model.masks(frontend.analyse(mixture)), mixture, target, frontend)


LOSSES: dict[str, Callable[..., Any]] = {
    "adversarial": Adversarial,
    "snr": _snr,
    "pit": _pit,
    "taught": _taught,
    "compressed": _compressed,
    "multi-resolution": _multi,
    "chandna": _chandna,
    "attractors": _attractors,
    "tracked": _tracked,
    "binary": _binary,
    "clustering": _clustering,
}
"""Losses by the name in a recipe; "snr", "pit" and "taught" also use `Schedule.compressed`.
"taught" is for targets of `rtsep.train.teacher.Taught`, and "adversarial" is a class, because each
training has a discriminator of its own."""


def named(name: str, compressed: float = 0.0) -> Loss:
    """Return a loss by its name.

    Parameters
    ----------
    name
        One of `LOSSES`.
    compressed
        Weight of :func:`compressed_spectrum` beside the SNR, for "snr", "pit" and "taught".

    Raises
    ------
    ValueError
        There is no loss of that name.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; there are: {', '.join(LOSSES)}")
    if name == "adversarial":
        return Adversarial()
    if name in ("snr", "pit", "taught", "tracked"):
        return partial(LOSSES[name], weight=compressed)
    loss: Loss = LOSSES[name]
    return loss
