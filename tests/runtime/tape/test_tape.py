"""A tape gives what ONNX Runtime gives, or is not laid out."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rtsep import weights
from rtsep.dsp.held import Held
from rtsep.errors import NoTapeError
from rtsep.learned import live as learned
from rtsep.learned.live import Noise, Rest
from rtsep.runtime.bundle import parse
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.runtime.ort_step import OrtStep
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.graph import Tape
from rtsep.runtime.tape.interpreter import NO_TAPE, PROGRAM
from rtsep.runtime.tape_step import TapeStep
from tests.support import models
from tests.support.learned import BINS, source
from tests.support.random_cases import cases

RNG = np.random.default_rng(0)


def noise(*shape: int) -> Any:
    return RNG.uniform(0.1, 2.0, shape).astype(np.float32)


def graph(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], constants: dict[str, Any], out: Any
) -> onnx.ModelProto:
    """``mixture`` of a shape to ``sources``."""
    given = helper.make_tensor_value_info("mixture", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("sources", TensorProto.FLOAT, out)
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    body = helper.make_graph(nodes, "g", [given], [made], tensors)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(tape: Tape, turn: int) -> None:
    """Run it once, as the run of this number."""
    program = NO_TAPE._replace(
        memory=tape.memory,
        operations=tape.operations,
        parameters=tape.parameters,
        cursors=np.array([turn, turn + 1, 0, 1]),
    )
    interpreter.run(Held(program, PROGRAM, interpreter.hold).address)


def both(model: onnx.ModelProto, x: Any) -> tuple[Any, Any]:
    """What a tape and ONNX Runtime make of it."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"mixture": x})[0]
    tape = Tape(model, {}, {})
    tape.memory[tape.temporary :] = np.nan
    tape.view("mixture")[:] = x
    run(tape, 0)
    return tape.view("sources"), expected


def one(kind: str, inputs: list[str], constants: dict[str, Any], out: Any, **more: Any) -> Any:
    """A graph of one node behind another, so that what it reads is not the input itself."""
    nodes = [
        helper.make_node("Identity", ["mixture"], ["x"]),
        helper.make_node(kind, inputs, ["y"], **more),
        helper.make_node("Identity", ["y"], ["sources"]),
    ]
    return lambda shape: graph(nodes, shape, constants, out)


GRU = {"a": noise(1, 24, 5) - 1, "b": noise(1, 24, 8) - 1, "c": noise(1, 48), "e": noise(1, 3, 8)}
PLAIN = {"hidden_size": 8, "linear_before_reset": 1}
BACKWARDS, ROWS = np.arange(3)[::-1], np.arange(3)[:, None] + np.arange(2)[::-1]
CUT = {"a": np.array([1]), "b": np.array([9]), "c": np.array([2])}
BOTH = {
    **{"a": noise(2, 24, 5) - 1, "b": noise(2, 24, 8) - 1, "c": noise(2, 48)},
    "e": noise(2, 3, 8),
}
LSTM = {
    **{"a": noise(1, 32, 5) - 1, "b": noise(1, 32, 8) - 1, "c": noise(1, 64)},
    **{"d": noise(1, 1, 8), "e": noise(1, 1, 8)},
}
WINDOWS = np.arange(3)[:, None] + np.arange(4)


def convolved(
    kind: str, weights: tuple[int, ...], out: tuple[int, ...], shape: tuple[int, ...], **more: Any
) -> Any:
    constants = {"a": noise(*weights) - 1, "b": noise(out[1])}
    return one(kind, ["x", "a", "b"], constants, out, **more), shape


