"""Every model at every named size: the contract, and minutes of everything.

`export` refuses a model whose chunks don't add up to the whole, that looks further ahead than it
says, is not finite on silence, noise and full scale, or whose graph differs from it by 1e-5.

Every day a miniature of each architecture is exported, that of the default model hears minutes,
and all sizes but the full ones run for some frames. In `make soak` every size runs and is exported,
also with lookahead and in chunks, and hears more minutes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from rtsep import models
from rtsep.models import NAMES, architecture, build
from rtsep.nn.checks import check_chunking, check_state
from rtsep.nn.onnx import export
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec
from tests.support.miniatures import MINIATURES
from tests.support.models import TEXTS

MINUTES, FEW = 10, 3
EVERY_DAY = "banded"
"""The miniature that hears minutes every day: of the default model's architecture. What the others
remember without end has tests of its own, over hours."""
ELSEWHERE = ("conditionedunet", "keptvoice")
"""Miniatures that test_controlled.py and test_enrolment.py train and export. Small ones of chandna,
convtasnet and dilated are exported in test_parity.py, test_convtasnet.py and test_dilated.py, those
of models that are not trained in test_untrained.py."""
VOICES = ("first", "second")
STEMS = ("vocals", "drums", "bass", "other")
MUSIC = Spec(44100, 1, "stft", "hann", 4096, 1024, 1, 0, STEMS)
SPEECH = Spec(16000, 1, "stft", "hann", 512, 128, 1, 0, VOICES, synthesis_length=256)


def blocks(rate: int, length: int, sources: tuple[str, ...] = VOICES) -> Spec:
    """Frames of samples that do not overlap."""
    return Spec(rate, 1, "waveform", "rectangular", length, length, 1, 0, sources)


SPECS = {
    "banded": {
        "base": SPEECH,
        "large": SPEECH,
        "music": Spec(44100, 1, "stft", "hann", 2048, 512, 1, 0, STEMS, synthesis_length=1024),
        "small": Spec(16000, 1, "stft", "hann", 256, 128, 1, 0, VOICES),
    },
    "cdae": {
        "full": Spec(44100, 1, "stft", "hann", 2048, 512, 1, 0, STEMS),
        "small": SPEECH,
    },
    "chandna": {
        "music": Spec(44100, 1, "stft", "hann", 1024, 512, 1, 0, STEMS),
        "speech": Spec(16000, 1, "stft", "hann", 512, 128, 1, 4, VOICES, synthesis_length=256),
    },
    "clustering": {
        "full": Spec(8000, 1, "stft", "hann", 256, 64, 1, 0, VOICES),
        "small": Spec(8000, 1, "stft", "hann", 256, 64, 1, 0, VOICES),
    },
    "complexunet": {
        "full": Spec(16000, 1, "stft", "hann", 1024, 256, 1, 0, VOICES),
        "small": SPEECH,
    },
    "conditionedunet": {
        "full": Spec(8192, 1, "stft", "hann", 1024, 256, 1, 0, ("chosen", "rest")),
        "small": SPEECH,
    },
    "convtasnet": {
        "full": Spec(8000, 1, "waveform", "rectangular", 16, 8, 64, 0, VOICES),
        "half": Spec(16000, 1, "waveform", "rectangular", 32, 16, 64, 0, VOICES),
        "small": SPEECH,
        "spectra": SPEECH,
    },
    "demucs": {"full": blocks(16000, 1024), "small": blocks(16000, 256)},
    "dilated": {
        "full": Spec(8000, 1, "stft", "hann", 256, 64, 1, 0, VOICES),
        "half": Spec(8000, 1, "stft", "hann", 256, 64, 3, 9, VOICES),
        "medium": Spec(8000, 1, "stft", "hann", 256, 64, 1, 0, VOICES),
        "small": Spec(8000, 1, "stft", "hann", 256, 64, 1, 9, VOICES),
    },
    "feedforward": {
        "full": Spec(44100, 1, "stft", "hann", 2048, 512, 1, 0, ("vocals", "rest")),
        "small": SPEECH,
    },
    "isa": {"small": Spec(16000, 1, "stft", "hann", 1024, 256, 1, 0, ("beats", "rest"))},
    "iva": {"small": Spec(16000, 2, "stft", "hann", 2048, 256, 1, 0, VOICES, synthesis_length=512)},
    "keptvoice": {
        "large": SPEECH,
        "samples": Spec(8000, 1, "waveform", "rectangular", 32, 16, 1, 0, VOICES),
        "small": SPEECH,
    },
    "openunmix": {"full": MUSIC, "small": SPEECH},
    "recurrent": {
        "full": Spec(16000, 1, "stft", "hann", 1024, 512, 1, 0, ("vocals", "rest")),
        "small": SPEECH,
    },
    "repet": {"small": Spec(16000, 1, "stft", "hann", 1024, 256, 1, 0, ("voice", "music"))},
    "segan": {"full": blocks(16000, 2048), "small": blocks(16000, 64)},
    "tasnet": {"full": blocks(8000, 40), "small": blocks(16000, 80)},
    "unet": {
        "full": Spec(44100, 1, "stft", "hann", 2048, 512, 1, 0, ("vocals", "rest")),
        "small": SPEECH,
    },
    "waveunet": {"full": blocks(22050, 4096, STEMS), "small": blocks(16000, 64)},
}
"""Every named size, on the stream it was made for."""


def test_every_named_size_is_here() -> None:
    assert {name: set(sizes) for name, sizes in SPECS.items()} == {
        name: set(architecture(name).SIZES) for name in NAMES
    }


PUBLISHED = {
    "cdae": 37_101,
    "complexunet": 1.4e6,
    "demucs": 33.53e6,
    "unet": 9.8e6,
    "waveunet": 10.26e6,
}
"""Weights of size `full` by the papers or their published code."""


def test_every_architecture_is_a_file_and_a_line() -> None:
    files = {path.stem for path in Path(models.__file__).parent.glob("*.py")}
    parts = {"__init__", "attractors", "checkpoint"}
    assert files - parts == set(NAMES)
    for name in NAMES:
        found = architecture(name)
        author = found.PAPER.removeprefix("after ").partition(",")[0]
        year = re.findall(r"\b20\d\d\b", found.PAPER)[-1]
        assert author in str(found.__doc__) and year in str(found.__doc__)


def sounds(rate: int, minutes: int) -> Iterator[tuple[str, np.ndarray]]:
    """Seconds of what a microphone may bring, each (rate, 1)."""
    for _ in range(2):
        yield "silence", np.zeros((rate, 1), np.float32)
    square = np.where(np.arange(rate) * 440 // rate % 2, 1.0, -1.0).astype(np.float32)
    for _ in range(2):
        yield "square", square[:, None]
    rng = np.random.default_rng(0)
    for second in range(60 * minutes):
        # The same noise in every minute, so that minutes can be compared.
        if second % 60 == 0:
            rng = np.random.default_rng(1)
        noise = 0.1 * rng.standard_normal((rate, 1), np.float32)
        yield f"minute {second // 60}", noise


HEAVY = [
    ("banded", "base"),
    ("banded", "large"),
    ("banded", "music"),
    *(("keptvoice", size) for size in ("large", "samples")),
    *((n, s) for n in ("convtasnet", "dilated") for s in ("full", "half")),
    ("dilated", "medium"),
    *((n, "full") for n in ("complexunet", "demucs", "openunmix", "unet", "waveunet")),
    ("segan", "full"),
]
"""These take up to half as long as what they hear, and hear few minutes."""
LIGHT = [(name, size) for name in SPECS for size in SPECS[name] if (name, size) not in HEAVY]
LOOKAHEAD = dict.fromkeys(NAMES, 2) | {"chandna": 3, "dilated": 9}
NO_LOOKAHEAD = ("demucs", "isa", "iva", "repet", "segan", "tasnet", "waveunet")
LOOKAHEAD |= dict.fromkeys(NO_LOOKAHEAD, 0)

CASES = [
    (name, size, *case)
    for name, sizes in SPECS.items()
    for size, spec in sizes.items()
    for case in ((0, 1), (LOOKAHEAD[name], max(spec.chunk, 3)))
]
"""Without lookahead frame by frame, with lookahead (if the model has any) in chunks."""


@cache
def bundle(name: str, spec: Spec, size: str) -> Bundle:
    """A model with random weights; to export it is to check it."""
    torch.manual_seed(0)
    return export(build(name, spec, {"size": size}), spec, TEXTS)


@cache
def miniature(name: str) -> Bundle:
    spec, options = MINIATURES[name]
    torch.manual_seed(0)
    return export(build(name, spec, options), spec, TEXTS)


@pytest.mark.soak
@pytest.mark.parametrize(("name", "size", "lookahead", "chunk"), CASES)
def test_contract(name: str, size: str, lookahead: int, chunk: int) -> None:
    spec = dataclasses.replace(SPECS[name][size], lookahead=lookahead, chunk=chunk)
    made = bundle(name, spec, size)
    assert made.spec == spec
    assert make_step(made, streams=3).sources.shape[:2] == (3, chunk)


@pytest.mark.parametrize("name", [name for name in MINIATURES if name not in ELSEWHERE])
def test_contract_in_miniature(name: str) -> None:
    made = miniature(name)
    assert made.spec == MINIATURES[name][0]
    assert make_step(made, streams=3).sources.shape[:2] == (3, made.spec.chunk)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_full_size_has_the_published_weights(name: str) -> None:
    model = build(name, SPECS[name]["full"], {"size": "full"})
    weights = sum(p.numel() for p in model.parameters())
    assert weights == pytest.approx(PUBLISHED[name], rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=pytest.mark.soak if size == "full" else [])
        for name, sizes in SPECS.items()
        for size in sizes
    ],
)
def test_every_size_goes_on_where_it_was(name: str, size: str) -> None:
    spec = SPECS[name][size]
    torch.manual_seed(0)
    model = build(name, spec, {"size": size}).eval()
    x = torch.randn(1, 12, spec.channels, *spec.frame_shape)
    check_state(model)
    check_chunking(model, x, [5, 1])
    y, _ = model(x, model.initial_state(1))
    assert y.shape == (1, 12, len(spec.sources), *x.shape[2:])
    assert torch.isfinite(y).all()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "size", "minutes"),
    [*((*case, MINUTES) for case in LIGHT), *((*case, FEW) for case in HEAVY)],
)
def test_minutes_of_everything(name: str, size: str, minutes: int) -> None:
    hears_minutes(bundle(name, SPECS[name][size], size), minutes)


def test_minutes_of_everything_in_miniature() -> None:
    hears_minutes(miniature(EVERY_DAY), FEW)


def hears_minutes(made: Bundle, minutes: int) -> None:
    """Silence, a full-scale square wave, minutes of noise, live.

    Whatever a model remembers without end (levels, the statistics of norms, attractors) has
    settled after a minute; if it drifted, the same sound would come out otherwise in the last.
    """
    spec = made.spec
    engine = Engine(make_step(made), spec, spec.channels)
    powers: dict[str, list[np.ndarray]] = {}
    for sound, samples in sounds(spec.sample_rate, minutes):
        y = engine.process(np.repeat(samples, spec.channels, axis=1))
        assert np.isfinite(y).all(), sound
        powers.setdefault(sound, []).append(np.mean(np.square(y), axis=0)[:, 0])
    assert engine.nonfinite_out == 0
    assert np.max(powers["silence"]) < 1e-6
    second, last = (np.sum(powers[f"minute {m}"], axis=0) for m in (1, minutes - 1))
    assert np.sum(second) > 0
    np.testing.assert_allclose(last, second, rtol=0, atol=0.01 * np.sum(second))
