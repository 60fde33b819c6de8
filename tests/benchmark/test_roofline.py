"""Costs are counted and speeds measured right."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rtsep.benchmark import roofline
from rtsep.runtime import graph_cost
from tests.support import models


def products(side: int) -> onnx.ModelProto:
    """``y = x (a b)^T`` for square matrices."""
    pair = [numpy_helper.from_array(np.ones((side, side), np.float32), name) for name in "ab"]
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["ab"]),
        helper.make_node("Transpose", ["ab"], ["weight"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ]
    shape = ["streams", side]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph(nodes, "products", [x], [y], pair)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_what_depends_on_weights_alone_is_no_cost_of_a_call() -> None:
    assert graph_cost.weights(products(4)) == 2 * 4 * 4
    assert graph_cost.multiply_accumulates(products(4)) == (4 * 4, 4 * 4 * 4)


def test_a_cores_peak_is_plausible_and_takes_as_long_as_asked() -> None:
    start = time.perf_counter()
    peak = roofline.core_peak(0.1)
    assert time.perf_counter() - start > 0.1
    assert 1e7 < peak < 1e13
    assert roofline.core_peak(0.0) > 0  # one product at least


def test_share_is_operations_over_what_the_core_could_do() -> None:
    _, bundle = models.chandna()
    macs, _ = graph_cost.multiply_accumulates(onnx.load_model_from_string(bundle.graph))
    assert roofline.share(bundle, 2e-6, 1e9) == pytest.approx(2 * macs / (2e-6 * 1e9))


def test_speed_is_that_of_back_to_back_calls() -> None:
    _, bundle = models.chandna()
    start = time.perf_counter()
    found = roofline.speed(bundle, peak=1e11, seconds=0.2)
    assert time.perf_counter() - start > 0.2
    assert 1e-7 < found.median_s <= found.p99_s
    hop_s = bundle.spec.hop_length / bundle.spec.sample_rate
    assert found.real_time_factor == pytest.approx(found.median_s / hop_s)
    assert found.roofline_share == roofline.share(bundle, found.median_s, 1e11)
    assert 0 < found.roofline_share < 1
