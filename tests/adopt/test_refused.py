"""What can't be adopted is refused with one sentence that names the field; nothing is written."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper

from rtsep.adopt import network
from rtsep.adopt.description import KNOWN, RATES_HZ, of_table
from rtsep.errors import AdoptError
from tests.support import foreign
from tests.support.command import refused

Change = Callable[[onnx.ModelProto], object]
TEXT = (KNOWN / "gtcrn.toml").read_text(encoding="utf-8")


def output_of(tmp_path: Path, *arguments: object) -> str:
    """The sentence with which a request is refused that leaves nothing behind."""
    before = {path.name for path in tmp_path.iterdir()}
    sentence = refused("adopt", *arguments, "--as", "x", "-o", tmp_path / "x.onnx")
    assert {path.name for path in tmp_path.iterdir()} == before
    return sentence


def after(tmp_path: Path, change: Change, text: str = TEXT) -> str:
    model = foreign.spectrum()
    change(model)
    path = foreign.save(model, tmp_path / "theirs.onnx")
    (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
    return output_of(tmp_path, path, "--spec", tmp_path / "spec.toml")


def opened(name: str, axis: int) -> Change:
    """Leave the size of an axis open."""

    def change(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            if value.name == name:
                value.type.tensor_type.shape.dim[axis].dim_param = "T"

    return change


def without(output: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        kept = [value for value in model.graph.output if value.name != output]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    return change


def shorter(model: onnx.ModelProto) -> None:
    for value in model.graph.output:
        if value.name == "tra_cache_out":
            value.type.tensor_type.shape.dim[4].dim_value = 15


def unknown(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Denoise"


def not_finite(model: onnx.ModelProto) -> None:
    model.graph.node[0].CopyFrom(helper.make_node("Div", ["mix", "tra_sum"], ["part"]))
    model.graph.node.insert(
        0, helper.make_node("ReduceSum", ["tra_cache"], ["tra_sum"], keepdims=0)
    )


def loud(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "half":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(1000, np.float32), "half"))


CHANGES: dict[str, tuple[Change, list[str]]] = {
    "open axis": (opened("mix", 1), ["'bin'", "'mix'", "open"]),
    "open cache": (opened("conv_cache", 4), ["'conv_cache'", "open axis"]),
    "no next cache": (without("inter_cache_out"), ["states", "'inter_cache_out'"]),
    "other next cache": (shorter, ["'tra_cache'", "differ in shape"]),
    "unknown operation": (unknown, ["theirs.onnx", "ONNX Runtime rejects", "Denoise"]),
    "not finite": (not_finite, ["NaN or Inf", "is refused"]),
    "loud": (loud, ["times full scale", "is refused"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_graph_that_cannot_stream(name: str, tmp_path: Path) -> None:
    change, words = CHANGES[name]
    sentence = after(tmp_path, change)
    assert all(word in sentence for word in words), sentence


SPECS: dict[str, tuple[str, str, list[str]]] = {
    "rate": ("sample_rate = 16000", "sample_rate = 16001", ["sample_rate", "16001", "no device"]),
    "window": ('window = "hann"', 'window = "kaiser"', ["window", "'kaiser'"]),
    "bins": ("window_length = 512", "window_length = 480", ["window_length", "241", "257"]),
    "hop": ("hop_length = 256", "hop_length = 600", ["hop_length", "600"]),
    "no reconstruction": ("hop_length = 256", "hop_length = 512", ["does not reconstruct"]),
    "delay": (
        "hop_length = 256",
        "hop_length = 256\ndelay = 256",
        ["delay", "later than declared"],
    ),
    "part of a hop": ("hop_length = 256", "hop_length = 256\ndelay = 100", ["delay", "100"]),
    "kind": ('kind = "spectrum"', 'kind = "wavelets"', ["kind", "'wavelets'"]),
    "other kind": ('kind = "spectrum"', 'kind = "samples"', ["input_axes", "'sample'"]),
    "input": ('input = "mix"', 'input = "sound"', ["input", "'sound'", "'mix'"]),
    "axes": ('"frame", "part"]', '"part"]', ["input_axes", "3", "'mix'"]),
    "axis": ('"frame", "part"]', '"frame", "colour"]', ["axes", "'colour'"]),
    "part": ('"bin", "frame", "part"]', '"frame", "bin", "part"]', ["'frame'", "1", "257"]),
    "type": ("hop_length = 256", 'hop_length = "256"', ["hop_length", "type"]),
    "unknown": ("hop_length = 256", "hop_size = 256", ["hop_size", "unknown"]),
    "missing": ("hop_length = 256", "", ["hop_length", "missing"]),
    "no caches": ("[networks.states]", "[networks.options]", ["options"]),
    "cut": ("[networks.states]", "[networks.states", ["TOML"]),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_description_that_contradicts_the_graph(name: str, tmp_path: Path) -> None:
    old, new, words = SPECS[name]
    assert old in TEXT
    sentence = after(tmp_path, lambda _: None, TEXT.replace(old, new))
    assert all(word in sentence for word in words), sentence


def test_a_graph_without_caches(tmp_path: Path) -> None:
    text = TEXT.split("[networks.states]")[0]
    assert "does not stream" in after(tmp_path, lambda _: None, text)


def test_weights_in_another_file(tmp_path: Path) -> None:
    model = foreign.spectrum()
    external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save_model(model, str(tmp_path / "theirs.onnx"))
    sentence = output_of(tmp_path, tmp_path / "theirs.onnx")
    assert "in another file" in sentence


def test_a_file_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foreign.save(foreign.spectrum(), tmp_path / "theirs.onnx")
    monkeypatch.setattr(network, "MAX_BYTES", 1000)
    assert "larger than" in output_of(tmp_path, path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"\x08\x07" * 50])
def test_a_file_that_is_no_graph(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    path.write_bytes(content)
    assert "not an ONNX file" in output_of(tmp_path, path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "can't be read" in output_of(tmp_path, tmp_path / "theirs.onnx")
    path = foreign.save(foreign.spectrum(), tmp_path / "theirs.onnx")
    assert "can't be read" in output_of(tmp_path, path, "--spec", tmp_path / "none.toml")


def test_a_bundle_has_the_suffix_of_one_and_a_place(tmp_path: Path) -> None:
    path = foreign.save(foreign.spectrum(), tmp_path / "theirs.onnx")
    sentence = refused("adopt", path, "--as", "x", "-o", tmp_path / "x.md")
    assert "must end in .onnx" in sentence
    (tmp_path / "file").write_text("")
    sentence = refused("adopt", path, "--as", "x", "-o", tmp_path / "file" / "x.onnx")
    assert "can't be written" in sentence
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "theirs.onnx"]


def test_two_files_for_one_network(tmp_path: Path) -> None:
    path = foreign.save(foreign.spectrum(), tmp_path / "theirs.onnx")
    (tmp_path / "spec.toml").write_text(TEXT, encoding="utf-8")
    sentence = output_of(tmp_path, path, path, "--spec", tmp_path / "spec.toml")
    assert "networks" in sentence


def test_sherpa_metadata_is_read_and_checked(tmp_path: Path) -> None:
    metadata = {
        "sample_rate": "16000",
        "n_fft": "512",
        "hop_length": "256",
        "window_length": "512",
        "window_type": "hann_sqrt",
        **{f"{k}_shape": ",".join(map(str, v)) for k, v in foreign.SPECTRUM.items()},
        "model_type": "gtcrn",
        "license": "MIT",
    }
    renamed = foreign.spectrum(**metadata)
    text = renamed.SerializeToString().replace(b"\x03mix", b"\x03wet")  # no known name
    renamed = onnx.load_model_from_string(text)
    path = foreign.save(renamed, tmp_path / "theirs.onnx")
    from tests.support.command import rtsep

    result = rtsep("adopt", path, "--as", "x", "-o", tmp_path / "ours.onnx")
    assert result.exit_code == 0, result.output
    assert "MIT" in result.output
    (tmp_path / "ours.onnx").unlink()
    (tmp_path / "ours.md").unlink()
    for key, value, words in (
        ("hop_length", "a quarter", ["hop_length", "whole number"]),
        ("n_fft", "1024", ["n_fft", "window_length"]),
        ("window_type", "kaiser", ["window_type", "'kaiser'"]),
        ("conv_cache_shape", "2,1,16,16,34", ["conv_cache_shape", "34"]),
        ("sample_rate", "16001", ["sample_rate", "16001"]),
    ):
        changed = onnx.ModelProto()
        changed.CopyFrom(renamed)
        for entry in changed.metadata_props:
            if entry.key == key:
                entry.value = value
        sentence = output_of(tmp_path, foreign.save(changed, tmp_path / "theirs.onnx"))
        assert all(word in sentence for word in words), sentence


def test_every_known_description_is_valid() -> None:
    for path in KNOWN.glob("*.toml"):
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        assert of_table(table).sample_rate in RATES_HZ
        with pytest.raises(AdoptError, match="networks"):
            of_table({**table, "networks": []})
