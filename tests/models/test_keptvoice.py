"""Keeping one voice in samples; in spectra, see tests/learned/test_enrolment.py."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rtsep import api
from rtsep.learned.enrolment import enroll
from rtsep.learned.frames import spectra
from rtsep.learned.kept_voice import write as save
from rtsep.models import build
from rtsep.models.keptvoice import KeptSamples, Windows
from rtsep.nn.frontend import Frontend
from rtsep.nn.onnx import export, write
from rtsep.spec import Spec
from tests.support import models

RATE = 8000
SPEC = Spec(RATE, 1, "waveform", "rectangular", 32, 16, 1, 3, ("voice", "rest"))
TINY = {"filters": 24, "bottleneck": 8, "hidden": 12, "skip": 6, "blocks": 1, "units": 2}


def test_windows_are_those_of_a_short_time_fourier_transform() -> None:
    heard = torch.randn(1, 16 * 19, 1, generator=torch.Generator().manual_seed(0))
    windows = Windows(hop=16, step=8)
    found = windows(Frontend(SPEC).analyse(heard))
    padded = torch.nn.functional.pad(heard[:, : 16 * 16, 0], (128, 0))
    hann = torch.hann_window(256)
    expected = torch.stft(padded, 256, 128, window=hann, center=False, return_complex=True)
    assert found.shape == (1, 2, 1, 2, windows.bins)
    torch.testing.assert_close(found[:, :, 0], torch.view_as_real(expected).permute(0, 2, 3, 1))


def test_voices_are_enrolled_in_single_precision() -> None:
    model = build("keptvoice", SPEC, TINY | {"size": "samples"})
    assert isinstance(model, KeptSamples)
    frames = Frontend(SPEC).analyse(torch.randn(1, 16 * 40, 1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model.enroller(frames)
    with torch.no_grad():
        assert torch.equal(half, model.enroller(frames))


def test_an_enrolled_voice_changes_what_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("keptvoice", SPEC, TINY | {"size": "samples"})
    assert isinstance(model, KeptSamples)
    torch.nn.init.normal_(model.films.weight)
    path = tmp_path / "keep.onnx"
    bundle = export(model, SPEC, models.TEXTS)  # which checks the contract
    write(bundle, path)
    rng = np.random.default_rng(0)
    spoken = 0.1 * rng.standard_normal((3 * RATE, 1)).astype(np.float32)
    blocks = np.split(spoken, 3)
    voice = enroll(bundle, blocks, 1, RATE, len(spoken))
    frames = torch.from_numpy(spectra(blocks, SPEC, 1, RATE))
    expected = model.enroller(frames)[0].detach().numpy()
    np.testing.assert_allclose(voice.values, expected, atol=1e-4)
    me = tmp_path / "me.voice"
    save(voice, me)
    mixture = 0.1 * rng.standard_normal(RATE).astype(np.float32)
    anybody, kept = (api.separate(mixture, RATE, path, keep=keep) for keep in (None, me))
    assert np.abs(kept["voice"] - anybody["voice"]).max() > 1e-3
    np.testing.assert_allclose(kept["voice"] + kept["rest"], mixture, atol=1e-4)


def test_there_are_two_sources() -> None:
    three = Spec(RATE, 1, "waveform", "rectangular", 32, 16, 1, 0, ("a", "b", "c"))
    with pytest.raises(ValueError, match="two sources"):
        build("keptvoice", three, TINY | {"size": "samples"})
