"""A scan over streams runs as it is, or as copies of its body."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from rtsep.adopt.adoption import adopt
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.model_step import make_step
from rtsep.runtime.ort_step import OrtStep
from rtsep.runtime.unroll import body_of, unrolled
from tests.support import foreign


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A graph for one stream, with states, products and weights outside its body."""
    folder = tmp_path_factory.mktemp("theirs")
    paths = [
        foreign.save(foreign.masker(), folder / "1.onnx"),
        foreign.save(foreign.mapper(), folder / "2.onnx"),
    ]
    return adopt(paths, "two")


@pytest.mark.parametrize("streams", [1, 2])
def test_copies_of_the_body_give_what_the_scan_gives(bundle: Bundle, streams: int) -> None:
    scanned, copied = OrtStep(bundle, streams), make_step(bundle, streams)
    assert body_of(onnx.load_model_from_string(copied.bundle.graph)) is None
    luck = np.random.default_rng(0)
    for _ in range(5):
        scanned.mixture[:] = copied.mixture[:] = luck.standard_normal(scanned.mixture.shape)
        scanned()
        copied()
        np.testing.assert_allclose(copied.sources, scanned.sources, atol=1e-5)


def test_the_cost_is_that_of_the_body(bundle: Bundle) -> None:
    weights, work = bundle.cost()
    transforms = 2 * (32 * 16 * 32 + 16 * 64 * 34)  # 16 and 32 points each, real and imaginary
    assert work == transforms * 125
    assert weights > 5000


def test_other_scans_are_left_as_they_are(bundle: Bundle) -> None:
    model = onnx.load_model_from_string(bundle.graph)
    inputs = len(model.graph.input)
    for name, value in (
        ("scan_input_directions", [1] * inputs),
        ("scan_input_axes", [1] * inputs),
        ("num_scan_inputs", inputs - 1),
    ):
        other = onnx.ModelProto()
        other.CopyFrom(model)
        scan = other.graph.node[0]
        kept = [a for a in scan.attribute if a.name != name]
        del scan.attribute[:]
        scan.attribute.extend([*kept, helper.make_attribute(name, value)])
        assert body_of(other) is None and unrolled(other, 1) is other
    other.graph.node.append(helper.make_node("Identity", ["mixture"], ["more"]))
    assert unrolled(other, 2) is other
