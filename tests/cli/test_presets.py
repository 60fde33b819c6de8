"""A scene is options under a name: shipped, overridden, saved, or refused in one sentence."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep import weights
from rtsep.cli import presets
from rtsep.cli import run as command
from rtsep.cli.presets import Preset
from rtsep.errors import OptionError, PresetError
from rtsep.realtime.builder import linear_gains
from rtsep.runtime.bundle import load
from rtsep.runtime.pipeline import LoadedModel
from tests.support.command import refused, rtsep
from tests.support.models import controlled, write
from tests.support.random_cases import cases

SHIPPED = ["call", "karaoke", "practice-without-drums"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(presets.platformdirs, "user_config_path", lambda _: tmp_path / "config")
    return tmp_path / "config" / "scenes"


def test_the_shipped_scenes_are_of_shipped_models(folder: Path) -> None:
    assert presets.names() == SHIPPED
    for name in SHIPPED:
        preset = presets.find(name)
        gains = linear_gains(weights.find(preset.model).spec.sources, preset.gains)
        assert 0 < gains.sum() < len(gains)
    silent = {"karaoke": "vocals", "practice-without-drums": "drums", "call": "noise"}
    for name, source in silent.items():
        preset = presets.find(name)
        assert source not in preset.gains
        assert {*preset.gains, source} == set(weights.find(preset.model).spec.sources)


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=9)


@cases(20)
@given(
    st.builds(
        Preset,
        model=st.none() | texts,
        gains=st.dictionaries(texts, st.floats(max_value=24, allow_nan=False), max_size=4),
        limit=st.none() | st.floats(-60, 0),
        on_late=st.none() | st.sampled_from(["dry", "mute"]),
        buffer=st.none() | st.floats(0, 500),
        block=st.none() | st.integers(16, 8192),
        controls=st.dictionaries(texts, texts, max_size=2),
    )
)
def test_what_is_saved_is_read_again(preset: Preset) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        patch.setattr(presets.platformdirs, "user_config_path", lambda _: Path(place))
        path = preset.save("mine")
        assert presets.find("mine") == preset
        assert [p.name for p in path.parent.iterdir()] == ["mine.toml"]


def test_ones_own_scene_goes_before_the_shipped(folder: Path) -> None:
    Preset(model="speakers").save("call")
    assert presets.find("call").model == "speakers" and presets.names() == SHIPPED
    Preset().save("mine")
    assert "mine" in presets.names()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("model = ", "is not TOML: "),
        ("\udcff", "is not TOML: "),
        ("volume = 3", "there is no 'volume'; there are: model, gains, limit"),
        ("model = 3", "model must be a text, not 3"),
        ("block = 1.5", "block must be a whole number of samples, not 1.5"),
        ("block = true", "block must be a whole number of samples, not True"),
        ("gains = 3", "gains must be a table of sources and dB, not 3"),
        ('[gains]\nspeech = "loud"', "the gain of speech must be in dB, not 'loud'"),
        ("controls = 3", "controls must be a table of the model's controls, not 3"),
        ("[controls]\nmix = 1", "control mix must be a text, not 1"),
        ("[gains]\nspeech = nan", "the gain of speech must be in dB, not nan"),
    ],
)
def test_what_is_no_scene_is_refused_in_one_sentence(
    folder: Path, content: str, reason: str
) -> None:
    folder.mkdir(parents=True)
    path = folder / "bad.toml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    sentence = refused("run", "-d", "demo", "--scene", "bad")
    assert str(path) in sentence and reason in sentence


def test_names_that_cannot_be(folder: Path) -> None:
    assert f"there are: {', '.join(SHIPPED)}" in refused("run", "--scene", "party")
    assert "letters, digits and hyphens" in refused("run", "--scene", "../call")
    folder.parent.mkdir()
    folder.touch()
    with pytest.raises(PresetError, match="cannot write"):
        Preset().save("mine")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--scene", "mine"], {"model": "speakers", "block": 256, "gain": ("one=-3.0",)}),
        (["--scene", "mine", "--block", "64"], {"model": "speakers", "block": 64}),
        (["-m", "speech", "--scene", "mine"], {"model": "speech", "limit_db": -6.0}),
        (["--scene", "mine", "-g", "two=1"], {"gain": ("two=1",)}),
        ([], {"model": None, "block": None, "gain": ()}),
    ],
)
def test_options_beside_a_scene_win(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], wanted: dict[str, Any]
) -> None:
    Preset("speakers", {"one": -3.0}, limit=-6.0, block=256).save("mine")
    told: dict[str, Any] = {}
    monkeypatch.setattr(command.run, "callback", lambda **given: told.update(given))
    assert rtsep("run", *options).exit_code == 0
    assert told | wanted == told


def test_listen_goes_before_the_gains_of_a_scene(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Preset("speech", {"speech": -3.0}).save("mine")
    heard: list[Any] = []

    def open_stream(device: str, choose: object, where: object, options: Any, **_: object) -> None:
        heard.append(options.gains)
        raise OptionError("enough")

    monkeypatch.setattr(command, "open_stream", open_stream)
    refused("run", "-d", "demo", "--scene", "mine")
    refused("run", "-d", "demo", "--scene", "mine", "--listen", "noise")
    refused("ui", "--port", 0, "--device", "demo", "--scene", "mine")
    assert heard == [{"speech": -3.0}, {"noise": 0.0}, {"speech": -3.0}]


def test_a_scene_keeps_what_the_controls_of_its_model_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = LoadedModel(load(write(controlled(), tmp_path / "mix.onnx")), 1)
    loaded.set_controls({"mix": (1.0, 0.3)})
    mixer = SimpleNamespace(heard=np.array([True, False]), gains=np.ones(2))
    options = SimpleNamespace(limit_db=None, on_late="dry")
    stream: Any = SimpleNamespace(
        worker=SimpleNamespace(mixer=mixer), control=SimpleNamespace(loaded=loaded), options=options
    )
    where: Any = SimpleNamespace(block=None, buffer_ms=None)
    assert "rtsep run --scene saved" in command._save(stream, where)
    heard: list[Any] = []

    def open_stream(device: str, choose: Any, *_: object, **__: object) -> None:
        heard.append(choose().controls["mix"].default)
        raise OptionError("enough")

    monkeypatch.setattr(command, "open_stream", open_stream)
    refused("run", "-d", "demo", "--scene", "saved")
    refused("run", "-d", "demo", "--scene", "saved", "--control", "mix=noise")
    assert heard == [(1.0, pytest.approx(0.3)), (0.0, 1.0)]


def test_shipped_files_hold_nothing_else() -> None:
    for path in (Path(presets.__file__).parent).glob("*.toml"):
        assert set(tomllib.loads(path.read_text())) == {"model", "gains"}
