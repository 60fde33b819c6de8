"""Models by others: small graphs of each kind, and plain loops over such graphs.

The small graphs have the inputs and outputs of the published ones, so that both are adopted alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Loop = Callable[[Any], Any]
SPECTRUM = {
    "conv_cache": (2, 1, 16, 16, 33),
    "tra_cache": (2, 3, 1, 1, 16),
    "inter_cache": (2, 1, 33, 16),
}
"""Caches of GTCRN."""


def value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, Any],
    **metadata: str,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "theirs", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 11), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=6)
    for key, text in metadata.items():
        made.metadata_props.add(key=key, value=text)
    return made


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def spectrum(**metadata: str) -> onnx.ModelProto:
    """Names and shapes of GTCRN: half the spectrum, a little of the last one, running means."""
    sound = (1, 257, 1, 2)
    nodes = [
        node("Mul", "mix half", "part"),
        node("Slice", "conv_cache from to", "past"),
        node("Reshape", "past sound", "before"),
        node("Mul", "before little", "echo"),
        node("Add", "part echo", "enh"),
        node("Reshape", "mix row", "flat"),
        node("Pad", "flat pads", "padded"),
        node("Reshape", "padded conv_shape", "conv_cache_out"),
        node("Mul", "tra_cache half", "tra"),
        node("Add", "tra little", "tra_cache_out"),
        node("Add", "inter_cache little", "inter_cache_out"),
    ]
    values = 2 * 16 * 16 * 33
    # The cache is flat inside: the first 514 values are the last spectrum.
    nodes[1:2] = [
        node("Reshape", "conv_cache line", "conv_line"),
        node("Slice", "conv_line from to", "past"),
    ]
    weights = {
        "half": np.float32(0.5),
        "little": np.float32(0.1),
        "from": np.array([0]),
        "to": np.array([514]),
        "sound": np.array(sound),
        "row": np.array([514]),
        "line": np.array([values]),
        "pads": np.array([0, values - 514]),
        "conv_shape": np.array(SPECTRUM["conv_cache"]),
    }
    return model(
        nodes,
        [value("mix", sound), *(value(k, v) for k, v in SPECTRUM.items())],
        [value("enh", sound), *(value(f"{k}_out", v) for k, v in SPECTRUM.items())],
        weights,
        **metadata,
    )


def masker() -> onnx.ModelProto:
    """Names and shapes of DTLN's first network: a mask that depends on magnitudes and state."""
    shape = (1, 2, 128, 2)
    return model(
        [
            node("ReduceMean", "input_3", "mean", axes=[0, 1, 2, 3], keepdims=0),
            node("Add", "input_2 mean", "sum"),
            node("Sigmoid", "sum", "activation_2"),
            node("Mul", "input_3 less", "kept"),
            node("Add", "kept one", "tf_op_layer_stack_2"),
        ],
        [value("input_2", (1, 1, 257)), value("input_3", shape)],
        [value("activation_2", (1, 1, 257)), value("tf_op_layer_stack_2", shape)],
        {"less": np.float32(0.5), "one": np.float32(1.0)},
    )


def mapper() -> onnx.ModelProto:
    """Names and shapes of DTLN's second network, with the open axes of its outputs."""
    shape = (1, 2, 128, 2)
    return model(
        [
            node("Mul", "input_4 quarter", "conv1d_3"),
            node("Add", "input_5 quarter", "tf_op_layer_stack_5"),
        ],
        [value("input_4", (1, 1, 512)), value("input_5", shape)],
        [value("conv1d_3", ("N", 1, 512)), value("tf_op_layer_stack_5", ("N", *shape[1:]))],
        {"quarter": np.float32(0.25)},
    )


