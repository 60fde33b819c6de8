"""The bundle: one ``.onnx`` file that knows what it is.

Its graph maps ``mixture`` and every ``state.*`` to ``sources`` and every ``next_state.*``.
``state.X`` is ``next_state.X`` of the call before, ``state.X@3`` that of three calls before, zeros
where there was none: what a model reads long after it was written need not go through every call.
The file's metadata holds what a graph can't say (see :data:`KEYS`); state shapes are read from the
graph.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from rtsep.dsp.fft import factorise
from rtsep.dsp.windows import pair
from rtsep.errors import BundleError
from rtsep.latency import Latency
from rtsep.runtime import graph_cost
from rtsep.spec import Spec

FORMAT = "rtsep.bundle.1"
MAX_BYTES = 1 << 29
"""Larger files are refused unread."""
MAX_VALUES = 1 << 24
"""Most numbers in all states of one stream together, or in the frames of one call."""
MAX_CALLS = 1023
"""Most calls a state may reach back."""
MAX_INPUTS = 256
"""Most states."""
MAX_WORK = 10**11
"""Most multiply-accumulates of one call of one stream, or on weights alone: seconds of a core."""
MAX_LATENCY_S = 60.0
"""Overlap, chunk and lookahead together; the engine keeps that much sound."""

KEYS = {
    "format": FORMAT,
    "sample_rate": "samples per second, Hz",
    "channels": "channels seen jointly; 1: each channel is a stream of its own",
    "frontend": "stft or waveform",
    "window": "name of the window pair",
    "window_length": "samples",
    "synthesis_length": "samples at the end of a frame that are overlap-added",
    "hop_length": "samples",
    "chunk": "frames per call",
    "lookahead": "frames",
    "sources": "names, separated by commas",
    "name": "of the bundle",
    "model": "architecture and paper",
    "training": "data and their licences, with attribution; how long",
    "licence": "of the weights",
    "quality": "as measured on held-out data",
    "version": "of rtsep that wrote the file",
}
"""Metadata every bundle has, each under ``rtsep.<key>``, and what it says."""


_SOURCE = re.compile(r"\w[\w .+-]{0,63}")
_STATE = re.compile(r"(?P<name>state\.[^@]+)(@(?P<calls>[1-9]\d{0,5}))?")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a terminal would obey them


@dataclass(frozen=True)
class State:
    """What one output of a graph hands to its later calls.

    Attributes
    ----------
    shape
        For one stream.
    inputs
        The graph's inputs that read it, by how many calls back.
    """

    shape: tuple[int, ...]
    inputs: dict[int, str]

    @property
    def values(self) -> int:
        """Numbers kept for one stream."""
        return max(self.inputs) * int(np.prod(self.shape))


@dataclass(frozen=True)
class Bundle:
    """A checked model file.

    Attributes
    ----------
    spec
        The stream it separates.
    states
        By their names in the graph, ``state.*``.
    metadata
        The texts under :data:`KEYS`.
    graph
        The serialised model.
    path
        Where it came from, if from a file.
    """

    spec: Spec
    states: dict[str, State]
    metadata: Mapping[str, str]
    graph: bytes = field(repr=False)
    path: Path | None = None

    @property
    def state_bytes(self) -> int:
        """Memory of one stream's state."""
        return 4 * sum(state.values for state in self.states.values())

    def cost(self) -> tuple[int, int]:
        """Count weights, and multiply-accumulates per second of audio of one stream."""
        model = onnx.load_model_from_string(self.graph)
        weights = graph_cost.weights(model)
        per_call, _ = graph_cost.multiply_accumulates(model)
        return weights, round(per_call * self.spec.sample_rate / self.spec.step_length)


