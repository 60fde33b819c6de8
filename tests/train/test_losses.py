"""Losses: each is its paper's formula, least for the target."""

from itertools import permutations

import numpy as np
import pytest
import torch

from rtsep.train.losses import (
    compressed_spectrum,
    dissimilarity,
    matched,
    multi_resolution,
    negative_snr,
)


def spectrum(x: np.ndarray, window: int, overlap: int = 4) -> np.ndarray:
    """Complex spectra (frames, bins), ``overlap`` windows over each sample."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(x, (window // 2, window // 2), mode="reflect")
    starts = range(0, len(padded) - window + 1, window // overlap)
    return np.array([np.fft.rfft(hann * padded[s : s + window]) for s in starts]) / window**0.5


def distance(x: np.ndarray, y: np.ndarray, window: int) -> float:
    """Mean squared difference of magnitude spectra, re a hop of a quarter window."""
    return float(np.mean((np.abs(spectrum(x, window)) - np.abs(spectrum(y, window))) ** 2))


def test_losses_are_least_for_the_target() -> None:
    target = torch.randn(2, 4000, 2, 1, generator=torch.Generator().manual_seed(0))
    worse = target.flip(2)
    for loss in (negative_snr, compressed_spectrum, multi_resolution):
        assert float(loss(target, target)) < float(loss(0.9 * target, target))
        assert float(loss(0.9 * target, target)) < float(loss(worse, target))
        assert torch.isfinite(loss(torch.zeros_like(target), torch.zeros_like(target)))
    assert float(negative_snr(torch.zeros_like(target), target)) == pytest.approx(0.0, abs=0.01)


def test_only_sources_that_differ_in_a_number_change_places() -> None:
    target = torch.randn(3, 400, 3, 1, generator=torch.Generator().manual_seed(0))
    names = ("speaker1", "speaker2", "noise")
    assert torch.equal(matched(target[:, :, [1, 0, 2]], target, names), target)
    moved = target[:, :, [2, 0, 1]]  # the noise is among the speakers, where it must not be sought
    assert torch.equal(matched(moved, target, names)[:, :, 2], moved[:, :, 2])


@pytest.mark.parametrize("count", [2, 3])
def test_matched_finds_the_order_of_each_stream(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(5, 400, count, 1, generator=generator)
    noisy = target + 0.3 * torch.randn(target.shape, generator=generator)
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(5)])
    shuffled = torch.stack([x[:, order] for x, order in zip(noisy, orders, strict=True)])
    assert torch.equal(matched(shuffled, target), noisy)
    # The least over all orders, by the formula written out.
    estimate = torch.randn(target.shape, generator=generator).requires_grad_()
    least = []
    for x, t in zip(estimate.detach(), target, strict=True):
        costs = [
            float(negative_snr(x[None, :, list(order)], t[None]))
            for order in permutations(range(count))
        ]
        least.append(min(costs))
    loss = negative_snr(matched(estimate, target), target)
    assert loss.item() == pytest.approx(np.mean(least), abs=1e-4)
    (gradient,) = torch.autograd.grad(loss, estimate)
    assert torch.isfinite(gradient).all() and torch.count_nonzero(gradient) == gradient.numel()


def test_negative_snr_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    target, estimate = rng.standard_normal((2, 3, 500, 2, 1))
    expected = []
    for x, t in zip(estimate, target, strict=True):
        floor = 1e-3 * np.sum(t.sum(axis=1) ** 2)
        for source in range(2):
            error = np.sum((x - t)[:, source] ** 2) + floor
            expected.append(10 * np.log10(error / (np.sum(t[:, source] ** 2) + floor)))
    loss = negative_snr(*(torch.from_numpy(x).float() for x in (estimate, target)))
    assert float(loss) == pytest.approx(np.mean(expected), abs=1e-4)


def test_compressed_spectrum_and_multi_resolution_are_their_formulas() -> None:
    rng = np.random.default_rng(0)
    target, estimate = rng.standard_normal((2, 2, 2000, 2, 1))
    compressed, resolutions = [], {128: [0.0, 0.0], 256: [0.0, 0.0]}
    for x, t in zip(estimate, target, strict=True):
        level = np.sqrt(np.mean(t.sum(axis=1) ** 2))
        pairs = [(x[:, i, 0] / level, t[:, i, 0] / level) for i in range(2)]
        for mine, theirs in pairs:
            z, w = spectrum(mine, 256, 2), spectrum(theirs, 256, 2)
            z, w = (s / np.abs(s) * np.abs(s) ** 0.3 for s in (z, w))
            magnitudes = np.mean((np.abs(z) - np.abs(w)) ** 2)
            compressed.append(magnitudes + 0.3 * np.mean(np.abs(z - w) ** 2))
        for window, sums in resolutions.items():
            m, n = (np.abs([spectrum(p[i], window) for p in pairs]) for i in range(2))
            sums[0] += np.sqrt(np.sum((m - n) ** 2) / np.sum(n**2)) / 2
            sums[1] += np.mean(np.abs(np.log(m) - np.log(n))) / 2
    tensors = [torch.from_numpy(x).float() for x in (estimate, target)]
    assert float(compressed_spectrum(*tensors, 256)) == pytest.approx(np.mean(compressed), rel=1e-3)
    expected = np.mean([sum(sums) for sums in resolutions.values()])
    assert float(multi_resolution(*tensors, (128, 256))) == pytest.approx(expected, rel=1e-3)


MUSIC = ("vocals", "drums", "bass", "other")


@pytest.mark.parametrize("names", [MUSIC, ("speech", "noise"), ("other", "bass", "vocals")])
def test_dissimilarity_is_the_papers_formula(names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal((2, 2000, len(names), 1))
    estimate = rng.standard_normal(target.shape)
    weights = {
        MUSIC: [
            [1, -0.1, -0.1, -0.3],
            [-0.1, 1, -0.1, -0.2],
            [-0.1, -0.1, 1, -0.2],
            [0, 0, 0, 0],
        ],
        ("speech", "noise"): [[1, -0.1], [-0.1, 1]],
        ("other", "bass", "vocals"): [[0, 0, 0], [-0.2, 1, -0.1], [-0.3, -0.1, 1]],
    }[names]
    expected = 0.0
    for x, t in zip(estimate, target, strict=True):
        level = np.sqrt(np.mean(t.sum(axis=1) ** 2))
        for i, row in enumerate(weights):
            for j, weight in enumerate(row):
                apart = distance(x[:, i, 0] / level, t[:, j, 0] / level, 256)
                expected += weight * apart / len(target)
    tensors = (torch.from_numpy(x).float() for x in (estimate, target))
    loss = dissimilarity(*tensors, names, 256, alpha=0.1, beta=0.2, beta_voc=0.3)
    assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_dissimilarity_knows_the_order_and_is_level_at_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 4000, 4, 1, generator=generator).requires_grad_()
    right = dissimilarity(target, target.detach(), MUSIC)
    assert right < dissimilarity(target.detach().flip(2), target.detach(), MUSIC)
    swapped = target.detach()[:, :, [1, 0, 2, 3]]
    assert right < dissimilarity(swapped, target.detach(), MUSIC)
    silent = torch.zeros(2, 4000, 4, 1)
    assert torch.isfinite(dissimilarity(silent, silent, MUSIC))
    # Without the terms to the others, the target is the minimum and the gradient there is zero.
    own = dissimilarity(target, target.detach(), MUSIC, alpha=0.0, beta=0.0, beta_voc=0.0)
    (gradient,) = torch.autograd.grad(own, target)
    assert not torch.count_nonzero(gradient)
    (gradient,) = torch.autograd.grad(right, target)
    assert torch.count_nonzero(gradient[:, :, :3])
    assert not torch.count_nonzero(gradient[:, :, 3])  # "other" is what is left
