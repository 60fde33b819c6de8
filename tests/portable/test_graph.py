"""The portable graph equals the engine, and is refused where it can't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from rtsep import weights
from rtsep.errors import BundleError
from rtsep.learned.live import Noise, Rest, bundle
from rtsep.portable import transform
from rtsep.portable.check import check, run
from rtsep.portable.graph import build
from rtsep.runtime.bundle import Bundle, parse
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Float32, Spec
from tests.support import learned, models

LEARNED = ("nmf", "cnmf", "nae", "nae-deep", "ccae")
SPECS = {
    "waveform, no overlap": models.SPEC,
    "waveform, overlap": replace(models.SPEC, hop_length=16, window="hann"),
    "short synthesis": replace(models.SPEC, hop_length=16, window="hann", synthesis_length=32),
    "spectra": models.CHANDNA,
    "chunks": replace(models.CHANDNA, chunk=3, synthesis_length=48),
    "chunks of samples": replace(models.SPEC, hop_length=24, chunk=2, window="hamming"),
    "joint stereo": replace(models.CHANDNA, channels=2, chunk=2),
    "odd sizes": replace(models.CHANDNA, window_length=2 * 31 * 3, hop_length=62),
}


def difference(made: Bundle, channels: int, mixture: Float32) -> float:
    """Largest difference between graph and engine."""
    portable = build(made, channels)
    engine = Engine(
        make_step(made, made.spec.streams(channels)), made.spec, channels, portable.block
    )
    assert portable.latency_samples == engine.latency_samples
    expected = engine.process(mixture)
    found = run(portable, mixture)
    assert np.abs(expected).max() > 0.01
    return float(np.abs(found - expected).max())


def noise(length: int, channels: int) -> Float32:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (length, channels)).astype(np.float32)


@pytest.mark.parametrize("name", weights.names())
def test_every_shipped_bundle_equals_the_engine(name: str) -> None:
    made = weights.find(name)
    assert check(build(made), made) <= 1e-5


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_sources_equal_the_engine(kind: str) -> None:
    made = bundle([learned.source("a", kind), learned.source("b", kind, seed=1)])
    assert check(build(made), made) <= 1e-5


def test_sources_that_adapt_equal_the_engine() -> None:
    voice = learned.source("voice")
    first = np.random.default_rng(0).uniform(0.1, 1.9, (4, learned.BINS)).astype(np.float32)
    for made in (
        bundle([voice], rest=Rest("rest", first)),
        bundle([voice], noise=Noise("noise", 0.3, rank=4)),  # learns, then separates
    ):
        assert check(build(made), made) <= 1e-5


@pytest.mark.parametrize("name", SPECS)
def test_every_front_end_equals_the_engine(name: str) -> None:
    made = models.bundle(SPECS[name])
    for channels in (2,) if made.spec.channels == 2 else (1, 3):
        assert difference(made, channels, noise(20 * made.spec.step_length, channels)) < 1e-6


def test_a_state_read_much_later_equals_the_engine() -> None:
    """A delay of five calls and one of two, of the same state."""
    model = models.handmade(replace(models.SPEC, lookahead=5))
    state = model.graph.input[1]
    state.name = "state.past@5"
    second = model.graph.input.add()
    second.CopyFrom(state)
    second.name = "state.past@2"
    model.graph.node[0].input[0] = "sum"
    model.graph.node.insert(0, helper.make_node("Add", ["state.past@5", "state.past@2"], ["sum"]))
    made = parse(model.SerializeToString())
    assert difference(made, 2, noise(64 * 20, 2)) < 1e-6


def test_non_finite_samples_are_silence_and_a_broken_model_is_reset() -> None:
    """The model of `handmade` with the reciprocal of its first value in the output."""
    model = models.handmade()
    model.graph.node[1].input[0] = "broken"
    model.graph.node.insert(1, helper.make_node("Add", ["late", "inverse"], ["broken"]))
    model.graph.node.insert(1, helper.make_node("Mul", ["quotient", "zero"], ["inverse"]))
    model.graph.node.insert(1, helper.make_node("Div", ["late", "late_shifted"], ["quotient"]))
    model.graph.node.insert(1, helper.make_node("Sub", ["late", "half"], ["late_shifted"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0.5]), "half"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0.0]), "zero"))
    made = parse(model.SerializeToString())
    mixture = noise(64 * 12, 2) * 0.9
    mixture[100, 0], mixture[230, 1], mixture[231, 1] = np.nan, np.inf, 2e30
    mixture[300, 1] = 0.5  # the model divides by zero in the next call, in this stream
    engine = Engine(make_step(made, 2), made.spec, 2, 64)
    expected = engine.process(mixture)
    assert engine.nonfinite_in == 3 and engine.nonfinite_out == 1
    np.testing.assert_allclose(run(build(made, 2), mixture), expected, atol=1e-6)


def test_streams_of_a_batch_are_independent_and_sources_can_be_separate() -> None:
    import onnxruntime

    made = models.bundle(models.CHANDNA)
    portable = build(made, batch=True)
    assert portable.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    session = onnxruntime.InferenceSession(portable.model.SerializeToString())
    mixture = noise(16 * 8, 3)
    state, parts = np.zeros((3, portable.state_size), np.float32), []
    for start in range(0, len(mixture), 16):
        block = np.ascontiguousarray(mixture[start : start + 16].T[:, None])
        sources, state = session.run(None, {"mixture": block, "state": state})
        parts.append(sources)
    found = np.concatenate(parts, axis=3)[:, :, 0].transpose(2, 1, 0)
    for stream in range(3):
        alone = run(build(made, separate=True), mixture[:, [stream]])
        np.testing.assert_allclose(found[:, :, [stream]], alone, atol=1e-6)
    assert [o.name for o in build(made, separate=True).model.graph.output] == [
        "speech",
        "noise",
        "next_state",
    ]


def test_only_operations_of_opset_17_and_pairs_of_states() -> None:
    for name in weights.names():
        made = weights.find(name)
        model = build(made).model
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        inputs, outputs = (
            {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
            for values in (model.graph.input, model.graph.output)
        )
        assert set(inputs) == {"mixture", "state"} and set(outputs) == {"sources", "next_state"}
        assert inputs["state"] == outputs["next_state"]
        assert inputs["mixture"][:2] == [1, made.spec.channels]
        assert {node.domain for node in model.graph.node} == {""}


def test_newer_operations_are_lowered_or_refused() -> None:
    """Split in equal parts, a reduction with axes, pads of one axis; Gelu has no older form."""
    made = Spec(16000, 1, "waveform", "rectangular", 64, 64, 1, 1, ("speech", "noise"))
    model = models.handmade(made)
    nodes = [
        helper.make_node("Split", ["mixture"], ["left", "right"], axis=3, num_outputs=2),
        helper.make_node("ReduceMax", ["left", "last"], ["highest"]),
        helper.make_node("Pad", ["right", "pads", "", "last"], ["padded"]),
        helper.make_node("Add", ["padded", "highest"], ["together"]),
    ]
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)
    model.graph.node[-1].input[0] = "together"
    for name, values in {"last": [3], "pads": [32, 0]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    assert difference(parse(model.SerializeToString()), 1, noise(64 * 9, 1)) < 1e-6

    model.opset_import[0].version = 20
    model.graph.node[-1].op_type = "Gelu"
    newer = parse(model.SerializeToString())
    with pytest.raises(BundleError, match=r"^tiny can't be made portable: .* Gelu is not in opset"):
        build(newer)


@given(
    rows=st.integers(1, 40),
    hops=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_the_products_are_the_transform(rows: int, hops: int, seed: int) -> None:
    """Against numpy's transform in double precision, for any even length."""
    import onnxruntime

    from rtsep.learned.onnxgraph import Writer

    length = 2 * rows
    rng = np.random.default_rng(seed)
    window = rng.uniform(0, 1, length).astype(np.float32)
    end = rng.uniform(0, 1, -(-length // hops)).astype(np.float32)
    frames = rng.standard_normal((3, length)).astype(np.float32)
    g = Writer()
    spectra = transform.forward(g, g.input("frames", (length,)), window)
    g.output(spectra, "spectra", (2, rows + 1))
    g.output(transform.inverse(g, spectra, length, end), "samples", (len(end),))
    session = onnxruntime.InferenceSession(g.model("both", 17, 8).SerializeToString())
    found, samples = session.run(None, {"frames": frames})
    expected = np.fft.rfft(frames.astype(np.float64) * window)
    np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], expected, atol=1e-5 * length)
    back = (frames.astype(np.float64) * window)[:, -len(end) :] * end
    np.testing.assert_allclose(samples, back, atol=1e-5)


def test_metadata_tell_the_figures(tmp_path: Path) -> None:
    portable = build(weights.find("speech"))
    told = {p.key: p.value for p in portable.model.metadata_props}
    assert told["rtsep.format"] == "rtsep.portable.1"
    assert told["rtsep.block"] == "128" and told["rtsep.latency_samples"] == "128"
    assert told["rtsep.sources"] == "speech,noise" and told["rtsep.licence"]
    onnx.save(portable.model, tmp_path / "p.onnx")
    with pytest.raises(BundleError, match=r"rtsep\.portable\.1"):
        weights.find(tmp_path / "p.onnx")