def load(path: Path | str) -> Bundle:
    """Read and check a bundle.

    Raises
    ------
    BundleError
        Missing, too large or damaged file; no bundle; unknown format; missing or impossible
        metadata; a window pair that doesn't reconstruct; unpaired states; wrong shapes; external
        data; weights that are not finite.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise BundleError(f"{path} is a folder, not a bundle")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1) if path.stat().st_size <= MAX_BYTES else None
        if data is None or len(data) > MAX_BYTES:
            raise BundleError(f"{path} is larger than {MAX_BYTES >> 20} MiB, the limit of a bundle")
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from None
    try:
        return parse(data, path)
    except BundleError as error:
        reason = textwrap.shorten(str(error), 400)  # it may quote any text of the file
        raise BundleError(f"{path} is no bundle that can be run: {reason}") from None


def parse(data: bytes, path: Path | None = None) -> Bundle:
    """Check a serialised bundle; see :func:`load`."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf raises several unrelated types
        raise BundleError("it is not an ONNX file, or it is cut off") from None
    texts = {_text(p.key): _text(p.value) for p in model.metadata_props}
    metadata = {
        key.removeprefix("rtsep."): text for key, text in texts.items() if key.startswith("rtsep.")
    }
    if metadata.get("format") != FORMAT:
        raise BundleError(f"its rtsep.format is {metadata.get('format')!r}, not {FORMAT!r}")
    missing = [key for key in KEYS if key not in metadata]
    if missing:
        raise BundleError(f"its metadata lacks rtsep.{missing[0]}")
    spec = _spec(metadata)
    _check_weights(model)
    states = _states(model, spec)
    _check_cost(model)
    return Bundle(spec, states, metadata, data, path)


