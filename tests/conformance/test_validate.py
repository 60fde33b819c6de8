"""Every check passes on good bundles and finds the fault it is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rtsep import weights
from rtsep.conformance import checks
from rtsep.conformance.checks import CHECKS, Subject
from rtsep.conformance.report import validate
from rtsep.errors import ContractError
from rtsep.runtime.bundle import describe, parse
from rtsep.spec import Spec
from tests.support import models
from tests.support.command import rtsep

SPEC = Spec(16000, 1, "waveform", "rectangular", 64, 64, 1, 0, ("speech",))


def test_a_good_bundle_passes_with_a_figure_a_line(tmp_path: Path) -> None:
    path = models.write(models.handmade(), tmp_path / "good.onnx")
    result = rtsep("validate", path, "--strictness", 1)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 1 + len(CHECKS) and all(line.startswith("ok") for line in lines)
    for text in ("hop time", "difference", "block sizes", "µs"):
        assert text in result.output


@pytest.mark.soak
@pytest.mark.parametrize("name", weights.names())
def test_a_shipped_model_passes(name: str) -> None:
    """Every day, the documentation's command checks an adopted one."""
    path = weights.find(name).path
    assert path is not None
    findings = list(validate(path, strictness=1))
    assert [f.name for f in findings] == ["loading", *CHECKS]
    assert all(f.passed for f in findings), findings


def bundle(nodes: list[onnx.NodeProto], spec: Spec = SPEC, **constants: Any) -> Any:
    """A bundle of a graph with a state of one frame."""
    frame = ["streams", 1, 1, *spec.frame_shape]

    def value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [*nodes, helper.make_node("Unsqueeze", ["made", "two"], ["sources"])],
        "faulty",
        [value("mixture", frame), value("state.past", frame)],
        [value("sources", [*frame[:2], 1, *frame[2:]]), value("next_state.past", frame)],
        [
            numpy_helper.from_array(np.array([2]), "two"),
            *(numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for key, text in describe(spec, models.TEXTS).items():
        made.metadata_props.add(key=key, value=text)
    return parse(made.SerializeToString())


def node(kind: str, inputs: str, output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output])


GROWS = [
    node("Mul", "state.past more", "louder"),
    node("Add", "louder mixture", "next_state.past"),
    node("Identity", "next_state.past", "made"),
]
LATE = [node("Identity", "state.past", "made"), node("Identity", "mixture", "next_state.past")]
DARK = [node("Mul", "mixture zero", "made"), node("Identity", "mixture", "next_state.past")]
FAULTS: dict[str, tuple[Callable[[Subject], str], Any, str]] = {
    "grows": (checks.finite, (GROWS, {"more": 2.0}), "times full scale"),
    "late": (checks.aligned, (LATE, {}), "64 samples later than declared"),
    "dark": (checks.aligned, (DARK, {"zero": 0.0}), "not like speech"),
    "grows in silence": (checks.silence, (GROWS, {"more": 1.5}), "NaN or Inf|reaches"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str) -> None:
    check, (nodes, constants), text = FAULTS[fault]
    with pytest.raises(ContractError, match=text):
        check(Subject(bundle(nodes, **constants), strictness=1))


class Careless:
    """A step that breaks a rule of its own."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.mixture = np.zeros((1, 1, 1, 64), np.float32)
        self.sources = np.zeros((1, 1, 1, 1, 64), np.float32)
        self.calls = 0
        self.kept: list[Any] = []

    def __call__(self) -> None:
        self.calls += 1
        gain = 1.0 + 0.01 * self.calls
        self.sources[:, :, 0] = self.mixture * (gain if self.rule == "reset" else 1.0)
        if self.rule == "memory":
            self.kept.append(np.zeros(2000))

    def reset(self, stream: int | None = None) -> None:
        pass


@pytest.mark.parametrize(
    ("rule", "check", "text"),
    [
        ("reset", checks.state, "after a reset"),
        ("reset", checks.blocks, "change it"),
        ("memory", checks.resources, "bytes behind"),
    ],
)
def test_a_careless_step_is_found(
    rule: str, check: Callable[[Subject], str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Careless(rule)
    monkeypatch.setattr(checks, "make_step", lambda *_: step)
    subject = Subject(bundle(LATE), strictness=1)
    with pytest.raises(ContractError, match=text):
        check(subject)


def test_a_failure_is_a_line_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "late.onnx"
    path.write_bytes(bundle(LATE).graph)
    result = rtsep("validate", path, "--strictness", 1)
    assert result.exit_code == 1
    assert "FAIL alignment: the output is 64 samples later" in result.output
    assert "failed: alignment" in result.stderr


def test_what_never_ends_is_ended(tmp_path: Path) -> None:
    path = models.write(models.handmade(), tmp_path / "good.onnx")
    (finding,) = validate(path, strictness=1, limit_s=0.01)
    assert not finding.passed and "not done" in finding.text
