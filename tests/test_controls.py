"""Controls: inputs of a model that a user sets, from the description to the faders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile

import rtsep
from rtsep import controls
from rtsep.cli.terminal.bindings import Desk
from rtsep.cli.terminal.screen import plain
from rtsep.cli.terminal.view import View
from rtsep.controls import ModelControl
from rtsep.errors import BundleError, ControlError
from rtsep.portable.check import check as check_portable
from rtsep.portable.graph import build as build_portable
from rtsep.runtime.bundle import parse
from rtsep.runtime.model_step import make_step
from rtsep.runtime.ort_step import OrtStep
from rtsep.runtime.pipeline import LoadedModel
from rtsep.runtime.tape_step import TapeStep
from rtsep.spec import Spec
from tests.support.audio import gaussian
from tests.support.command import refused
from tests.support.command import rtsep as run
from tests.support.models import MIX, controlled, write
from tests.support.stream import Hand, stream

SPECTRA = Spec(16000, 1, "stft", "hann", 64, 32, 1, 1, ("speech", "noise"))
BUNDLE = parse(controlled().SerializeToString())
VOICE = ModelControl("whose voice", (0.0,) * 3, -1.0, 1.0)


def test_a_description_survives_the_metadata() -> None:
    declared = {"mix": MIX, "voice": VOICE}
    assert controls.parse(controls.describe(declared)) == declared


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("speech", (1.0, 0.0)),
        ("speech+noise", (1.0, 1.0)),
        ("0.25,1", (0.25, 1.0)),
    ],
)
def test_values_are_labels_or_numbers(text: str, values: tuple[float, ...]) -> None:
    assert controls.check({"mix": text}, BUNDLE.controls) == {"mix": values}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"gain": "1"}, "there is no control 'gain'; there are: mix"),
        ({"mix": "drums"}, "control mix: 'drums' is not one of speech, noise, or 2 numbers"),
        ({"mix": "1"}, "2 values are needed, not 1"),
        ({"mix": [0.0, 1.5]}, "1.5 is not from 0 to 1"),
        ({"mix": [float("nan"), 0.0]}, "nan is not from 0 to 1"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ControlError, match=reason):
        BUNDLE.controlled(settings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: "no JSON", "description of the controls is invalid"),
        (lambda d: json.dumps([1]), "description of the controls is invalid"),
        (lambda d: json.dumps({"other": d["mix"]}), "control 'other' must be an input of shape"),
        (lambda d: json.dumps({"a b": d["mix"]}), "'a b' is not valid as the name of a control"),
        (lambda d: "{}", "input 'control.mix' that is neither mixture nor state"),
        (lambda d: json.dumps({"mix": {**d["mix"], "default": []}}), "has 1 to 1024 values, not 0"),
        (lambda d: json.dumps({"mix": {**d["mix"], "low": 1}}), "1 to 1 is no range"),
        (lambda d: json.dumps({"mix": {**d["mix"], "labels": ["a"]}}), "as many different labels"),
        (lambda d: json.dumps({"mix": {**d["mix"], "default": [3, 0]}}), "3 is not from 0 to 1"),
        (lambda d: json.dumps({"mix": {**d["mix"], "meaning": "\x1b"}}), "must be a line of text"),
        (lambda d: json.dumps({f"m{i}": d["mix"] for i in range(17)}), "limit of 16"),
    ],
)
def test_a_hostile_description_is_refused(
    change: Callable[[dict[str, Any]], str], reason: str
) -> None:
    model = controlled()
    declared = next(p for p in model.metadata_props if p.key == "rtsep.controls")
    declared.value = change(json.loads(declared.value))
    with pytest.raises(BundleError, match=reason):
        parse(model.SerializeToString())


@pytest.mark.parametrize("kind", [TapeStep, OrtStep])
def test_streams_have_their_own_values(kind: type) -> None:
    step = make_step(BUNDLE, streams=2) if kind is TapeStep else OrtStep(BUNDLE, streams=2)
    assert isinstance(step, kind)
    step.mixture[:] = 1.0
    step.controls["mix"][1] = 0.0, 0.5
    for _ in range(2):
        step()
    np.testing.assert_array_equal(step.sources[:, 0, :, 0, 0], [[1.0, 0.0], [0.0, 0.5]])
    step.reset()
    step()
    step()
    assert step.sources[1, 0, 1, 0, 0] == 0.5, "a reset is of the state"


def test_a_change_while_the_stream_runs_does_not_click(tmp_path: Path) -> None:
    path = write(controlled(SPECTRA), tmp_path / "mix.onnx")
    t = np.arange(16000) / 16000
    mixture = np.sin(2 * np.pi * 300 * t).astype(np.float32)
    separation = rtsep.load(path, controls={"mix": "speech"})
    first = separation.process(mixture[:8000])["speech"]
    separation.controls = {"mix": (0.0, 1.0)}
    assert separation.controls == {"mix": (0.0, 1.0)}
    second = separation.process(mixture[8000:])["speech"]
    whole = np.concatenate([first, second])
    late = separation.latency.samples
    np.testing.assert_allclose(whole[late:8000], mixture[: 8000 - late], atol=1e-5)
    assert not whole[8000 + 2 * SPECTRA.window_length :].any()
    largest = np.abs(np.diff(mixture)).max()
    assert np.abs(np.diff(whole[late:])).max() < 1.5 * largest


def test_files_and_arrays_are_separated_alike(tmp_path: Path) -> None:
    path = write(controlled(), tmp_path / "mix.onnx")
    mixture = np.random.default_rng(0).uniform(-0.5, 0.5, 4000).astype(np.float32)
    soundfile.write(tmp_path / "talk.wav", mixture, 16000, "FLOAT")
    result = run(
        "separate", tmp_path / "talk.wav", "-o", tmp_path, "-m", path, "--control", "mix=noise"
    )
    assert result.exit_code == 0, result.output
    stems = rtsep.separate(mixture, 16000, path, controls={"mix": "noise"})
    np.testing.assert_allclose(stems["noise"], mixture, atol=1e-6)
    assert not stems["speech"].any()
    for name, stem in stems.items():
        written, _ = soundfile.read(tmp_path / f"talk_{name}.wav", dtype="float32")
        np.testing.assert_allclose(written, stem, atol=2e-4)
    said = run("info", path).output
    assert "mix=speech+noise: gains of the sources, 0 to 1" in " ".join(said.split())


def test_the_command_line_names_what_is_wrong(tmp_path: Path) -> None:
    path = write(controlled(), tmp_path / "mix.onnx")
    command = ["separate", tmp_path / "talk.wav", "-o", tmp_path, "-m", path, "--control"]
    assert "--control needs NAME=VALUE, not 'mix'" in refused(*command, "mix")
    assert "there is no control 'stem'; there are: mix" in refused(*command, "stem=vocals")
    plain_model = ["separate", tmp_path / "talk.wav", "-o", tmp_path, "--control", "stem=vocals"]
    assert "there is no control 'stem'; the model has none" in refused(*plain_model)


def test_a_portable_graph_has_the_chosen_values() -> None:
    bundle = BUNDLE.controlled({"mix": "noise"})
    portable = build_portable(bundle)
    check_portable(portable, bundle)
    assert [value.name for value in portable.model.graph.input] == ["mixture", "state"]
    with pytest.raises(BundleError, match="differs from the engine"):
        check_portable(portable, BUNDLE)


def test_faders_in_the_terminal() -> None:
    live = stream(Hand(16000, 1, 1, 64, 64, gaussian(6400)), (1, 0))
    loaded = LoadedModel(BUNDLE, 1)
    control: Any = SimpleNamespace(live=live, busy="", loaded=loaded)
    desk = Desk(control, str, str)
    report: Any = SimpleNamespace(live=live, latency_line=lambda: "latency 1 ms")
    view = View(report, desk)
    view.look(0.0)
    desk.press("4")  # after two sources: the second value
    for _ in range(3):
        desk.press("right")
    desk.press("m")
    assert loaded.controls["mix"] == (1.0, pytest.approx(0.3))
    assert not live.mixer.muted.any()
    rows = [plain(line) for line in view.lines(60, 20, "")]
    assert any(row.startswith("▸noise") and "0.30 mix" in row for row in rows)
    for _ in range(20):
        desk.press("left")
    assert loaded.controls["mix"] == (1.0, 0.0)
    desk.press("up")
    desk.press("left")
    desk.press("0")
    assert loaded.controls["mix"] == (1.0, 0.0)


def test_inputs_beside_them_are_still_refused() -> None:
    model = controlled()
    extra = onnx.helper.make_tensor_value_info("control.other", 1, ["streams", 2])
    model.graph.input.append(extra)
    with pytest.raises(BundleError, match=r"'control\.other' that is neither"):
        parse(model.SerializeToString())
