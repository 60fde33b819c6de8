"""Graphs that break the contract, weights that can't be, damage at random: one sentence each."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rtsep.cli.show import facts
from rtsep.errors import BundleError
from rtsep.runtime import ort_step
from rtsep.runtime.bundle import parse
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec
from tests.support import models
from tests.support.models import Change, refused, refused_after


def dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return value.type.tensor_type.shape.dim


def rename(which: str, name: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        values = getattr(model.graph, which)
        values[-1].name = name

    return change


STATE = "'state.past'"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.graph.output.pop(), f"{STATE} has no output 'next_state.past'"),
        (lambda m: m.graph.input.pop(), "'next_state.past' belongs to no state"),
        (rename("output", "next_state.other"), f"{STATE} has no output"),
        (rename("input", "past"), "input 'past' that is neither mixture nor state"),
        (lambda m: m.graph.input.pop(0), "no 'mixture'"),
        (lambda m: m.graph.output.pop(0), "no 'sources'"),
        (lambda m: setattr(dims(m.graph.input[1])[3], "dim_value", 65), f"{STATE} has no output"),
        (lambda m: setattr(dims(m.graph.input[1])[3], "dim_param", "n"), f"{STATE} has no output"),
        (lambda m: setattr(dims(m.graph.input[0])[3], "dim_value", 65), "'mixture' must have"),
        (lambda m: setattr(dims(m.graph.input[0])[0], "dim_value", 1), "'mixture' must have"),
        (lambda m: dims(m.graph.input[0]).pop(), "'mixture' must have shape"),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64),
            "'mixture' is not float32",
        ),
    ],
)
def test_graphs_that_break_the_contract(tmp_path: Path, change: Change, reason: str) -> None:
    assert reason in refused_after(tmp_path, change)


@pytest.mark.parametrize("size", [1 << 27, 1 << 62, 0, -5])
def test_an_absurd_state(tmp_path: Path, size: int) -> None:
    def change(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[1], model.graph.output[1]):
            dims(value)[3].dim_value = size

    assert "empty or too large for a state" in refused_after(tmp_path, change)


def test_absurd_frames(tmp_path: Path) -> None:
    spec = Spec(16000, 1 << 20, "waveform", "rectangular", 64, 64, 1, 0, ("a", "b"))
    sentence = refused(models.write(models.handmade(spec), tmp_path / "a.onnx"))
    assert "too large for one call" in sentence


def with_weight(**fields: object) -> Change:
    """Change the weight ``gains``, which a Constant node may hold as well."""

    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        for name, value in fields.items():
            setattr(weight, name, value)

    return change


def external(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")


@pytest.mark.parametrize("in_node", [False, True])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            with_weight(raw_data=np.array([1, np.nan], "f4").tobytes()),
            "'gains' contains NaN or Inf",
        ),
        (
            with_weight(raw_data=np.array([-np.inf, 1], "f4").tobytes()),
            "'gains' contains NaN or Inf",
        ),
        (with_weight(raw_data=b"\0" * 7), "'gains' is truncated"),
        (with_weight(raw_data=b""), "'gains' is truncated"),
        (external, "'gains' is in another file"),
    ],
)
def test_weights_that_cannot_be(tmp_path: Path, change: Change, reason: str, in_node: bool) -> None:
    def damage(model: onnx.ModelProto) -> None:
        change(model)
        if in_node:
            weight = model.graph.initializer.pop(0)
            model.graph.node.insert(0, helper.make_node("Constant", [], ["gains"], value=weight))

    assert reason in refused_after(tmp_path, damage)


def replace_mul(op: str, **attributes: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node(op, list(model.graph.node[1].input), ["sources"], **attributes)
        model.graph.node[1].CopyFrom(node)

    return change


def nan_for_silence(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "scaled"
    model.graph.node.append(helper.make_node("Div", ["scaled", "late"], ["sources"]))


def other_shape(model: onnx.ModelProto) -> None:
    gains = np.ones((1, 1, 3, 1, 1), np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(gains, "gains"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (nan_for_silence, "silence or noise has NaN or Inf"),
        (replace_mul("NoSuchOperator"), "ONNX Runtime rejects the graph"),
        (replace_mul("Mul", domain="org.example"), "its graph is malformed"),
        (replace_mul("LeakyRelu", alpha=float("nan")), "of a 'LeakyRelu' node is NaN or Inf"),
        (other_shape, "the graph"),
        (lambda m: setattr(m.opset_import[0], "version", 9999), "ONNX Runtime rejects the graph"),
    ],
)
def test_graphs_that_do_not_run(
    tmp_path: Path, change: Change, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert reason in refused_after(tmp_path, change)
    assert capfd.readouterr() == ("", ""), "said once, by the exception"


def making(op: str, **constants: object) -> Change:
    """Let the graph make something out of constants, and add its maximum to the sources."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[1].output[0] = "had"
        for name, value in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        model.graph.node.append(helper.make_node(op, list(constants), ["more"]))
        model.graph.node.append(helper.make_node("ReduceMax", ["more"], ["most"], keepdims=0))
        model.graph.node.append(helper.make_node("Add", ["had", "most"], ["sources"]))

    return change


