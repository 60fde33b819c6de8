"""`rtsep enroll` and `--keep`: of two voices, the one of the recording is kept."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from rtsep import api
from rtsep.learned.frames import spectra
from rtsep.models import build
from rtsep.models.keptvoice import KeptSpectra
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.onnx import export, write
from rtsep.nn.streaming import Bound
from rtsep.train.loop import improvement
from rtsep.train.losses import named
from tests.support import models
from tests.support.command import rtsep
from tests.support.miniatures import MINIATURES, RATE, SOURCES, batches

STEPS = 30
SPEC, OPTIONS = MINIATURES["keptvoice"]
FRONTEND = Frontend(SPEC)


def bound(model: KeptSpectra, spoken: torch.Tensor) -> Bound:
    return Bound(model, {"voice": model.enroller(FRONTEND.analyse(spoken))})


def endless(path: Path) -> str:
    """An enroller that multiplies frames with far too large a matrix, a thousand times over."""
    text = next(p.value for p in onnx.load(path).metadata_props if p.key == "rtsep.enroller")
    model = onnx.load_model_from_string(base64.b64decode(text))
    made = model.graph.output[0].name
    size = [onnx.numpy_helper.from_array(np.array([1 << 14, 1 << 14]), "size")]
    model.graph.initializer.extend(size)
    nodes = [onnx.helper.make_node("ConstantOfShape", ["size"], ["large"])]
    nodes += [onnx.helper.make_node("MatMul", ["large", "large"], [f"p{k}"]) for k in range(64)]
    model.graph.node.extend(nodes)
    assert made == "control.voice"
    return base64.b64encode(model.SerializeToString()).decode()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeptSpectra, Path]:
    """A network that keeps the source of which it has heard another recording, and its bundle."""
    torch.manual_seed(0)
    model = build("keptvoice", SPEC, OPTIONS)
    assert isinstance(model, KeptSpectra)
    compute = named("snr")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    draw = torch.Generator().manual_seed(0)
    both = zip(range(STEPS), batches(0), batches(2, 2 * RATE // 2), strict=False)
    for _, (mixture, target), (_, other) in both:
        chosen = torch.randint(2, (len(mixture),), generator=draw)
        first = (chosen == 0)[:, None, None, None]
        wanted = torch.where(first, target, target.flip(2))
        spoken = torch.where(first[..., 0], other[:, :, 0], other[:, :, 1])
        optimizer.zero_grad()
        compute(bound(model, spoken), FRONTEND, mixture, wanted).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    path = tmp_path_factory.mktemp("keep") / "keep.onnx"
    write(export(model.eval(), SPEC, models.TEXTS), path)
    return model, path


def test_the_recorded_source_is_kept_and_another_one_with_its_recording(
    trained: tuple[KeptSpectra, Path], tmp_path: Path
) -> None:
    model, path = trained
    mixture, target = next(batches(1))
    _, other = next(batches(3, 3 * RATE))
    soundfile.write(tmp_path / "mixture.wav", mixture[0].numpy(), RATE, subtype="FLOAT")
    for index, name in enumerate(SOURCES):
        wanted, spoken = target if index == 0 else target.flip(2), other[:, :, index]
        with torch.no_grad():
            estimate = separate(bound(model, spoken), FRONTEND, mixture)
        assert improvement(estimate, wanted, mixture, "SI-SDRi")[:, 0].mean() >= 3.0
        soundfile.write(tmp_path / f"{name}.wav", spoken[0].numpy(), RATE, subtype="FLOAT")
        voice = tmp_path / f"{name}.voice"
        made = rtsep("enroll", tmp_path / f"{name}.wav", "-o", voice, "--model", path)
        assert made.exit_code == 0 and f"rtsep run --keep {voice}" in made.stdout, made.stderr
        options = ["--model", path, "--keep", voice, "-o", tmp_path / name]
        done = rtsep("separate", tmp_path / "mixture.wav", *options)
        assert done.exit_code == 0, done.stderr
        live, _ = soundfile.read(tmp_path / name / f"mixture_{SOURCES[0]}.wav")
        expected = estimate[0, :, 0, 0].numpy()
        called = api.separate(mixture[0, :, 0].numpy(), RATE, path, keep=voice)[SOURCES[0]]
        np.testing.assert_allclose(called, expected, atol=0.01 * np.abs(expected).max())
        assert np.abs(live - expected).max() < 0.01 * np.abs(expected).max()


def test_a_voice_is_heard_frame_by_frame_also_by_models_that_take_several() -> None:
    noise = np.random.default_rng(0).standard_normal((1, 64 * 40, 1)).astype(np.float32)
    single, several = (
        spectra(noise, replace(SPEC, chunk=chunk), 1, SPEC.sample_rate) for chunk in (1, 3)
    )
    np.testing.assert_array_equal(single, several)


def test_what_can_not_be_enrolled_is_one_sentence(
    trained: tuple[KeptSpectra, Path], tmp_path: Path
) -> None:
    path, voice = trained[1], tmp_path / "me.voice"
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    for name, sound in {"short": noise[:RATE], "silent": 0 * noise, "good": noise}.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE)
    good = tmp_path / "good.wav"

    def refused(*arguments: object) -> str:
        done = rtsep(*arguments)
        assert done.exit_code == 2 and "Traceback" not in done.stderr, done.stderr
        return done.stderr

    for name, sentence in (("short", "1.0 s is too short"), ("silent", "is silent")):
        recording = tmp_path / f"{name}.wav"
        assert sentence in refused("enroll", recording, "-o", voice, "--model", path)
    assert "can't keep a voice" in refused("enroll", good, "-o", voice, "--model", "repet")
    assert "either a recording or --device" in refused("enroll", "-o", voice, "--model", path)
    keep = ["separate", good, "--keep", voice, "-o", tmp_path]
    assert "can't be read" in refused(*keep)
    assert not voice.exists()
    for text in ("", "[]", '{"format": "rtsep.voice.1", "values": "x"}'):
        voice.write_text(text)
        assert "is not a voice" in refused(*keep)
    assert rtsep("enroll", good, "-o", voice, "--model", path).exit_code == 0
    assert "the voice was made for the model 'tiny'" in refused(*keep, "--model", "repet")
    assert "leave them out with learned sources" in refused(*keep, "--learn-noise", 1)
    hostile = tmp_path / "hostile.onnx"
    for graph in ("not base64!", "AAAA", endless(path)):
        proto = onnx.load(path)
        for text in proto.metadata_props:
            text.value = graph if text.key == "rtsep.enroller" else text.value
        models.write(proto, hostile)
        assert "the enroller of 'tiny' can't be run" in refused(
            "enroll", good, "-o", voice, "--model", hostile
        )