def describe(spec: Spec, texts: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a bundle, prefix included, from its spec and the free texts."""
    fields = {key: str(getattr(spec, key)) for key in KEYS if hasattr(spec, key)}
    fields["sources"] = ",".join(spec.sources)
    fields |= {"format": FORMAT, **texts}
    missing = [key for key in KEYS if key not in fields]
    if missing:
        raise BundleError(f"the description lacks {', '.join(missing)}")
    return {f"rtsep.{key}": fields[key] for key in KEYS}


def _text(text: str | bytes) -> str:
    """Refuse what protobuf gives as bytes because it can't be decoded, and control characters."""
    if isinstance(text, bytes) or _CONTROL.search(text):
        raise BundleError(f"{text[:40]!r} is not a plain text in UTF-8")
    return text


def _spec(metadata: Mapping[str, str]) -> Spec:
    def number(key: str) -> int:
        try:
            return int(metadata[key])
        except ValueError:
            raise BundleError(
                f"rtsep.{key} must be a whole number, not {metadata[key]!r}"
            ) from None

    try:
        spec = Spec(
            sample_rate=number("sample_rate"),
            channels=number("channels"),
            frontend=metadata["frontend"],  # type: ignore[arg-type]  # Spec refuses others
            window=metadata["window"],
            window_length=number("window_length"),
            hop_length=number("hop_length"),
            chunk=number("chunk"),
            lookahead=number("lookahead"),
            sources=tuple(metadata["sources"].split(",")),
            synthesis_length=number("synthesis_length"),
        )
        pair(spec.window, spec.window_length, spec.hop_length, spec.synthesis_length)
        if spec.frontend == "stft":
            factorise(spec.window_length)
        for source in spec.sources:
            if not _SOURCE.fullmatch(source) or source == "mixture":
                raise BundleError(f"{source!r} is not a name for a source: it names files")
        latency = Latency.of(spec, 1).total
        if latency > MAX_LATENCY_S * spec.sample_rate:
            raise BundleError(
                f"it would be {latency / spec.sample_rate:.0f} s late; {MAX_LATENCY_S:.0f} s is "
                "the limit"
            )
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(str(error)) from None
    return spec


def _check_weights(model: onnx.ModelProto) -> None:
    """Refuse tensors that live in other files or hold NaN or Inf."""

    def walk(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            check(tensor)
        if graph.sparse_initializer:
            raise BundleError("it holds sparse weights, which are not supported")
        walk_nodes(graph.node)

    def walk_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                for tensor in (attribute.t, *attribute.tensors):
                    check(tensor)
                for subgraph in (attribute.g, *attribute.graphs):
                    walk(subgraph)
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    raise BundleError("it holds sparse weights, which are not supported")
                if not np.all(np.isfinite((attribute.f, *attribute.floats))):
                    raise BundleError(
                        f"{attribute.name!r} of a {node.op_type!r} node is NaN or Inf"
                    )

    def check(tensor: TensorProto) -> None:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(f"weight {tensor.name!r} lies in another file")
        if min(tensor.dims, default=0) < 0:
            raise BundleError(f"weight {tensor.name!r} has a negative size")
        if tensor.data_type in graph_cost.FLOATS:
            try:
                finite = np.all(np.isfinite(numpy_helper.to_array(tensor)))
            except Exception:  # whatever does not fit its shape
                raise BundleError(f"weight {tensor.name!r} is cut off") from None
            if not finite:
                raise BundleError(f"weight {tensor.name!r} holds NaN or Inf")

    if model.functions:  # a few that call each other are a graph without an end
        raise BundleError("it holds functions of its own, which are not supported: inline them")
    walk(model.graph)


def _check_cost(model: onnx.ModelProto) -> None:
    """Refuse a graph whose single nodes could run for longer than anyone waits; changes it."""
    try:
        work = max(graph_cost.multiply_accumulates(model))
    except Exception:  # shape inference raises several unrelated types
        raise BundleError("its graph is malformed: its cost can't be counted") from None
    if work > MAX_WORK:
        raise BundleError(
            f"it would take {work:.0e} multiply-accumulates; {MAX_WORK:.0e} is the limit"
        )


def _shapes(values: object) -> dict[str, tuple[int | None, ...]]:
    """Shape of each float32 graph input or output; None where a size is free."""
    shapes: dict[str, tuple[int | None, ...]] = {}
    for value in values:  # type: ignore[attr-defined]
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.FLOAT:
            raise BundleError(f"{value.name!r} is not float32")
        shapes[_text(value.name)] = tuple(
            d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim
        )
    return shapes


def _states(model: onnx.ModelProto, spec: Spec) -> dict[str, State]:
    """Check inputs and outputs against the contract; return the states."""
    inputs, outputs = _shapes(model.graph.input), _shapes(model.graph.output)
    frames = (spec.chunk, spec.channels, *spec.frame_shape)
    separated = (spec.chunk, len(spec.sources), spec.channels, *spec.frame_shape)
    for name, has, must in (
        ("mixture", inputs.pop("mixture", None), frames),
        ("sources", outputs.pop("sources", None), separated),
    ):
        if has is None:
            raise BundleError(f"its graph has no {name!r}")
        if has[1:] != must or has[0] is not None:
            raise BundleError(f"{name!r} must have shape (streams, {str(must)[1:]}, not {has}")
        if np.prod(must, dtype=np.float64) > MAX_VALUES:
            raise BundleError(f"{name!r} of shape {has} is too large for one call")
    states: dict[str, State] = {}
    values = 0.0
    if len(inputs) > MAX_INPUTS:
        raise BundleError(f"it has {len(inputs)} states; {MAX_INPUTS} is the limit")
    for full_name, shape in inputs.items():
        match = _STATE.fullmatch(full_name)
        if match is None:
            raise BundleError(
                f"its graph has an input {full_name!r} that is neither mixture nor state"
            )
        name, calls = match["name"], int(match["calls"] or 1)
        if outputs.get(f"next_{name}") != shape:
            raise BundleError(f"{full_name!r} has no output {f'next_{name}'!r} of the same shape")
        fixed = tuple(size for size in shape[1:] if size is not None)
        if not shape or shape[0] is not None or len(fixed) != len(shape) - 1:
            raise BundleError(f"{full_name!r} must have shape (streams, fixed sizes), not {shape}")
        if calls > MAX_CALLS:
            raise BundleError(f"{full_name!r} reaches back more than {MAX_CALLS} calls, the limit")
        state = states.setdefault(name, State(fixed, {}))
        if calls in state.inputs:
            raise BundleError(f"{full_name!r} and {state.inputs[calls]!r} are the same state")
        state.inputs[calls] = full_name
        values += np.prod(fixed, dtype=np.float64) * calls
        if min(fixed, default=1) < 1 or values > MAX_VALUES:
            raise BundleError(f"{full_name!r} of shape {shape} is empty or too large for a state")
    for output in outputs:
        if output.removeprefix("next_") not in states:
            raise BundleError(f"its output {output!r} belongs to no state")
    return states