def samples() -> onnx.ModelProto:
    """Names of DeepFilterNet's streaming export: the sound three blocks late, fused nodes."""
    return model(
        [
            node("Reshape", "input_frame image", "x"),
            node("FusedConv", "x plus", "up", domain="com.microsoft", activation="Relu"),
            node("FusedConv", "x minus", "down", domain="com.microsoft", activation="Relu"),
            node("Sub", "up down", "y"),
            node("Reshape", "y flat", "now"),
            node("Concat", "states now", "all", axis=0),
            node("Slice", "all a b", "late"),
            node("Slice", "all b c", "new_states"),
            node("Add", "late atten_lim_db", "enhanced_audio_frame"),
            node("ReduceMean", "late", "lsnr", axes=[0]),
        ],
        [value("input_frame", [512]), value("states", [1536]), value("atten_lim_db", [])],
        [value("enhanced_audio_frame", ["open"]), value("new_states", [1536]), value("lsnr", [1])],
        {
            "image": np.array([1, 1, 1, 512]),
            "flat": np.array([512]),
            "plus": np.full((1, 1, 1, 1), 0.8, np.float32),
            "minus": np.full((1, 1, 1, 1), -0.8, np.float32),
            "a": np.array([0]),
            "b": np.array([512]),
            "c": np.array([2048]),
        },
    )


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def spectrum_loop(path: Path) -> Iterator[tuple[int, Loop]]:
    """Hop, and a function of the next hop: windows and FFT of 512, hop 256, in numpy."""
    network = session(path)
    sound, *caches = network.get_inputs()
    states = {cache.name: np.zeros(cache.shape, np.float32) for cache in caches}
    window = np.sqrt(np.hanning(513)[:512])
    past, overlap = np.zeros(512), np.zeros(512)

    def call(block: Any) -> Any:
        past[:256], past[256:] = past[256:].copy(), block
        spectrum = np.fft.rfft(past * window).astype(np.complex64)
        frame = spectrum.view(np.float32).reshape(1, 257, 1, 2)
        made, *following = network.run(None, {sound.name: frame, **states})
        states.update(zip(states, following, strict=True))
        overlap[:256], overlap[256:] = overlap[256:].copy(), 0.0
        overlap[:] += np.fft.irfft(made.reshape(-1).view(np.complex64), 512) * window
        return overlap[:256].copy()

    yield 256, call


def two_networks_loop(first: Path, second: Path) -> Iterator[tuple[int, Loop]]:
    """The same for a mask on blocks of 512, hop 128, and a network on samples."""
    networks = [session(path) for path in (first, second)]
    states = [np.zeros(n.get_inputs()[1].shape, np.float32) for n in networks]
    names = [[x.name for x in n.get_inputs()] for n in networks]
    past, overlap = np.zeros(512), np.zeros(512)

    def run(k: int, x: Any) -> Any:
        made, states[k] = networks[k].run(
            None, dict(zip(names[k], (x.astype(np.float32), states[k]), strict=True))
        )
        return made

    def call(block: Any) -> Any:
        past[:384], past[384:] = past[128:].copy(), block
        spectrum = np.fft.rfft(past)
        mask = run(0, np.abs(spectrum).reshape(1, 1, 257)).reshape(257)
        made = run(1, np.fft.irfft(spectrum * mask, 512).reshape(1, 1, 512))
        overlap[:384], overlap[384:] = overlap[128:].copy(), 0.0
        overlap[:] += made.reshape(512)
        return overlap[:128].copy()

    yield 128, call


def samples_loop(path: Path) -> Iterator[tuple[int, Loop]]:
    """The same for blocks of samples in and out."""
    network = session(path)
    state = [np.zeros(network.get_inputs()[1].shape, np.float32)]

    def call(block: Any) -> Any:
        made, state[0], _ = network.run(
            None,
            {
                "input_frame": block.astype(np.float32),
                "states": state[0],
                "atten_lim_db": np.zeros((), np.float32),
            },
        )
        return made

    yield 512, call


def looped(loop: Iterator[tuple[int, Loop]], sound: Any) -> Any:
    """Pass whole hops of a sound through a loop."""
    hop, call = next(loop)
    return np.concatenate([call(x) for x in sound[: len(sound) // hop * hop].reshape(-1, hop)])


def save(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def peers(*names: str) -> list[Path]:
    """Paths of published models in the folder RTSEP_PEERS; skips the test without them."""
    import os

    import pytest

    folder = os.environ.get("RTSEP_PEERS")
    if folder is None:
        pytest.skip("RTSEP_PEERS is not set: the folder of the published models")
    paths = [Path(folder) / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        pytest.skip(f"RTSEP_PEERS lacks {missing[0]}")
    return paths
