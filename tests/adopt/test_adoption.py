"""An adopted model gives what a plain loop over its authors' graph gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import rtsep
from rtsep.adopt.adoption import adopt
from rtsep.adopt.description import KNOWN, Texts, known, read
from rtsep.runtime.bundle import load
from rtsep.runtime.model_step import make_step
from rtsep.runtime.tape_step import TapeStep
from tests.support import foreign
from tests.support.command import refused
from tests.support.command import rtsep as command
from tests.support.paths import DEMO

KINDS: dict[str, tuple[list[Callable[[], Any]], Callable[..., Any]]] = {
    "gtcrn": ([foreign.spectrum], foreign.spectrum_loop),
    "dtln": ([foreign.masker, foreign.mapper], foreign.two_networks_loop),
    "deepfilternet": ([foreign.samples], foreign.samples_loop),
}
PUBLISHED = {
    "gtcrn": ["gtcrn_simple.onnx"],
    "ul-unas": ["ulunas_stream_simple.onnx"],
    "dtln": ["dtln_model_1.onnx", "dtln_model_2.onnx"],
    "deepfilternet": ["denoiser_model.onnx"],
}
LOOPS = {name: loop for name, (_, loop) in KINDS.items()} | {"ul-unas": foreign.spectrum_loop}


@pytest.fixture(scope="module")
def sound() -> Any:
    return soundfile.read(DEMO, dtype="float32")[0][:32000]


def adopted(paths: list[Path], name: str, folder: Path) -> Path:
    result = command("adopt", *paths, "--as", name, "-o", folder / f"{name}.onnx")
    assert result.exit_code == 0, result.output
    assert "all checks passed" in result.output
    return folder / f"{name}.onnx"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each kind, a folder with ``theirs0.onnx`` and so on, and what it was made."""
    folders = {}
    for name, (graphs, _) in KINDS.items():
        folder = folders[name] = tmp_path_factory.mktemp(name)
        paths = [foreign.save(make(), folder / f"theirs{k}.onnx") for k, make in enumerate(graphs)]
        adopted(paths, name, folder)
    return folders


def check_equal(paths: list[Path], bundle: Path, name: str, sound: Any) -> None:
    expected = foreign.looped(LOOPS[name](*paths), sound)
    spec = load(bundle).spec
    stream = rtsep.load(bundle, block=spec.hop_length)
    made = stream.process(sound[: len(expected)])
    assert np.max(np.abs(made["speech"] - expected)) < 1e-4
    late = stream.latency.samples
    assert late == spec.window_length - spec.hop_length + known()[name].delay
    total = made["speech"] + made["noise"]
    assert np.max(np.abs(total[late:] - sound[: len(total) - late])) < 1e-5


@pytest.mark.parametrize("name", KINDS)
def test_a_small_graph_of_each_kind_equals_a_plain_loop(
    name: str, small: dict[str, Path], sound: Any
) -> None:
    paths = sorted(small[name].glob("theirs*.onnx"))
    check_equal(paths, small[name] / f"{name}.onnx", name, sound)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_equals_a_plain_loop(name: str, tmp_path: Path, sound: Any) -> None:
    paths = foreign.peers(*PUBLISHED[name])
    bundle = adopted(paths, name, tmp_path)
    check_equal(paths, bundle, name, sound)
    assert "not by rtsep" in load(bundle).metadata["training"]


def test_gtcrn_runs_on_the_tape(tmp_path: Path) -> None:
    """A hop takes a quarter of the time of ONNX Runtime there, see `bench.peers`."""
    bundle = adopted(foreign.peers("gtcrn_simple.onnx"), "gtcrn", tmp_path)
    assert isinstance(make_step(load(bundle)), TapeStep)


def test_files_are_separated_and_stereo_is_two_streams(
    small: dict[str, Path], tmp_path: Path, sound: Any
) -> None:
    bundle = small["gtcrn"] / "gtcrn.onnx"
    soundfile.write(tmp_path / "talk.wav", sound, 16000, "FLOAT")
    result = command("separate", tmp_path / "talk.wav", "-o", tmp_path / "out", "-m", bundle)
    assert result.exit_code == 0, result.output
    speech, _ = soundfile.read(tmp_path / "out" / "talk_speech.wav", dtype="float32")
    noise, _ = soundfile.read(tmp_path / "out" / "talk_noise.wav", dtype="float32")
    assert np.max(np.abs(speech + noise - sound)) < 2e-4
    for channels in (2, 3):  # unrolled, and scanned
        wide = np.stack([sound * (k + 1) / 4 for k in range(channels)], axis=1)
        stems = rtsep.separate(wide, 16000, bundle)["speech"]
        for k in range(channels):
            alone = rtsep.separate(wide[:, k], 16000, bundle)["speech"]
            assert np.max(np.abs(stems[:, k] - alone)) < 1e-5


def test_the_card_of_other_weights_claims_nothing(small: dict[str, Path]) -> None:
    folder = small["gtcrn"]
    card = (folder / "gtcrn.md").read_text(encoding="utf-8")
    for text in ("not ours", "GTCRN", "unknown: these are not the weights", "32 ms", "theirs0"):
        assert text in card
    assert "Xiaobin Rong" not in card and "7.80" not in card
    own = read(KNOWN / "gtcrn.toml")
    described = replace(own, sha256=(), texts=Texts("GTCRN, retrained", "me", "CC0"))
    metadata = adopt([folder / "theirs0.onnx"], "mine", described).metadata
    assert metadata["licence"] == "CC0" and "weights by me" in metadata["training"]


def test_the_card_of_published_weights_names_author_and_licence(tmp_path: Path) -> None:
    adopted(foreign.peers("gtcrn_simple.onnx"), "gtcrn", tmp_path)
    card = (tmp_path / "gtcrn.md").read_text(encoding="utf-8")
    assert "Xiaobin Rong" in card and "MIT" in card and "7.80" in card
    assert "Xiaobin Rong" in command("info", tmp_path / "gtcrn.onnx").output


def test_an_unknown_graph_needs_a_description(tmp_path: Path) -> None:
    path = foreign.save(foreign.masker(), tmp_path / "theirs.onnx")
    sentence = refused("adopt", path, "--as", "x", "-o", tmp_path / "x.onnx")
    assert "--spec" in sentence and "gtcrn" in sentence
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.onnx"]
