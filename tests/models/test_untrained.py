"""Models without training: they separate, obey the contract, and are the shipped bundles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import lfilter

import rtsep
from export.untrained import MADE, better_sir_db, room
from rtsep.errors import SpecError
from rtsep.evaluate.metrics import snr_db
from rtsep.models import build
from rtsep.nn.checks import check_causality, check_chunking, check_health, check_state
from rtsep.nn.frontend import Frontend, separate
from rtsep.spec import Float32, Spec
from tests.support.paths import DEMO

RATE = 16000


def offline(name: str, spec: Spec, mixture: Float32) -> Float32:
    """Separate (..., samples, channels) with the module, (..., sources, samples, channels)."""
    x = torch.from_numpy(mixture.reshape(-1, *mixture.shape[-2:]))
    with torch.no_grad():
        y = separate(build(name, spec, {}).eval(), Frontend(spec), x).transpose(1, 2)
    return np.asarray(y.reshape(*mixture.shape[:-2], *y.shape[1:]))


def babble(seed: int, seconds: float) -> Float32:
    """Noise of a few resonances that starts and stops like syllables."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(round(5 * seconds)):
        x = rng.standard_normal(RATE // 5)
        for hz in rng.uniform(200, 4000, 3):
            x = x + lfilter([1.0], [1, -1.94 * np.cos(2 * np.pi * hz / RATE), 0.94], x)
        parts.append(rng.choice([0.02, 0.3, 1.0]) * np.hanning(len(x)) * x / np.std(x))
    return np.asarray(0.05 * np.concatenate(parts), np.float32)


def test_iva_separates_two_voices_of_two_microphones() -> None:
    voices = [[babble(2 * k, 9.0), babble(2 * k + 1, 9.0)] for k in range(2)]
    images = np.stack([room(k, pair, RATE) for k, pair in enumerate(voices)])
    mixtures = images.sum(axis=1)
    found = offline("iva", MADE["iva"].spec, mixtures)
    late = slice(5 * RATE, None)
    better = [
        better_sir_db(x[:, late], s[:, late], RATE) for x, s in zip(found, images, strict=True)
    ]
    assert np.mean(better) >= 8.0
    np.testing.assert_allclose(found.sum(axis=1), mixtures, atol=1e-5)


def test_repet_takes_a_voice_out_of_what_repeats() -> None:
    voice = soundfile.read(DEMO.with_name("demo-speech.flac"), dtype="float32")[0][: 12 * RATE]
    rng = np.random.default_rng(0)
    t = np.arange(RATE // 2) / RATE
    bars = []
    for root in 110 * 2 ** (np.array([0, 5, 7, 3]) / 12):
        chord = sum(np.sin(2 * np.pi * root * m * t) / m for m in (1, 1.26, 1.5, 2, 3, 4))
        bars.append(chord * np.exp(-3 * t) + rng.standard_normal(len(t)) * np.exp(-40 * t))
    music = np.resize(np.concatenate(bars), len(voice))
    music = np.asarray(music * 2 * np.std(voice) / np.std(music), np.float32)
    spec = Spec(RATE, 1, "stft", "hann", 1024, 256, 1, 0, ("voice", "music"), synthesis_length=512)
    mixture = (voice + music)[:, None]
    found = offline("repet", spec, mixture)
    late = slice(4 * RATE, None)
    better = snr_db(found[0, late, 0], voice[late]) - snr_db(mixture[late, 0], voice[late])
    assert better >= 6.0
    np.testing.assert_allclose(found.sum(axis=0), mixture, atol=1e-5)


def test_isa_takes_beats_out_of_what_is_sustained() -> None:
    rng, seconds = np.random.default_rng(0), 12
    t = np.arange(seconds * RATE) / RATE
    swell = 1 + 0.3 * np.sin(2 * np.pi * 0.5 * t)
    chord = sum(swell * np.sin(2 * np.pi * hz * t) for hz in (220, 277, 330, 440, 660, 880))
    phase = 2 * np.pi * np.cumsum(300 + 60 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    chord = chord + sum(np.sin(k * phase) / k for k in range(1, 9))
    decay = np.exp(-np.arange(RATE // 8) / RATE / 0.03)
    stroke = [4 * np.sin(2 * np.pi * 70 * t[: len(decay)]), rng.standard_normal(len(decay))]
    beats = np.zeros(len(t))
    for beat in range(4 * seconds):
        at = beat * RATE // 4
        beats[at : at + len(decay)] += decay * stroke[beat % 2]
    sources = np.stack([0.1 * x / np.std(x) for x in (beats, chord)]).astype(np.float32)
    spec = Spec(RATE, 1, "stft", "hann", 1024, 256, 1, 0, ("beats", "rest"))
    mixture = sources.sum(axis=0)[:, None]
    found = offline("isa", spec, mixture)
    late = slice(6 * RATE, None)
    for stem, source in zip(found, sources, strict=True):
        before, after = (snr_db(x[late, 0], source[late]) for x in (mixture, stem))
        assert after - before >= 3.0
    np.testing.assert_allclose(found.sum(axis=0), mixture, atol=1e-5)


@pytest.mark.parametrize("name", sorted(MADE))
def test_contract(name: str) -> None:
    spec = MADE[name].spec
    model = build(name, spec, {}).eval()
    x = torch.randn(1, 24, spec.channels, *spec.frame_shape, generator=torch.manual_seed(0))
    check_state(model)
    check_chunking(model, x, [1, 7])
    check_causality(model, x, frame=18, lookahead=0)
    check_health(model, (spec.channels, *spec.frame_shape), frames=12)


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_shipped_bundle_is_the_module(name: str) -> None:
    spec = MADE[name].spec
    samples = 3 * spec.sample_rate // 2
    mixture = 0.1 * np.random.default_rng(0).standard_normal((samples, spec.channels), np.float32)
    found = rtsep.separate(mixture, spec.sample_rate, name)
    expected = offline(name, spec, mixture)
    for source, stem in zip(spec.sources, expected, strict=True):
        np.testing.assert_allclose(found[source], stem, atol=2e-5)


@pytest.mark.parametrize("name", sorted(MADE))
def test_other_streams_are_refused(name: str) -> None:
    spec = MADE[name].spec
    for other in (
        replace(spec, channels=3),
        replace(spec, lookahead=1),
        replace(spec, sources=("voice", "music", "noise")),
    ):
        with pytest.raises(ValueError, match=f"{name} separates {spec.channels} channel"):
            build(name, other, {})


def test_a_mono_file_is_no_two_microphones() -> None:
    with pytest.raises(SpecError, match="separates 2 channels jointly, not 1"):
        rtsep.separate(np.zeros(100, np.float32), RATE, "iva")
