"""The comparisons of models: recipes for all, and the experiments on sounds made up here."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench import robustness
from bench.zoo import recipes
from rtsep import weights
from rtsep.models import NAMES
from rtsep.train.recipe import parse

NOT_TRAINED = {"isa", "iva", "repet"}
CONTROLLED = {"conditionedunet", "keptvoice"}


def test_every_architecture_that_learns_has_a_recipe() -> None:
    found = recipes()
    assert set(found) == set(NAMES) - NOT_TRAINED - CONTROLLED
    for name, recipe in found.items():
        description, schedule, _ = parse(recipe, 30.0)
        assert description.model == name and schedule.minutes == 30.0
        assert description.spec.sources == ("speech", "noise")


def test_noise_of_two_speakers_is_no_voice() -> None:
    shipped = ("speech", "speakers", "dilated-speakers")
    assert [robustness.voices(weights.find(name)) for name in shipped] == [1, 2, 2]


def test_robustness_of_a_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    t = np.arange(16000) / 16000
    tone = 0.3 * np.sin(2 * np.pi * 200 * t) * (np.sin(2 * np.pi * 3 * t) > 0)
    sounds = {
        "speech16k/test/ann.flac": tone,
        "noise16k/test/fan.flac": 0.1 * rng.standard_normal(16000),
        "rir16k/test/hall.flac": np.exp(-t[:4000] * 30) * rng.standard_normal(4000) / 9,
    }
    rows = [("path", "split", "speaker_or_category")]
    for path, sound in sounds.items():
        (tmp_path / path).parent.mkdir(parents=True)
        soundfile.write(tmp_path / path, sound, 16000)
        rows.append((path, "test", Path(path).stem))
    with (tmp_path / "MANIFEST.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for name, value in {"SECONDS": 6, "WINDOW_S": 2, "BURST_AT_S": 2.0, "AFTER_S": 2}.items():
        monkeypatch.setattr(robustness, name, value)
    out = tmp_path / "out"
    command = ["--data", tmp_path, "chandna-speech", "--count", "1", "--runs", out]
    monkeypatch.setattr(sys, "argv", ["robustness", *map(str, command)])
    robustness.main()
    (result,) = json.loads((out / "robustness.json").read_text("utf-8"))
    assert len(result["improvement_db"]) == 3 and len(result["after_burst_db"]) == 2
    assert result["after_burst_db"][0] < 0.5, "a burst does not improve what follows"
    assert set(result["rooms_db"]) == {"no room", "room 1"}
    assert np.isfinite([*result["improvement_db"], *result["rooms_db"].values()]).all()
    assert (out / "robustness.png").stat().st_size > 10_000
