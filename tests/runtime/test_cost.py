"""What a change must not make worse unnoticed: counts, not times, which `bench` measures."""

from __future__ import annotations

import onnx
import pytest

from rtsep import weights
from rtsep.latency import Latency
from rtsep.runtime.model_step import make_step
from rtsep.runtime.tape_step import TapeStep

KNOWN = {
    # latency in samples; nodes of the graph; steps of its tape, 0 without one; weights;
    # multiply-accumulates per second of audio; bytes of state
    "chandna-speech": (896, 54, 38, 184036, 22992500, 12592),
    "convtasnet-speakers": (16, 265, 186, 330524, 161793000, 129036),
    "dilated-speakers": (448, 369, 338, 38080, 303936250, 2079952),
    "isa": (512, 111, 90, 12444, 13772637, 102604),
    "iva": (256, 427, 332, 8, 0, 82012),
    "keep": (128, 428, 295, 1936425, 948226000, 1051660),
    "music": (768, 54, 37, 243158, 33869145, 4368),
    "repet": (1024, 52, 0, 0, 38032762, 3532476),
    "speakers": (128, 393, 278, 1936681, 960514000, 1051660),
    "speech-fast": (48, 281, 93, 108264, 1036629333, 13824),
    "speech": (128, 381, 134, 233562, 783360250, 34840),
}
"""Of the shipped models. A change for the better is entered here."""


@pytest.mark.parametrize("name", weights.names())
def test_a_models_cost_is_known(name: str) -> None:
    bundle = weights.find(name)
    latency = Latency.of(bundle.spec, bundle.spec.step_length).total
    nodes = len(onnx.load_model_from_string(bundle.graph).graph.node)
    step = make_step(bundle)
    steps = len(step.program.operations) if isinstance(step, TapeStep) else 0
    assert (latency, nodes, steps, *bundle.cost(), bundle.state_bytes) == KNOWN[name]