APART = {"pads": [0, 2, 0, 2], "strides": [1, 2]}
CONVOLUTIONS = {
    "of one tap": convolved("Conv", (6, 4, 1, 1), (1, 6, 1, 33), (1, 4, 1, 33)),
    "to one result": convolved("Conv", (6, 4, 1, 3), (1, 6, 1, 1), (1, 4, 1, 3)),
    "of one value": convolved("Conv", (6, 4, 1), (1, 6, 1), (1, 4, 1), auto_pad="SAME_UPPER"),
    "along width": convolved("Conv", (6, 4, 1, 5), (1, 6, 1, 9), (1, 4, 1, 17), **APART),
    "in groups": convolved("Conv", (6, 2, 1, 5), (1, 6, 1, 9), (1, 4, 1, 17), group=2, **APART),
    "of each channel": convolved(
        *("Conv", (4, 1, 3, 3), (1, 4, 1, 9), (1, 4, 5, 9)),
        **{"group": 4, "pads": [0, 1, 0, 1], "dilations": [2, 1]},
    ),
    "to rows": convolved("Conv", (6, 4, 2, 3), (1, 6, 3, 7), (1, 4, 4, 9)),
    "to rows in groups": convolved("Conv", (6, 2, 2, 3), (1, 6, 3, 7), (1, 4, 4, 9), group=2),
    "to rows of each channel": convolved("Conv", (4, 1, 2, 3), (1, 4, 3, 7), (1, 4, 4, 9), group=4),
    "of one axis": convolved("Conv", (6, 4, 3), (1, 6, 9), (1, 4, 9), pads=[1, 1]),
    "transposed": convolved("ConvTranspose", (4, 6, 1, 5), (1, 6, 1, 33), (1, 4, 1, 17), **APART),
    "transposed and cut unequally": convolved(
        *("ConvTranspose", (4, 6, 1, 5), (1, 6, 1, 33), (1, 4, 1, 17)),
        **{"pads": [0, 3, 0, 1], "strides": [1, 2]},
    ),
    "transposed in groups": convolved(
        *("ConvTranspose", (4, 3, 1, 5), (1, 6, 1, 34), (1, 4, 1, 17)),
        **{"group": 2, "output_padding": [0, 1], **APART},
    ),
    "transposed of each channel": convolved(
        *("ConvTranspose", (4, 1, 3, 3), (1, 4, 1, 9), (1, 4, 5, 9)),
        **{"group": 4, "pads": [4, 1, 4, 1], "dilations": [2, 1]},
    ),
}
CASES = {
    **{
        kind: (one(kind, ["x"], {}, (2, 3, 5)), (2, 3, 5))
        for kind in ("Sqrt", "Reciprocal", "Neg", "Exp", "Log", "Sigmoid", "Abs", "Tanh", "Relu")
    },
    "Softplus": (one("Softplus", ["x"], {}, (2, 30)), (2, 30)),
    "LeakyRelu": (one("LeakyRelu", ["x"], {}, (2, 30), alpha=0.3), (2, 30)),
    "PRelu": (one("PRelu", ["x", "a"], {"a": noise(1)}, (2, 30)), (2, 30)),
    "Clip": (
        one("Clip", ["x", "a", "b"], {"a": np.float32(0.5), "b": np.float32(1.0)}, (2, 30)),
        (2, 30),
    ),
    "Clip below": (one("Clip", ["x", "a"], {"a": np.float32(0.5)}, (2, 30)), (2, 30)),
    "Pow 2": (one("Pow", ["x", "a"], {"a": np.float32(2)}, (2, 30)), (2, 30)),
    "Pow": (one("Pow", ["x", "a"], {"a": np.float32(-0.35)}, (2, 30)), (2, 30)),
    "mean": (one("ReduceMean", ["x", "a"], {"a": np.array([2])}, (2, 3, 1)), (2, 3, 40)),
    "sum": (one("ReduceSum", ["x", "a"], {"a": np.array([1])}, (2, 5), keepdims=0), (2, 3, 5)),
    "sum of two": (one("ReduceSum", ["x", "a"], {"a": np.array([0, 1])}, (1, 1, 5)), (2, 3, 5)),
    "MatMul": (one("MatMul", ["x", "a"], {"a": noise(19, 7)}, (2, 3, 7)), (2, 3, 19)),
    "MatMul of many": (one("MatMul", ["x", "a"], {"a": noise(2, 19, 7)}, (2, 3, 7)), (2, 3, 19)),
    "Gemm": (
        one("Gemm", ["x", "a", "b"], {"a": noise(7, 19), "b": noise(7)}, (3, 7), transB=1),
        (3, 19),
    ),
    "Gemm and rows": (
        one("Gemm", ["x", "a", "b"], {"a": noise(19, 7), "b": noise(3, 7)}, (3, 7)),
        (3, 19),
    ),
    "Concat": (one("Concat", ["x", "a", "x"], {"a": noise(2, 1, 4)}, (2, 7, 4), axis=1), (2, 3, 4)),
    "Transpose": (one("Transpose", ["x"], {}, (4, 2, 3), perm=[2, 0, 1]), (2, 3, 4)),
    "Slice": (one("Slice", ["x", *"abc"], CUT, (2, 3, 3)), (2, 3, 4)),
    "Gather": (one("Gather", ["x", "a"], {"a": np.array(-1)}, (2, 4), axis=1), (2, 3, 4)),
    "Gather two": (
        one("Gather", ["x", "a"], {"a": np.array([1, 2])}, (2, 2, 4), axis=1),
        (2, 3, 4),
    ),
    "Gather backwards": (one("Gather", ["x", "a"], {"a": BACKWARDS}, (2, 3, 4), axis=1), (2, 3, 4)),
    "Gather rows": (one("Gather", ["x", "a"], {"a": ROWS}, (1, 3, 2, 4), axis=1), (1, 4, 4)),
    "Pad within": (
        one("Pad", ["x", "a"], {"a": np.array([0, 0, 1, 0, 0, 0, 2, 0])}, (1, 3, 7, 5)),
        (1, 3, 4, 5),
    ),
    "Pad": (one("Pad", ["x", "a"], {"a": np.array([0, 1, 0, 2])}, (3, 7)), (3, 4)),
    "MaxPool": (
        one("MaxPool", ["x"], {}, (2, 3, 2, 5), kernel_shape=[3, 1], strides=[3, 1]),
        (2, 3, 6, 5),
    ),
    "MaxPool of two": (
        one("MaxPool", ["x"], {}, (1, 1, 1, 5), kernel_shape=[2, 1], strides=[2, 1], pads=[0] * 4),
        (1, 1, 2, 5),
    ),
    "Concat of many rows": (
        one("Concat", ["x", "a"], {"a": noise(90, 3)}, (90, 7), axis=1),
        (90, 4),
    ),
    "Pad of many rows": (one("Pad", ["x", "a"], {"a": np.array([0, 1, 0, 2])}, (90, 7)), (90, 4)),
    "Transpose of runs": (one("Transpose", ["x"], {}, (40, 3, 4), perm=[1, 0, 2]), (3, 40, 4)),
    "LayerNormalization": (
        one("LayerNormalization", ["x", "a", "b"], {"a": noise(24), "b": noise(24)}, (2, 5, 24)),
        (2, 5, 24),
    ),
    "GRU": (one("GRU", ["x", *"abc", "", "e"], GRU, (6, 1, 3, 8), **PLAIN), (6, 3, 5)),
    "GRU backwards": (
        one("GRU", ["x", *"abc"], GRU, (6, 1, 3, 8), **PLAIN, direction="reverse"),
        (6, 3, 5),
    ),
    "GRU both ways": (
        one("GRU", ["x", *"abc", "", "e"], BOTH, (6, 2, 3, 8), **PLAIN, direction="bidirectional"),
        (6, 3, 5),
    ),
    "LSTM": (
        one("LSTM", ["x", *"abc", "", "d", "e"], LSTM, (1, 1, 1, 8), hidden_size=8),
        (1, 1, 5),
    ),
    "LSTM without states": (
        one("LSTM", ["x", *"ab"], LSTM, (1, 1, 1, 8), hidden_size=8),
        (1, 1, 5),
    ),
    **{f"Conv {name}": case for name, case in CONVOLUTIONS.items()},
    "BatchNormalization": (
        one("BatchNormalization", ["x", *"abcd"], dict.fromkeys("abcd", noise(3)), (1, 3, 2, 5)),
        (1, 3, 2, 5),
    ),
    "Gather inner rows": (
        one("Gather", ["x", "a"], {"a": WINDOWS}, (2, 3, 3, 4), axis=2),
        (2, 3, 6),
    ),
    "Gather inner rows of some": (
        one("Gather", ["x", "a"], {"a": WINDOWS}, (2, 3, 4, 5), axis=1),
        (2, 6, 5),
    ),
    "mean beside an axis of one": (
        one("ReduceMean", ["x", "a"], {"a": np.array([1, 3])}, (2, 1, 1, 1)),
        (2, 3, 1, 5),
    ),
    "Transpose of nothing": (
        one("Transpose", ["x"], {}, (3, 1, 4, 1), perm=[1, 0, 2, 3]),
        (1, 3, 4, 1),
    ),
    "Expand": (one("Expand", ["x", "a"], {"a": np.array([3, 5, 4])}, (3, 5, 4)), (3, 1, 4)),
    "Reshape": (one("Reshape", ["x", "a"], {"a": np.array([2, -1])}, (2, 12)), (2, 3, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_operation_is_that_of_onnx_runtime(name: str) -> None:
    make, shape = CASES[name]
    made, expected = both(make(shape), noise(*shape) * (-1 if name in ("Abs", "LeakyRelu") else 1))
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=2e-5, atol=1e-6)


SQUARE = np.stack(np.meshgrid([1, 2], [0, 1, 2], indexing="ij"), -1)


@pytest.mark.parametrize("again", [False, True])
def test_a_box_of_a_value_is_replaced_in_place_only_if_nothing_reads_it_later(again: bool) -> None:
    nodes = [
        helper.make_node("Add", ["mixture", "one"], ["x"]),
        helper.make_node("ScatterND", ["x", "box", "new"], ["y"]),
        helper.make_node("ScatterND", ["y", "box", "more"], ["z"]),
        helper.make_node("Add", ["z", "x" if again else "one"], ["sources"]),
    ]
    constants = {"one": noise(1), "box": SQUARE, "new": noise(2, 3, 5), "more": noise(2, 3, 5)}
    model = graph(nodes, (4, 3, 5), constants, (4, 3, 5))
    made, expected = both(model, noise(4, 3, 5))
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_constants_inputs_and_zeros_around_values_are_not_replaced_in_place() -> None:
    nodes = [
        helper.make_node("ScatterND", ["mixture", "box", "new"], ["a"]),
        helper.make_node("Add", ["a", "fixed"], ["before"]),  # what a turn before has left of it
        helper.make_node("ScatterND", ["fixed", "box", "new"], ["b"]),
        helper.make_node("Pad", ["mixture", "pads"], ["wide"]),
        helper.make_node("ReduceSum", ["wide"], ["whole"]),
        helper.make_node("ScatterND", ["wide", "box", "wider"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["d"]),
        helper.make_node("Add", ["before", "b"], ["e"]),
        helper.make_node("Add", ["e", "whole"], ["f"]),
        helper.make_node("Add", ["f", "d"], ["sources"]),
    ]
    constants = {
        **{"box": SQUARE, "new": noise(2, 3, 5), "fixed": noise(4, 3, 5)},
        **{"pads": np.array([0, 0, 0, 0, 0, 2]), "wider": noise(2, 3, 7)},
    }
    x = noise(4, 3, 5)
    _, expected = both(graph(nodes, (4, 3, 5), constants, (4, 3, 5)), x)
    tape = Tape(graph(nodes, (4, 3, 5), constants, (4, 3, 5)), {}, {})
    for _ in range(3):
        tape.view("mixture")[:] = x
        run(tape, 0)
        np.testing.assert_allclose(tape.view("sources"), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Greater", "Less"])
def test_a_choice_by_comparison(kind: str) -> None:
    nodes = [
        helper.make_node(kind, ["mixture", "a"], ["c"]),
        helper.make_node("Where", ["c", "mixture", "b"], ["sources"]),
    ]
    model = graph(nodes, (2, 3, 5), {"a": np.float32(1), "b": noise(3, 1)}, (2, 3, 5))
    made, expected = both(model, noise(2, 3, 5))
    np.testing.assert_allclose(made, expected, rtol=1e-6)


@cases(60)
@given(
    st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min"]),
    st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_broadcasting_is_that_of_numpy(
    kind: str, axes: list[tuple[int, bool, bool]], drop: int
) -> None:
    left = tuple(1 if a else size for size, a, _ in axes)
    right = tuple(1 if b else size for size, _, b in axes)[min(drop, len(axes) - 1) :]
    out = np.broadcast_shapes(left, right)
    model = one(kind, ["x", "a"], {"a": noise(*right)}, out)(left)
    made, expected = both(model, noise(*left))
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_states_come_back_after_as_many_turns() -> None:
    nodes = [
        helper.make_node("Add", ["state.a@1", "state.a@3"], ["late"]),
        helper.make_node("Identity", ["late"], ["sources"]),
        helper.make_node("Identity", ["mixture"], ["next_state.a"]),
    ]
    model = graph(nodes, (1, 2), {}, (1, 2))
    for name, group in (("state.a@1", "input"), ("state.a@3", "input"), ("next_state.a", "output")):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2))
        getattr(model.graph, group).append(value)
    tape = Tape(model, {"state.a": 4}, {f"state.a@{k}": ("state.a", k) for k in (1, 3)})
    heard = noise(20, 1, 2)
    for turn, x in enumerate(heard):
        tape.view("mixture")[:] = x
        run(tape, turn % 4)
        expected = sum(heard[turn - k] if turn >= k else 0 * x for k in (1, 3))
        np.testing.assert_array_equal(tape.view("sources"), expected)
    np.testing.assert_array_equal(tape.view("next_state.a")[19 % 4], heard[19])


SOURCES = {
    "+".join(kinds): [source(f"s{i}", kind, seed=i) for i, kind in enumerate(kinds)]
    for kinds in (("nmf", "nmf"), ("cnmf", "nmf"), ("nae", "nae-deep"), ("ccae", "ccae"))
}
OTHERS = {"rest": Rest("rest", noise(4, BINS)), "noise": Noise("noise", 0.5)}
MADE = {
    # The tape cannot sort, which `repet` needs.
    **{name: partial(weights.find, name) for name in weights.names() if name != "repet"},
    **{name: partial(learned.bundle, sources) for name, sources in SOURCES.items()},
    "all": partial(learned.bundle, SOURCES["cnmf+nmf"], **OTHERS),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_here_runs_on_a_tape_as_in_onnx_runtime(name: str) -> None:
    bundle = MADE[name]()
    quick, slow = make_step(bundle), make_step(bundle, threads=2)
    assert isinstance(quick, TapeStep) and isinstance(slow, OrtStep)
    engines = [Engine(step, bundle.spec, bundle.spec.channels) for step in (quick, slow)]
    samples = 0.1 * RNG.standard_normal((16000, bundle.spec.channels)).astype(np.float32)
    for part in np.array_split(samples, 30):
        quick.program.memory[quick.temporary :] = np.nan  # each run writes before it reads
        outs = [engine.process(np.ascontiguousarray(part)) for engine in engines]
        np.testing.assert_allclose(outs[0], outs[1], atol=2e-5)
    for engine in engines:  # a reset forgets everything, in the rings too
        engine.reset()
    again = [engine.process(samples) for engine in engines]
    np.testing.assert_allclose(again[0], again[1], atol=2e-5)


def test_a_tape_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TapeStep.__call__

    def deviating(step: TapeStep) -> None:
        run(step)
        step.sources *= 1.01

    monkeypatch.setattr(TapeStep, "__call__", deviating)
    assert isinstance(make_step(models.bundle()), OrtStep)


def test_what_is_not_known_stays_with_onnx_runtime() -> None:
    model = models.handmade()
    model.graph.node[-1].op_type = "Erf"
    assert isinstance(make_step(parse(model.SerializeToString())), OrtStep)
    assert isinstance(make_step(models.bundle()), TapeStep)


@pytest.mark.parametrize(
    ("kind", "constants", "out", "more"),
    [
        ("MaxPool", {}, (1, 2, 3), {"kernel_shape": [2]}),
        ("MaxPool", {}, (1, 1, 3, 4), {"kernel_shape": [2, 1]}),
        ("MaxPool", {}, (1, 1, 4, 2), {"kernel_shape": [1, 2], "strides": [1, 2]}),
        ("MaxPool", {}, (1, 1, 1, 4), {"kernel_shape": [3, 1], "strides": [3, 1]}),
        ("Slice", {"a": np.array([0]), "b": np.array([4]), "c": np.array([2]),
                   "d": np.array([2])}, (1, 2, 2), {}),
        ("Conv", {"a": noise(2, 1, 1, 2)}, (1, 2, 4, 4), {"auto_pad": "SAME_UPPER"}),
        ("ScatterND", {"a": np.array([[0, 0], [0, 1]]), "b": noise(2, 4)}, (1, 2, 4),
         {"reduction": "add"}),
        ("ScatterND", {"a": np.array([[0, 1], [0, 0]]), "b": noise(2, 4)}, (1, 2, 4), {}),
        ("ScatterND", {"a": np.array([[0, 0, 0], [0, 1, 3]]), "b": noise(2)}, (1, 2, 4), {}),
        ("Gather", {"a": RNG.integers(0, 2, 400)}, (1, 400, 4), {"axis": 1}),
        ("Pad", {"a": np.array([0, 1, 1, 0, 0, 0])}, (1, 3, 5), {}),
        ("Gemm", {"a": noise(4, 3)}, (2, 3), {"alpha": 2.0}),
        ("LayerNormalization", {"a": noise(2, 4)}, (1, 2, 4), {"axis": 1}),
        ("GRU", {"a": noise(1, 6, 4), "b": noise(1, 6, 2)}, (1, 1, 2, 2), {"hidden_size": 2}),
    ],
)  # fmt: skip
def test_what_can_not_be_laid_out_is_said(kind: str, constants: Any, out: Any, more: Any) -> None:
    shape = {2: (2, 4), 3: (1, 2, 4), 4: (1, 1, 4, 4)}[len(out)]
    with pytest.raises(NoTapeError):
        Tape(one(kind, ["x", *constants], constants, out, **more)(shape), {}, {})


def test_sizes_that_lie_are_not_believed() -> None:
    """Whatever a hostile graph claims of its results, nothing is read or written beside them."""
    nodes = [
        helper.make_node("Add", ["mixture", "mixture"], ["a"]),
        helper.make_node("Identity", ["a"], ["sources"]),
    ]
    model = graph(nodes, (1, 4), {}, (1, 4000))
    with pytest.raises(NoTapeError, match="has shape"):
        Tape(model, {}, {})
    model = graph(nodes, (1, 4), {}, (1, 4))
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 9)))
    assert both(model, noise(1, 4))[0].shape == (1, 4)
