"""A bundle knows what it is, and whatever is not one is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.cli.show import facts
from rtsep.dsp.windows import NAMES
from rtsep.errors import BundleError
from rtsep.runtime import bundle as bundles
from rtsep.runtime.bundle import KEYS, State, describe, load, parse
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec
from tests.support import models
from tests.support.models import Change, refused, refused_after

PAST = {"state.past": State((1, 1, 64), {1: "state.past"})}


def key(model: onnx.ModelProto, name: str) -> onnx.StringStringEntryProto:
    return next(p for p in model.metadata_props if p.key == f"rtsep.{name}")


def setting(name: str, value: str) -> Change:
    return lambda model: setattr(key(model, name), "value", value)


@pytest.mark.parametrize("floor", ["loud", "", "3", "nan", "inf"])
def test_impossible_floors(floor: str, tmp_path: Path) -> None:
    path = models.write(models.handmade(floor=floor), tmp_path / "a.onnx")
    assert f"rtsep.floor must be at most 0 dB, not {floor!r}" in refused(path)


def test_the_handmade_bundle_separates(tmp_path: Path) -> None:
    bundle = load(models.write(models.handmade(), tmp_path / "a.onnx"))
    assert bundle.path == tmp_path / "a.onnx"
    assert (bundle.spec, bundle.states) == (models.SPEC, PAST)
    assert bundle.state_bytes == 4 * 64
    x = np.random.default_rng(0).standard_normal((1000, 1)).astype("f4")
    engine = Engine(make_step(bundle), bundle.spec)
    y = np.concatenate([engine.process(x), engine.flush()])[engine.latency_samples :]
    np.testing.assert_allclose(y, x[:, None] * models.GAINS[:, None], atol=1e-6)


def test_a_separator_leaves_the_processor_as_it_is() -> None:
    """ONNX Runtime's treatment of denormals would hold for all arithmetic of the thread."""
    make_step(models.bundle())
    smallest = np.full(1, 1e-45, np.float32)
    assert (smallest * np.float32(1))[0] == smallest[0] > 0


def test_streams_are_independent_and_reset_is_a_new_start() -> None:
    bundle = models.bundle()
    step, alone = make_step(bundle, streams=3), make_step(bundle)
    x = np.random.default_rng(0).standard_normal((4, *step.mixture.shape)).astype("f4")
    for _ in range(2):
        for frame in x:
            step.mixture[:], alone.mixture[:] = frame, frame[1]
            step(), alone()
            np.testing.assert_array_equal(step.sources[1], alone.sources[0])
        step.reset(), alone.reset()


@given(
    st.builds(
        Spec,
        st.integers(4000, 192000),
        st.integers(1, 8),
        st.sampled_from(["stft", "waveform"]),
        st.sampled_from(NAMES),
        st.sampled_from([64, 128]),
        st.integers(1, 32),
        st.integers(1, 4),
        st.integers(0, 9),
        st.lists(st.sampled_from(["a", "b b", "ü", "voice-2"]), min_size=1, unique=True).map(tuple),
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40),
)
def test_metadata_survives_the_file(spec: Spec, text: str) -> None:
    bundle = parse(models.handmade(spec, training=text).SerializeToString())
    assert bundle.spec == spec
    assert bundle.metadata == {k.removeprefix("rtsep."): v for k, v in described(spec, text)}
    assert set(bundle.metadata) == set(KEYS)


def described(spec: Spec, text: str) -> list[tuple[str, str]]:
    return list(describe(spec, {**models.TEXTS, "training": text}).items())


def test_a_description_without_a_text_is_refused() -> None:
    with pytest.raises(BundleError, match="lacks name, licence"):
        describe(
            models.SPEC, {k: models.TEXTS[k] for k in models.TEXTS.keys() - {"name", "licence"}}
        )


def reaching_back(calls: int) -> onnx.ModelProto:
    """The handmade model, so many calls late: its state's input gets the number in its name."""
    model = models.handmade()
    name = f"state.past@{calls}"
    model.graph.node[0].input[0] = name
    next(i for i in model.graph.input if i.name == "state.past").name = name
    return model


@pytest.mark.parametrize("calls", [1, 2, 3, 7, 8, 1023])
def test_a_state_may_reach_back_many_calls(tmp_path: Path, calls: int) -> None:
    bundle = load(models.write(reaching_back(calls), tmp_path / "a.onnx"))
    assert bundle.states == {"state.past": State((1, 1, 64), {calls: f"state.past@{calls}"})}
    assert bundle.state_bytes == 4 * 64 * calls
    step = make_step(bundle, streams=2)
    frames = np.random.default_rng(0).standard_normal((calls + 20, *step.mixture.shape))
    for run in range(2):  # the second after a reset in the middle of the rings
        for i, frame in enumerate(frames.astype("f4")[: calls + 20 - run]):
            step.mixture[:] = frame
            step()
            late = frames[i - calls] if i >= calls else np.zeros_like(frame)
            np.testing.assert_allclose(
                step.sources, late[:, :, None] * models.GAINS[:, None, None], atol=1e-6
            )
        step.reset()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("state.past@1024", "has a delay of more than 1023 calls"),
        ("state.past@0", "neither mixture nor state"),
        ("state.past@x", "neither mixture nor state"),
        ("state.past@999999999999", "neither mixture nor state"),
        ("state.@2@2", "neither mixture nor state"),
        ("state.other@2", "has no output 'next_state.other'"),
    ],
)
def test_a_state_with_an_impossible_reach(tmp_path: Path, name: str, reason: str) -> None:
    model = reaching_back(2)
    model.graph.node[0].input[0] = name
    model.graph.input[1].name = name
    assert reason in refused(models.write(model, tmp_path / "a.onnx"))


