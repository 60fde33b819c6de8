"""Decoders and their fit: the gradient, the update, and the graph that does it live."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rtsep.errors import LearnedError
from rtsep.learned import nmf
from rtsep.learned.decoder import (
    EPSILON,
    Decoder,
    Penalty,
    fit,
    fold,
    improve,
    masks,
    start,
    unfold,
)
from rtsep.learned.live import Noise, Rest, bundle
from rtsep.runtime.model_step import make_step
from rtsep.spec import Float32, Step
from tests.support.learned import BINS, HOP, RATE, decoder, source

KINDS = ("nmf", "cnmf", "nae", "nae-deep", "ccae")


def divergence(x: Float32, decoders: Sequence[Decoder], activations: Sequence[Float32]) -> float:
    v = EPSILON + sum(
        d.explain(h)[0].astype(np.float64) for d, h in zip(decoders, activations, strict=True)
    )
    return float(np.sum(x * np.log((x + 1e-30) / v) - x + v))


def spectra(frames: int, seed: int = 0) -> Float32:
    """(frames, 2, bins) of noise whose colour changes."""
    rng = np.random.default_rng(seed)
    colour = rng.gamma(0.3, 1.0, (frames, 1, BINS))
    return (colour * rng.standard_normal((frames, 2, BINS))).astype(np.float32)


def test_fold_is_the_adjoint_of_unfold() -> None:
    rng = np.random.default_rng(0)
    for taps in (1, 2, 5):
        h, u = rng.standard_normal((9 + taps - 1, 3)), rng.standard_normal((9, 3 * taps))
        assert np.isclose(np.sum(unfold(h, taps) * u), np.sum(h * fold(u, taps)))
    np.testing.assert_array_equal(unfold(np.arange(4.0)[:, None], 2), [[1, 0], [2, 1], [3, 2]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_is_the_gradient(kind: str) -> None:
    """Positive minus negative part, against a difference quotient in double precision."""
    rng = np.random.default_rng(1)
    single = decoder(kind)
    d = Decoder(
        tuple(m.astype(np.float64) for m in single.matrices),  # type: ignore[misc]
        *(single.taps, single.linear, single.scale, single.usual),
    )
    x = rng.uniform(0.1, 1, (6, BINS))
    h = rng.uniform(0.5, 1.5, (6 + d.taps - 1, d.rank))
    y, slopes = d.explain(h)
    gain, loss = d.trace(x / (y + EPSILON), slopes)
    assert np.min(gain) >= 0 and np.min(loss) >= 0
    for row, atom in ((0, 0), (3, 2), (len(h) - 1, 4)):
        moved = [h.copy(), h.copy()]
        for sign, other in zip((-1, 1), moved, strict=True):
            other[row, atom] += sign * 1e-5
        quotient = (divergence(x, [d], [moved[1]]) - divergence(x, [d], [moved[0]])) / 2e-5
        assert np.isclose((loss - gain)[row, atom], quotient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kinds", [("nmf", "nmf"), ("cnmf", "nmf"), ("nae", "nae-deep"), ("ccae",)])
def test_updates_explain_better_and_better(kinds: tuple[str, ...]) -> None:
    decoders = [decoder(kind, seed=i) for i, kind in enumerate(kinds)]
    x = np.hypot(*spectra(30).swapaxes(0, 1))
    level = x.sum(axis=1)
    activations = [np.pad(start(level, d, len(kinds)), ((d.taps - 1, 0), (0, 0))) for d in decoders]
    found = []
    for _ in range(40):
        found.append(divergence(x, decoders, activations))
        improve(x, decoders, activations, Penalty())
    falls = np.diff(found)
    if all(d.linear for d in decoders):
        assert np.max(falls) <= 1e-4 * found[0]  # Lee and Seung: never worse
    assert found[-1] < 0.95 * found[0]


def test_penalties_make_activations_small_and_alone() -> None:
    decoders = [decoder("nmf", seed=i) for i in range(2)]
    x = np.hypot(*spectra(30).swapaxes(0, 1))

    def fitted(penalty: Penalty) -> list[Float32]:
        activations = [start(x.sum(axis=1), d, 2) for d in decoders]
        for _ in range(100):
            improve(x, decoders, activations, penalty)
        return activations

    free, sparse, alone = (
        fitted(p) for p in (Penalty(), Penalty(sparsity=0.5), Penalty(crossing=2.0))
    )
    assert sum(h.sum() for h in sparse) < 0.8 * sum(h.sum() for h in free)

    def overlap(h: list[Float32]) -> float:
        a, b = (part.sum(axis=1) for part in h)
        return float(np.sum(np.minimum(a, b)) / np.sum(a + b))

    assert overlap(alone) < 0.8 * overlap(free)


def test_masks_add_up_to_one_also_in_silence() -> None:
    x = np.abs(spectra(20)[:, 0])
    x[5:10] = 0.0
    found = fit(x, [decoder("nmf"), decoder("nae", seed=1)], 20)
    np.testing.assert_allclose(found.sum(axis=0), 1.0, rtol=1e-5)
    assert np.all(np.isfinite(found)) and found.min() >= 0


def plain(
    frames: Float32, decoders: Sequence[Decoder], steps: int, memory: float, penalty: Penalty
) -> Float32:
    """The live form by the plain formula: (frames, sources, 2, bins)."""
    window, count = max(d.taps for d in decoders), len(decoders)
    x = np.pad(np.hypot(*frames.swapaxes(0, 1)), ((window - 1, 0), (0, 0)))
    past = [np.zeros((window + d.taps - 2, d.rank), np.float32) for d in decoders]
    last = [np.zeros(d.rank, np.float32) for d in decoders]
    out = []
    for t in range(len(frames)):
        seen = x[t : t + window]
        share = np.float32((1 - memory) / count) * seen[-1].sum()
        activations = [
            np.concatenate([p, np.float32(memory) * r[None] + share * d.usual])
            for p, r, d in zip(past, last, decoders, strict=True)
        ]
        for _ in range(steps):
            improve(seen, decoders, activations, penalty)
        last = [h[-1] for h in activations]
        past = [h[1:] for h in activations]
        explained = [d.explain(h[-d.taps :])[0] for d, h in zip(decoders, activations, strict=True)]
        out.append(masks(explained) * frames[t])
    return np.stack(out)


def live(frames: Float32, model_step: Step) -> Float32:
    """The same by a bundle."""
    out = []
    for frame in frames:
        model_step.mixture[:] = frame
        model_step()
        out.append(model_step.sources[0, 0, :, 0].copy())
    return np.stack(out)


@pytest.mark.parametrize(
    "kinds",
    [
        ("nmf", "nmf"),
        ("nmf", "nmf", "nmf"),
        ("nmf", "nae"),
        ("nae-deep", "nmf"),
        ("cnmf", "cnmf"),
        ("ccae", "ccae"),
        ("nmf", "ccae", "cnmf"),
    ],
)
def test_the_graph_is_the_plain_formula(kinds: tuple[str, ...]) -> None:
    sources = [source(f"s{i}", kind, seed=i) for i, kind in enumerate(kinds)]
    made = bundle(sources, steps=4, memory=0.7, sparsity=0.1)
    frames = spectra(25)
    frames[8:12] = 0.0
    wanted = plain(frames, [s.decoder for s in sources], 4, 0.7, Penalty(sparsity=0.1))
    found = live(frames, make_step(made))
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())
    np.testing.assert_allclose(found.sum(axis=1), frames, atol=1e-5 * np.abs(frames).max())


def test_streams_are_independent_and_a_reset_forgets() -> None:
    made = bundle([source("a", "cnmf"), source("b", "nae", seed=1)], steps=3)
    one, two = make_step(made), make_step(made, streams=2)
    frames = spectra(20), spectra(20, seed=1)
    alone = live(frames[0], one)
    found = []
    for pair in zip(*frames, strict=True):
        two.mixture[:, 0, 0] = pair
        two()
        found.append(two.sources[0, 0, :, 0].copy())
    np.testing.assert_allclose(found, alone, atol=1e-5 * np.abs(alone).max())
    one.reset()
    np.testing.assert_array_equal(live(frames[0], one), alone)


@pytest.mark.parametrize("kinds", [("nmf", "nmf"), ("nae-deep", "ccae")])
def test_whatever_comes_stays_finite(kinds: tuple[str, ...]) -> None:
    sources = [source(f"s{i}", kind, seed=i) for i, kind in enumerate(kinds)]
    rest = Rest("rest", np.ones((4, BINS), np.float32))
    model_step = make_step(bundle(sources, rest=rest, noise=Noise("noise", 0.05)))
    for gain in (0.0, 1.0, 1e4, 0.0, 1e-7, 1.0):
        found = live(np.float32(gain) * spectra(200), model_step)
        assert np.all(np.isfinite(found)), gain
    np.testing.assert_allclose(found.sum(axis=1), spectra(200), atol=1e-4)


def test_noise_passes_while_it_is_learned_and_is_removed_then() -> None:
    """A noise of one spectrum; then a voice of another one sounds as well."""
    rng = np.random.default_rng(0)
    bins = np.arange(BINS)
    hum, voice = np.exp(-bins / 5), np.exp(-((bins - 20) ** 2) / 8)
    frames = round(0.5 * RATE / HOP)
    phases = np.exp(2j * np.pi * rng.random((2, 2 * frames, BINS)))
    spoken = voice * phases[0] * (np.arange(2 * frames) >= frames)[:, None]
    mixture = hum * phases[1] + spoken
    mixture_frames = np.stack([mixture.real, mixture.imag], axis=1).astype(np.float32)
    known = source("voice")
    flat = np.repeat(voice[None], 5, axis=0).astype(np.float32) / voice.sum()
    known.decoder.matrices[0][:] = flat
    found = live(mixture_frames, make_step(bundle([known], noise=Noise("noise", 0.5))))
    np.testing.assert_array_equal(found[:frames, 0], mixture_frames[:frames])
    assert not found[:frames, 1].any()
    after = found[frames + 5 :, 0, 0] + 1j * found[frames + 5 :, 0, 1]
    error = np.sum(np.abs(after - spoken[frames + 5 :]) ** 2)
    assert error < 0.02 * np.sum(np.abs(hum * phases[1][frames + 5 :]) ** 2)


def test_learning_noise_is_the_plain_formula() -> None:
    """Online factorisation while it listens, activations drawn to their mean afterwards."""
    steps, memory, sparsity, frames = 3, 0.6, 0.2, spectra(60)
    noise, voice = Noise("noise", 30 * HOP / RATE, 4, 0.02, anchor=2.0, weight=1.5), source("v")
    options = {"steps": steps, "memory": memory, "sparsity": sparsity, "power": 2.0}
    made = bundle([voice], noise=noise, **options)  # type: ignore[arg-type]
    found = live(frames, make_step(made))
    (w,), usual = voice.decoder.matrices, voice.decoder.usual
    first = np.random.default_rng(0).uniform(0.1, 1.9, (4, BINS))
    first /= first.sum(axis=1, keepdims=True)
    seen, mean = np.zeros((4, BINS)), np.zeros(4)
    spoken, heard = np.zeros(5), np.zeros(4)
    keep = np.exp(-HOP / RATE / noise.memory_s)
    for t, frame in enumerate(frames):
        x, listening = np.hypot(*frame), t < 30
        u = (seen + first) / (seen + first).sum(axis=1, keepdims=True)
        level, pull = x.sum(), 0.0 if listening else noise.anchor
        spoken = (memory * spoken + (1 - memory) * level * usual / 2) * (not listening)
        heard = memory * heard + (1 - memory) * level / 4 / 2
        for _ in range(steps):
            ratio = x / (spoken @ w + heard @ u + EPSILON)
            spoken = spoken * (w @ ratio) / (w.sum(axis=1) + sparsity + EPSILON)
            heard = (heard * (u @ ratio) + pull * mean) / (1 + pull)
        ratio = x / (spoken @ w + heard @ u + EPSILON)
        powers = (spoken @ w) ** 2, (1.5 * heard @ u) ** 2
        share = (powers[0] + EPSILON**2 / 2) / (powers[0] + powers[1] + EPSILON**2)
        wanted = np.stack(
            [frame, 0 * frame] if listening else [share * frame, frame - share * frame]
        )
        np.testing.assert_allclose(found[t], wanted, atol=2e-4 * np.abs(frames).max())
        if listening:
            seen = keep * seen + (heard / level)[:, None] * ratio * u
            mean = mean + heard / 30


def test_the_rest_is_learned() -> None:
    """What the known source can't explain goes to a rest that knew nothing of it."""
    bins = np.arange(BINS)
    known, unknown = np.exp(-bins / 5), np.exp(-((bins - 20) ** 2) / 8)
    rng = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * rng.random((2, 400, BINS)))
    share = rng.random((2, 400, 1)) + 0.1
    parts = share * np.stack([known, unknown])[:, None] * phases
    mixture = parts.sum(axis=0)
    frames = np.stack([mixture.real, mixture.imag], axis=1).astype(np.float32)
    fan = source("fan")
    fan.decoder.matrices[0][:] = known / known.sum()
    rest = Rest("voice", rng.uniform(0.5, 1.5, (3, BINS)).astype(np.float32), memory_s=0.2)
    found = live(frames, make_step(bundle([fan], rest=rest)))[200:]
    for index, part in enumerate(parts):
        estimate = found[:, index, 0] + 1j * found[:, index, 1]
        error = np.sum(np.abs(estimate - part[200:]) ** 2) / np.sum(np.abs(part[200:]) ** 2)
        assert error < 0.1