@pytest.mark.parametrize("size", [1 << 28, 1 << 40])
@pytest.mark.parametrize("op", ["ConstantOfShape", "Range"])
def test_a_graph_that_asks_for_too_much_memory(tmp_path: Path, op: str, size: int) -> None:
    given = {"size": np.array([size])}
    if op == "Range":
        given = {"from": np.float32(0), "to": np.float32(size), "by": np.float32(1)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentence = refused_after(tmp_path, making(op, **given))
    assert "ONNX Runtime rejects the graph" in sentence or "the graph does not run" in sentence
    assert "onnxruntime_src" not in sentence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000, "in kB"


def test_a_graph_that_takes_too_much_work(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        making("MatMul", left=1, right=1)(model)
        del model.graph.initializer[-2:]
        size = numpy_helper.from_array(np.array([1 << 14, 1 << 14]), "size")
        model.graph.initializer.append(size)
        for name in ("left", "right"):
            node = helper.make_node("ConstantOfShape", ["size"], [name])
            model.graph.node.insert(0, node)

    assert "it takes 4e+12 multiply-accumulates" in refused_after(tmp_path, change)


def test_a_graph_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_step, "MAX_START_S", 0.3)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", [a], [b]) for a, b in (("go", "goes"), ("x", "y"))],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("x", TensorProto.FLOAT, None),
        ],
        [value("goes", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
    )

    def change(model: onnx.ModelProto) -> None:
        making("Loop", turns=np.array(1 << 62), forth=np.array(True))(model)
        loop = model.graph.node[2 + 1]
        loop.input.append("had")
        loop.attribute.append(helper.make_attribute("body", body))

    assert "three calls of the graph take more than" in refused_after(tmp_path, change)


def test_a_state_too_large_for_so_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_step, "MAX_MEMORY", 1 << 20)
    make_step(models.bundle(), streams=100)
    with pytest.raises(
        BundleError, match="frames of 2000 streams take 2 MiB, more than the limit of 1"
    ):
        make_step(models.bundle(), streams=2000)


def test_functions(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node("Identity", ["x"], ["y"])
        opsets = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("a", "f", ["x"], ["y"], [node], opsets))

    assert "functions, which are not supported" in refused_after(tmp_path, change)


def test_names_that_a_terminal_would_obey(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[1].name = "\x1b[31m"
        model.graph.node[1].op_type = "\x1b[31m"

    assert refused_after(tmp_path, change).isprintable()


def test_a_provider_that_is_not_there() -> None:
    with pytest.raises(BundleError, match="NoSuchProvider is not available here"):
        make_step(models.bundle(), providers=("NoSuchProvider",))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_at_random_it_runs_or_is_refused(seed: int) -> None:
    wholes = [models.handmade().SerializeToString(), models.chandna()[1].graph]
    outcomes = set()
    for turn in range(150):
        luck = random.Random(1000 * seed + turn)
        damaged = bytearray(luck.choice(wholes))
        for _ in range(luck.choice([1, 1, 1, 2, 5])):
            at = luck.randrange(len(damaged))
            how = luck.choice(["bit", "bit", "byte", "byte", "byte", "cut", "insert"])
            if how == "bit":
                damaged[at] ^= 1 << luck.randrange(8)
            elif how == "byte":
                damaged[at] = luck.randrange(256)
            elif how == "cut":
                del damaged[at : at + luck.choice([1, 4, 100, 10000])]
                damaged += b"" if damaged else b"\0"
            else:
                damaged[at:at] = luck.randbytes(4)
        try:
            bundle = parse(bytes(damaged))
            facts(bundle)
            step = make_step(bundle)
        except BundleError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
        else:
            step()
            outcomes.add("runs")
    assert outcomes == {"refused", "runs"}


NEGATIVE = """
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from rtsep.runtime import graph_cost as cost

def constant(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)

nodes = {
    "Split": helper.make_node(
        "Split", ["x"], [*(f"part{i}" for i in range(24)), "y"], axis=2, num_outputs=25
    ),
    "MaxPool": helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[50]),
    "Pad": helper.make_node("Pad", ["x", "pads"], ["y"]),
    "Identity": helper.make_node("Identity", ["x"], ["y"]),
}
for kind, node in nodes.items():
    graph = helper.make_graph(
        [node, helper.make_node("Slice", ["y", "starts", "ends", "axes"], ["z"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["streams", 1, 20])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["streams", 1, 5])],
        [
            constant("starts", 0), constant("ends", 5), constant("axes", 2),
            constant("pads", 0, 0, -15, 0, 0, -14),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    cost.multiply_accumulates(model)
    print(kind)
"""


def test_sizes_that_turn_negative_do_not_end_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NEGATIVE], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["Split", "MaxPool", "Pad", "Identity"], done.stderr