def test_the_same_state_twice(tmp_path: Path) -> None:
    model = models.handmade()
    model.graph.input.append(model.graph.input[1])
    model.graph.input[-1].name = "state.past@1"
    assert "are the same state" in refused(models.write(model, tmp_path / "a.onnx"))


def test_too_many_states(tmp_path: Path) -> None:
    model = models.handmade()
    for i in range(300):
        model.graph.input.append(model.graph.input[1])
        model.graph.input[-1].name = f"state.past@{i + 2}"
    assert "it has 301 states, more than the limit of 256" in refused(
        models.write(model, tmp_path / "a.onnx")
    )


def test_cost_and_facts_of_the_real_architecture() -> None:
    module, bundle = models.chandna()
    bins, vertical, horizontal, taps, bottleneck = 33, 4, 3, 2, 5
    positions, used, sources = 3, 2, 2  # of a window of 4 frames, for the last but one of them
    per_frame = bins * vertical + vertical * horizontal * taps
    per_frame += horizontal * bottleneck * positions + bottleneck * sources * used * horizontal
    per_frame += sources * (used * horizontal * vertical + vertical * bins)
    weights = sum(p.numel() for p in module.parameters())
    # A row of ones adds up real and imaginary parts; with two sources the same adds up those.
    per_frame += (2 + sources) * bins
    weights += 2
    assert bundle.cost() == (weights, per_frame * 16000 // 16)
    told = facts(bundle)
    assert told["rate"] == "16000 Hz" and told["sources"] == "speech, noise"
    assert told["latency"] == (
        "5.0 ms = window + lookahead (1 frames); 4.0 ms in blocks of whole hops: overlap 3.0 ms, "
        "lookahead 1.0 ms"
    )
    assert told["size"].endswith(f" MB, {weights:,} weights")
    for name, state in bundle.states.items():
        assert f"{name} {list(state.shape)}" in told["states"]
    assert told["licence"] == "MIT" and told["training"] == "none"


def test_what_is_not_a_bundle(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.onnx").lower()
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "file").touch()
    assert "directory" in refused(tmp_path / "file" / "below.onnx")
    for content in (b"", b"hello", b"RIFF\0\0\0\0WAVEfmt ", b"\0" * 1000):
        sentence = refused(models.write(content, tmp_path / "a.onnx"))
        assert "not an ONNX file" in sentence or "rtsep.format is None" in sentence
    foreign = models.handmade()
    del foreign.metadata_props[:]
    sentence = refused(models.write(foreign, tmp_path / "foreign.onnx"))
    assert "rtsep.format is None, not 'rtsep.bundle.1'" in sentence


def test_a_cut_off_file(tmp_path: Path) -> None:
    whole = models.handmade().SerializeToString()
    for length in (1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        refused(models.write(whole[:length], tmp_path / "cut.onnx"))


def test_the_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.write(models.handmade(), tmp_path / "a.onnx")
    monkeypatch.setattr(bundles, "MAX_BYTES", path.stat().st_size)
    load(path)
    monkeypatch.setattr(bundles, "MAX_BYTES", path.stat().st_size - 1)
    assert "larger than" in refused(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_a_file_without_an_end_is_not_read_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_BYTES", 1000)
    assert "larger than" in refused(Path("/dev/zero"))


@pytest.mark.parametrize("name", KEYS)
def test_every_key_is_needed(tmp_path: Path, name: str) -> None:
    sentence = refused_after(tmp_path, lambda model: model.metadata_props.remove(key(model, name)))
    assert f"rtsep.{name}" in sentence


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("format", "rtsep.bundle.2", "'rtsep.bundle.2', not 'rtsep.bundle.1'"),
        ("hop_length", "many", "must be a whole number, not 'many'"),
        ("hop_length", "16.0", "must be a whole number, not '16.0'"),
        ("hop_length", "", "must be a whole number, not ''"),
        ("hop_length", "9" * 5000, "must be a whole number"),
        ("hop_length", "0", "hop_length must be"),
        ("hop_length", "65", "must lie between hop_length 65 and"),
        ("synthesis_length", "65", "synthesis_length 65 must lie between hop_length 64 and"),
        ("synthesis_length", "-1", "must lie between"),
        ("sample_rate", "-1", "sample_rate must be"),
        ("sample_rate", "1" + "0" * 30, "sample_rate must be"),
        ("channels", "0", "channels must be"),
        ("chunk", "0", "chunk must be"),
        ("lookahead", "-1", "lookahead must be"),
        ("lookahead", "65000", "latency is 260 s"),
        ("frontend", "mel", "frontend must be"),
        ("window", "x" * 100_000, "[...]"),
        ("window", "kaiser", "unknown window 'kaiser'"),
        ("window", "hann", "does not reconstruct"),  # its zero is never covered by another frame
        ("sources", "", "not valid as the name of a source"),
        ("sources", "a,a", "distinct"),
        ("sources", "a,mixture", "'mixture' is not valid as the name"),
        ("sources", "a,../../b", "'../../b' is not valid as the name"),
        ("sources", "a,/b", "'/b' is not valid as the name"),
        ("sources", "a,b\0", "is not a plain text"),
        ("sources", "a", "'sources' must have shape"),
    ],
)
def test_impossible_metadata(tmp_path: Path, name: str, value: str, reason: str) -> None:
    assert reason in refused_after(tmp_path, setting(name, value))
