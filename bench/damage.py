"""Randomly damaged audio files and bundles for `bench.fuzz`, each generated from a seed."""

from __future__ import annotations

import io
import math
import random
import struct
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import onnx
import soundfile
from onnx import TensorProto, helper, numpy_helper

from rtsep import weights
from rtsep.runtime.bundle import describe
from rtsep.spec import Spec

ODD = (0, 1, -1, 2, 3, 7, 8, 64, 127, 255, 256, 1000, 32767, 32768, 65535, 65536, 1 << 24)
ODD += ((1 << 31) - 1, -(1 << 31), 1 << 31, (1 << 32) - 1, (1 << 32) - 8, 1 << 40, (1 << 63) - 1)
"""Numbers at limits of programs."""


def some(luck: random.Random, most: int = 5) -> int:
    """Return a random number of changes, mostly small."""
    return luck.choice([1, 1, 1, 2, 2, 3, luck.randint(1, most)])


def scramble(luck: random.Random, data: bytearray, head: int) -> None:
    """Change ``data`` in one place, mostly within the first ``head`` bytes."""
    reach = min(head, len(data)) if luck.random() < 0.85 else len(data)
    at = luck.randrange(max(reach, 1))
    how = luck.randrange(8)
    if how <= 1 and data:
        data[at] ^= 1 << luck.randrange(8)
    elif how == 2 and data:
        data[at] = luck.choice([0, 1, 127, 128, 255, luck.randrange(256)])
    elif how <= 4:
        size = luck.choice([2, 4, 4, 8])
        value = luck.choice([*ODD, luck.getrandbits(64), len(data), len(data) - at])
        order = luck.choice(["little", "little", "big"])
        data[at : at + size] = (value % (1 << (8 * size))).to_bytes(size, order)
    elif how == 5:
        del data[at : at + luck.choice([1, 2, 4, 8, 100, len(data)])]
    elif how == 6:
        data[at:at] = luck.randbytes(luck.choice([1, 2, 4, 8, 40]))
    else:
        data[at:at] = data[at : at + luck.choice([4, 8, 24, 100])]


# Audio files


