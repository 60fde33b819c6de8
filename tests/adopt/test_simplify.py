"""A simplified graph gives the same with fewer products and without operations of one runtime."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime

from rtsep.adopt.simplify import simplified
from tests.support.foreign import model, node, value

LUCK = np.random.default_rng(0)


def noise(*shape: int) -> Any:
    return LUCK.standard_normal(shape).astype(np.float32)


def run(made: onnx.ModelProto, x: Any) -> Any:
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def test_products_with_a_vector_are_joined_and_fused_nodes_are_onnx() -> None:
    theirs = model(
        [
            node("FusedMatMul", "x many", "parts", domain="com.microsoft", alpha=0.5),
            node("Reshape", "parts image", "y"),
            node("FusedConv", "y taps", "z", domain="com.microsoft", activation="LeakyRelu",
                 activation_params=[0.25]),
            node("Reshape", "z plain", "spectrum"),
            node("Einsum", "spectrum back", "made", equation="fi,fij->j"),
        ],
        [value("x", [8])],
        [value("made", [8])],
        {
            "many": noise(5, 8, 2),
            "image": np.array([1, 1, 5, 2]),
            "taps": noise(1, 1, 1, 1),
            "plain": np.array([5, 2]),
            "back": noise(5, 2, 8),
        },
    )  # fmt: skip
    theirs.opset_import[0].version = 13
    ours = simplified(copy.deepcopy(theirs), "theirs.onnx")
    kinds = Counter(each.op_type for each in ours.graph.node)
    assert not kinds.keys() & {"FusedMatMul", "FusedConv", "Einsum"}
    assert kinds["MatMul"] == 2 and kinds["LeakyRelu"] == 1
    assert all(max(t.dims, default=1) < 80 for t in ours.graph.initializer)
    x = noise(8)
    np.testing.assert_allclose(run(ours, x), run(theirs, x), rtol=1e-5, atol=1e-6)