def test_nmf_finds_what_a_sound_is_made_of() -> None:
    rng = np.random.default_rng(0)
    shapes = rng.gamma(0.3, 1.0, (3, 40)).astype(np.float32)
    x = rng.gamma(0.5, 1.0, (300, 3)).astype(np.float32) @ shapes
    learned, activations = nmf.learn(x, 3)
    np.testing.assert_allclose(learned.matrices[0].sum(axis=1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(learned.usual.sum(), 1.0, rtol=1e-5)
    assert np.abs(learned.explain(activations)[0] - x).sum() < 0.05 * x.sum()
    again, _ = nmf.learn(x, 3)
    np.testing.assert_array_equal(again.matrices[0], learned.matrices[0])


def test_convolutive_nmf_finds_a_sound_that_changes() -> None:
    """Two entries of four frames each, at random times: one tap can't explain them, four can."""
    rng = np.random.default_rng(0)
    entries = rng.gamma(0.3, 1.0, (2, 4, 30)).astype(np.float32)
    x = np.full((400, 30), 1e-3, np.float32)
    for onset in range(0, 396, 6):
        x[onset : onset + 4] += entries[rng.integers(2)] * rng.uniform(0.5, 1.5)
    errors = []
    for taps in (1, 4):
        learned, h = nmf.learn(x, 2, taps)
        y = learned.explain(np.pad(h, ((taps - 1, 0), (0, 0))))[0]
        errors.append(np.abs(x - y).sum() / x.sum())
    assert errors[1] < 0.5 * errors[0]


def test_one_source_alone_separates_nothing() -> None:
    with pytest.raises(LearnedError, match="a alone can't be separated"):
        bundle([source("a")])
    with pytest.raises(LearnedError, match="share a name"):
        bundle([source("a"), source("a")])
    with pytest.raises(LearnedError, match="share a name"):
        bundle([source("noise")], noise=Noise("noise", 1.0))