@cache
def recordings() -> list[tuple[str, bytes]]:
    """Return a tenth of a second in many formats: suffix and content."""
    kinds = [
        ("wav", "WAV", "PCM_16", 16000, 1),
        ("wav", "WAV", "FLOAT", 44100, 2),
        ("wav", "WAV", "PCM_U8", 8000, 1),
        ("wav", "WAV", "DOUBLE", 16000, 1),
        ("wav", "WAV", "ULAW", 8000, 1),
        ("wav", "WAV", "IMA_ADPCM", 16000, 1),
        ("wav", "WAV", "MS_ADPCM", 22050, 2),
        ("wav", "WAV", "GSM610", 8000, 1),
        ("wav", "WAVEX", "PCM_24", 48000, 3),
        ("wav", "RF64", "PCM_16", 16000, 1),
        ("flac", "FLAC", "PCM_16", 16000, 1),
        ("flac", "FLAC", "PCM_24", 44100, 2),
        ("flac", "FLAC", "PCM_S8", 16000, 5),
    ]
    found = []
    for suffix, format, subtype, rate, channels in kinds:
        sound = 0.1 * np.random.default_rng(0).standard_normal((rate // 10, channels))
        file = io.BytesIO()
        soundfile.write(file, sound, rate, subtype, format=format)
        found.append((suffix, file.getvalue()))
    return found


_CHUNKS = (b"fmt ", b"data", b"fact", b"LIST", b"JUNK", b"ds64", b"PEAK", b"cue ", b"smpl", b"bext")
_CHUNKS += (b"id3 ", b"cart", b"inst", b"acid", b"afsp", b"RIFF", b"\0\0\0\0", b"wavl", b"slnt")


def recording(luck: random.Random) -> tuple[str, bytes]:
    """Return the suffix and the content of a damaged file."""
    suffix, whole = luck.choice(recordings())
    data = bytearray(whole)
    head = 90 if suffix == "wav" else 60
    for _ in range(some(luck)):
        how = luck.randrange(6) if suffix == "wav" else 5
        places = [at for name in _CHUNKS if (at := data.find(name, 12, 200)) >= 0]
        if how == 0 and places:  # a chunk's size
            at = luck.choice(places) + 4
            data[at : at + 4] = struct.pack("<I", luck.choice(ODD) % (1 << 32))
        elif how == 1 and places:  # a chunk's name
            at = luck.choice(places)
            data[at : at + 4] = luck.choice(_CHUNKS)
        elif how == 2 and places:  # one chunk more
            at, content = luck.choice(places), luck.randbytes(luck.choice([0, 4, 24, 300]))
            size = luck.choice([len(content), len(content), luck.choice(ODD) % (1 << 32)])
            data[at:at] = luck.choice(_CHUNKS) + struct.pack("<I", size) + content
        elif how == 3 and (at := data.find(b"fmt ", 12, 200)) >= 0:  # format, channels, rate, ...
            field = luck.choice([(8, 2), (10, 2), (12, 4), (16, 4), (20, 2), (22, 2), (24, 2)])
            value = luck.choice([*ODD, luck.getrandbits(16), luck.getrandbits(6)])
            at += field[0]
            data[at : at + field[1]] = (value % (1 << 8 * field[1])).to_bytes(field[1], "little")
        elif how == 4:  # the head of another file
            other = luck.choice(recordings())[1]
            data[: luck.randrange(head)] = other[: luck.randrange(head)]
        else:
            scramble(luck, data, head)
    return suffix, bytes(data)


# Bundles


@cache
def tiny() -> bytes:
    """Make a bundle of three nodes and one state: half the mixture, delayed by a frame."""
    spec = Spec(16000, 1, "waveform", "rectangular", 64, 64, 1, 1, ("speech", "noise"))
    frame = ["streams", 1, 1, 64]

    def value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["state.past", "axes"], ["late"]),
            helper.make_node("Mul", ["late", "gains"], ["sources"]),
            helper.make_node("Identity", ["mixture"], ["next_state.past"]),
        ],
        "tiny",
        [value("mixture", frame), value("state.past", frame)],
        [value("sources", ["streams", 1, 2, 1, 64]), value("next_state.past", frame)],
        [
            numpy_helper.from_array(np.full((1, 1, 2, 1, 1), 0.5, np.float32), "gains"),
            numpy_helper.from_array(np.array([2]), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    texts = dict.fromkeys(("name", "model", "training", "licence", "quality", "version"), "fuzz")
    for key, text in describe(spec, texts).items():
        model.metadata_props.add(key=key, value=text)
    content: bytes = model.SerializeToString()
    return content


MAX_VALUES = 1 << 22
"""Largest number of values of a generated weight; larger ones are declared only."""


def bundle(luck: random.Random) -> tuple[str, bytes]:
    """Return the suffix and the content of a damaged bundle."""
    whole = luck.choice([tiny(), tiny(), weights.find().graph])
    if luck.random() < 0.3:
        data = bytearray(whole)
        # Nodes are at the start, metadata at the end, weights between.
        part = luck.choice([slice(0, 3000), slice(-2500, None), slice(None)])
        for _ in range(some(luck, 3)):
            piece = data[part]
            if luck.random() < 0.3:
                scramble(luck, piece, len(piece))  # usually no valid protobuf any more
            else:
                piece[luck.randrange(len(piece))] ^= 1 << luck.randrange(8)
            data[part] = piece
        return "onnx", bytes(data)
    model = onnx.load_model_from_string(whole)
    for _ in range(some(luck, 4)):
        change = luck.choice(_CHANGES)
        try:
            change(luck, model)
        except (ValueError, TypeError, IndexError, StopIteration):  # there is none
            continue
    return "onnx", model.SerializeToString()


def _number(luck: random.Random) -> int:
    return luck.choice([*ODD, luck.randrange(-4, 100), luck.randrange(1 << 21)])


def _metadata(luck: random.Random, model: onnx.ModelProto) -> None:
    fields = model.metadata_props
    field = luck.choice(fields)
    how = luck.randrange(6)
    if how == 0:
        fields.remove(field)
    elif how == 1:
        fields.add(key=field.key, value=luck.choice(fields).value)
    elif how == 2:
        texts = [
            "",
            "a",
            "a,b,c",
            "NaN",
            "1e3",
            " 64 ",
            "\u0662",
            "9" * 5000,
            "hann",
            "x" * 100_000,
        ]
        field.value = luck.choice(texts)
    else:
        field.value = str(_number(luck))


def _dimension(luck: random.Random, model: onnx.ModelProto) -> None:
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    shape = luck.choice(values).type.tensor_type.shape
    how = luck.randrange(4)
    if how == 0:
        shape.dim.add().dim_value = _number(luck)
    elif how == 1:
        shape.dim.pop(luck.randrange(len(shape.dim)))
    else:
        luck.choice(shape.dim).dim_value = _number(luck)


def _state(luck: random.Random, model: onnx.ModelProto) -> None:
    """Change the shape or the delay of a state, at input and output."""
    graph = model.graph
    state = luck.choice([v for v in graph.input if v.name != "mixture"])
    name, size = state.name, _number(luck)
    if luck.random() < 0.3:
        state.name = f"{name}@{size}"
        for node in graph.node:
            for i, given in enumerate(node.input):
                node.input[i] = state.name if given == name else given
        return
    following = [v for v in graph.output if v.name == f"next_{name}"]
    axis = luck.randrange(1, len(state.type.tensor_type.shape.dim))
    for value in (state, *following):
        value.type.tensor_type.shape.dim[axis].dim_value = size


def _weight(luck: random.Random, model: onnx.ModelProto) -> None:
    tensor = luck.choice(model.graph.initializer)
    how = luck.randrange(6)
    if how == 0:
        tensor.dims[luck.randrange(len(tensor.dims))] = _number(luck)
    elif how == 1:
        tensor.dims.append(_number(luck))
    elif how == 2:
        tensor.data_type = luck.randrange(24)
    elif how == 3:
        data = bytearray(tensor.raw_data)
        scramble(luck, data, len(data))
        tensor.raw_data = bytes(data)
    elif how == 4:
        integers = [t for t in model.graph.initializer if t.data_type == TensorProto.INT64]
        tensor = luck.choice(integers)
        values = numpy_helper.to_array(tensor).copy()
        values.flat[luck.randrange(values.size)] = _number(luck)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    else:
        value = luck.choice([np.nan, np.inf, 1e38, -1e38, 1e-40, 0.0])
        if math.prod(tensor.dims) > MAX_VALUES:  # an earlier change has made it huge
            raise ValueError
        values = np.full(tuple(tensor.dims), value, np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _node(luck: random.Random, model: onnx.ModelProto) -> None:
    nodes = model.graph.node
    node = luck.choice(nodes)
    how = luck.randrange(7)
    if how == 0:
        nodes.remove(node)
    elif how == 1:
        node.op_type = luck.choice([luck.choice(nodes).op_type, *_OPERATORS])
    elif how == 2:
        node.input[luck.randrange(len(node.input))] = luck.choice(luck.choice(nodes).output)
    elif how == 3:
        node.output[luck.randrange(len(node.output))] = luck.choice(luck.choice(nodes).output)
    elif how == 4:
        nodes.add().CopyFrom(node)
    elif how == 5:
        node.domain = luck.choice(["com.microsoft", "ai.onnx.ml", "org.example"])
    else:
        name = luck.choice(["axis", "axes", "kernel_shape", "strides", "pads", "group", "keepdims"])
        value = luck.choice([_number(luck), [_number(luck), _number(luck)], 1e30, "text"])
        node.attribute.append(helper.make_attribute(name, value))


_OPERATORS = ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "NonZero", "EyeLike")
_OPERATORS += ("Softmax", "Conv", "ConvTranspose", "LSTM", "TopK", "CumSum", "OneHot", "Unique")


def _attribute(luck: random.Random, model: onnx.ModelProto) -> None:
    attribute = luck.choice([a for node in model.graph.node for a in node.attribute])
    if attribute.ints:
        attribute.ints[luck.randrange(len(attribute.ints))] = _number(luck)
    elif luck.random() < 0.3:
        attribute.type = luck.randrange(14)
    else:
        attribute.i = _number(luck)
        attribute.f = luck.choice([np.nan, np.inf, 1e38, -1.0])


def _versions(luck: random.Random, model: onnx.ModelProto) -> None:
    if luck.random() < 0.5:
        model.opset_import[0].version = luck.choice([0, 1, 7, 13, 17, 21, 25, 9999, -1])
    else:
        model.ir_version = luck.choice([0, 1, 3, 8, 13, 9999])


def _append(model: onnx.ModelProto, added: Sequence[onnx.NodeProto]) -> None:
    """Append nodes that compute "more" from "had", the sources, and add its maximum to them."""
    nodes = model.graph.node
    maker = next(node for node in nodes if "sources" in node.output)
    maker.output[list(maker.output).index("sources")] = "had"
    nodes.extend(added)
    nodes.append(helper.make_node("ReduceMax", ["more"], ["most"], keepdims=0))
    nodes.append(helper.make_node("Add", ["had", "most"], ["sources"]))


def _large(luck: random.Random, model: onnx.ModelProto) -> None:
    """Make the graph compute a large tensor from constants or from the sound."""
    size = luck.choice([1 << 20, 1 << 26, 1 << 28, 1 << 29, 1 << 31, 1 << 40, 1 << 62, -1])
    how = luck.choice(["ConstantOfShape", "Expand", "Tile", "Range", "Pad", "MatMul", "Conv"])
    constants = {"size": np.array([size]), "zero": np.float32(0), "one": np.float32(1)}
    node = helper.make_node
    if how == "ConstantOfShape":
        nodes = [node(how, ["size"], ["more"])]
    elif how == "Expand":
        constants["size"] = np.array([luck.choice([size, 1 << 20]), 1, 1, 1, 1, 1])
        nodes = [node(how, ["had", "size"], ["more"])]
    elif how == "Tile":
        constants["size"] = np.array([1, 1, 1, 1, size])
        nodes = [node(how, ["had", "size"], ["more"])]
    elif how == "Range":
        constants["size"] = np.float32(size)
        nodes = [node(how, ["zero", "size", "one"], ["more"])]
    elif how == "Pad":
        constants["size"] = np.array([0] * 9 + [size])
        nodes = [node(how, ["had", "size"], ["more"])]
    else:
        side = luck.choice([1 << 10, 1 << 12, 1 << 13, 1 << 14])
        shape = [side, side] if how == "MatMul" else [1, 64, side]
        constants["size"] = np.array(shape)
        constants["kernel"] = np.array(shape if how == "MatMul" else [64, 64, side // 2])
        nodes = [
            node("ConstantOfShape", ["size"], ["left"]),
            node("ConstantOfShape", ["kernel"], ["right"]),
            node(how, ["left", "right"], ["more"]),
        ]
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    _append(model, nodes)


def _loop(luck: random.Random, model: onnx.ModelProto) -> None:
    """Make the graph run for long."""
    turns = luck.choice([0, 1, 1, 10, 1000, 1000, luck.choice([1 << 30, (1 << 63) - 1, -1])])
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Identity", ["x"], ["y"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("x", TensorProto.FLOAT, None),
        ],
        [value("goes", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
    )
    for name, given in (("turns", np.array(turns)), ("forth", np.array(True))):
        model.graph.initializer.append(numpy_helper.from_array(given, name))
    _append(model, [helper.make_node("Loop", ["turns", "forth", "had"], ["more"], body=body)])


def _functions(luck: random.Random, model: onnx.ModelProto) -> None:
    """Add functions that call the next one twice, equivalent to millions of nodes."""
    depth = luck.choice([2, 8, 16, 30])
    domain = "org.example"
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    for level in range(depth):
        called = ("Identity", "") if level == depth - 1 else (f"f{level + 1}", domain)
        nodes = [
            helper.make_node(called[0], ["x"], ["between"], domain=called[1]),
            helper.make_node(called[0], ["between"], ["y"], domain=called[1]),
        ]
        model.functions.append(
            helper.make_function(domain, f"f{level}", ["x"], ["y"], nodes, opsets)
        )
    model.opset_import.append(helper.make_opsetid(domain, 1))
    _append(model, [helper.make_node("f0", ["had"], ["more"], domain=domain)])


_CHANGES: list[Callable[[random.Random, onnx.ModelProto], None]] = [
    *[_metadata] * 4,
    *[_dimension] * 2,
    *[_state] * 2,
    *[_weight] * 4,
    *[_node] * 4,
    *[_attribute] * 2,
    _versions,
    *[_large] * 2,
    _loop,
    _functions,
]
