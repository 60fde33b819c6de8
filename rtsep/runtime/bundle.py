"""The bundle: a self-describing ``.onnx`` file.

Its graph maps ``mixture`` and all ``state.*`` to ``sources`` and all ``next_state.*``. ``state.X``
is ``next_state.X`` of the previous call, and ``state.X@3`` that of three calls before, initially
zeros: so state that is read much later need not pass through every call. ``control.X`` is set by
the user, see `rtsep.controls`. The metadata of the file (see :data:`KEYS`) has the figures that the
graph lacks; state shapes are read from the graph.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from rtsep import controls
from rtsep.controls import ModelControl
from rtsep.dsp.radices import factorise
from rtsep.dsp.windows import pair
from rtsep.errors import BundleError, ControlError
from rtsep.latency import Latency
from rtsep.runtime import graph_cost
from rtsep.spec import Spec

FORMAT = "rtsep.bundle.1"
MAX_BYTES = 1 << 29
"""Larger files are rejected before reading."""
MAX_VALUES = 1 << 24
"""Largest number of values in the states of one stream, or in the frames of one call."""
MAX_CALLS = 1023
"""Largest delay of a state, in calls."""
MAX_INPUTS = 256
"""Largest number of state inputs."""
MAX_WORK = 10**11
"""Largest number of multiply-accumulates per call and stream, or on weights: seconds of a core."""
MAX_LATENCY_S = 60.0
"""Largest sum of overlap, chunk and lookahead; the engine keeps that much sound."""

KEYS = {
    "format": FORMAT,
    "sample_rate": "samples per second, Hz",
    "channels": "channels processed jointly; 1: each channel is a separate stream",
    "frontend": "stft or waveform",
    "window": "name of the window pair",
    "window_length": "samples",
    "synthesis_length": "samples at the end of a frame that are overlap-added",
    "hop_length": "samples",
    "chunk": "frames per call",
    "lookahead": "frames",
    "sources": "names, separated by commas",
    "name": "name of the bundle",
    "model": "architecture and paper",
    "training": "training data with licences and attribution, and training steps",
    "licence": "licence of the weights",
    "quality": "scores on held-out data",
    "version": "version of rtsep that wrote the file",
}
"""Metadata of every bundle, stored as ``rtsep.<key>``, with descriptions."""
OPTIONAL_KEYS = {
    "floor": "level at which other sources are left in each stem, dB; none without it",
    "controls": "inputs that the user sets, as JSON, see rtsep.controls; none without it",
    "enroller": "graph that makes a control from a recording, see rtsep.learned.enrolment",
}
"""Further metadata."""


_SOURCE = re.compile(r"\w[\w .+-]{0,63}")
_STATE = re.compile(r"(?P<name>state\.[^@]+)(@(?P<calls>[1-9]\d{0,5}))?")
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)  # control characters, which a terminal interprets


@dataclass(frozen=True)
class State:
    """A state: an output of the graph that later calls read.

    Attributes
    ----------
    shape
        Shape for one stream.
    inputs
        Inputs of the graph that read it, by delay in calls.
    """

    shape: tuple[int, ...]
    inputs: dict[int, str]

    @property
    def values(self) -> int:
        """Number of values for one stream."""
        return max(self.inputs) * int(np.prod(self.shape))


@dataclass(frozen=True)
class Bundle:
    """A checked model file.

    Attributes
    ----------
    spec
        The stream it separates.
    states
        States by their name in the graph, ``state.*``.
    metadata
        Texts of :data:`KEYS`.
    graph
        The serialised model.
    path
        Path of the file, if any.
    controls
        Controls of the model by name.
    """

    spec: Spec
    states: dict[str, State]
    metadata: Mapping[str, str]
    graph: bytes = field(repr=False)
    path: Path | None = None
    controls: Mapping[str, ModelControl] = field(default_factory=dict)

    @property
    def floor_db(self) -> float | None:
        """Default level at which other sources are left in each stem, in dB, if there is one."""
        return float(self.metadata["floor"]) if "floor" in self.metadata else None

    @property
    def state_bytes(self) -> int:
        """Size of one stream's state in bytes."""
        return 4 * sum(state.values for state in self.states.values())

    def controlled(self, settings: Mapping[str, Any]) -> Bundle:
        """Return the bundle with other initial values of controls, see `rtsep.controls.check`.

        Raises
        ------
        ControlError
            There is no such control, or a value is invalid.
        """
        changed = {
            name: replace(self.controls[name], default=values)
            for name, values in controls.check(settings, self.controls).items()
        }
        return replace(self, controls={**self.controls, **changed})

    def cost(self) -> tuple[int, int]:
        """Return the number of weights, and multiply-accumulates per second of one stream."""
        model = onnx.load_model_from_string(self.graph)
        weights = graph_cost.weights(model)
        per_call, _ = graph_cost.multiply_accumulates(model)
        return weights, round(per_call * self.spec.sample_rate / self.spec.step_length)


def load(path: Path | str) -> Bundle:
    """Read and check a bundle.

    Raises
    ------
    BundleError
        The file is missing, too large, damaged or no bundle; its format is unknown; metadata are
        missing or invalid; the windows do not reconstruct; states are unpaired; shapes are wrong;
        weights are external or not finite; controls in metadata and graph differ.
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
        reason = textwrap.shorten(str(error), 400)  # it may quote texts of the file
        raise BundleError(f"{path} is not a valid bundle: {reason}") from None


def parse(data: bytes, path: Path | None = None) -> Bundle:
    """Check a serialised bundle; see :func:`load`."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf raises several unrelated types
        raise BundleError("it is not an ONNX file, or it is truncated") from None
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
    check_weights(model)
    inputs = _shapes(model.graph.input)
    declared = _controls(metadata.get("controls", "{}"), inputs)
    states = _states(inputs, _shapes(model.graph.output), spec)
    check_cost(model)
    return Bundle(spec, states, metadata, data, path, declared)


def describe(spec: Spec, texts: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a bundle, with prefix, from its spec and texts."""
    fields = {key: str(getattr(spec, key)) for key in KEYS if hasattr(spec, key)}
    fields["sources"] = ",".join(spec.sources)
    fields |= {"format": FORMAT, **texts}
    missing = [key for key in KEYS if key not in fields]
    if missing:
        raise BundleError(f"the description lacks {', '.join(missing)}")
    return {f"rtsep.{key}": fields[key] for key in (*KEYS, *OPTIONAL_KEYS) if key in fields}


def _text(text: str | bytes) -> str:
    """Check a text: protobuf returns bytes if it can't be decoded; no control characters."""
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
            frontend=metadata["frontend"],  # type: ignore[arg-type]  # Spec rejects others
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
        _check_floor(metadata.get("floor", "0"))
        for source in spec.sources:
            if not _SOURCE.fullmatch(source) or source == "mixture":
                raise BundleError(
                    f"{source!r} is not valid as the name of a source and of its files"
                )
        latency = Latency.of(spec, 1).total
        if latency > MAX_LATENCY_S * spec.sample_rate:
            raise BundleError(
                f"its latency is {latency / spec.sample_rate:.0f} s, more than the limit of "
                f"{MAX_LATENCY_S:.0f} s"
            )
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(str(error)) from None
    return spec


def _check_floor(text: str) -> None:
    """Reject a default floor that is no level in dB of at most 0."""
    try:
        valid = float(text) <= 0.0
    except ValueError:
        valid = False
    if not valid:
        raise BundleError(f"rtsep.floor must be at most 0 dB, not {text!r}")


def check_weights(model: onnx.ModelProto) -> None:
    """Reject tensors in other files and tensors with NaN or Inf."""

    def walk(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            check(tensor)
        if graph.sparse_initializer:
            raise BundleError("it has sparse weights, which are not supported")
        walk_nodes(graph.node)

    def walk_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                for tensor in (attribute.t, *attribute.tensors):
                    check(tensor)
                for subgraph in (attribute.g, *attribute.graphs):
                    walk(subgraph)
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    raise BundleError("it has sparse weights, which are not supported")
                if not np.all(np.isfinite((attribute.f, *attribute.floats))):
                    raise BundleError(
                        f"{attribute.name!r} of a {node.op_type!r} node is NaN or Inf"
                    )

    def check(tensor: TensorProto) -> None:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(f"weight {tensor.name!r} is in another file")
        if min(tensor.dims, default=0) < 0:
            raise BundleError(f"weight {tensor.name!r} has a negative size")
        if tensor.data_type in graph_cost.FLOATS:
            try:
                finite = np.all(np.isfinite(numpy_helper.to_array(tensor)))
            except Exception:  # the content does not fit the shape
                raise BundleError(f"weight {tensor.name!r} is truncated") from None
            if not finite:
                raise BundleError(f"weight {tensor.name!r} contains NaN or Inf")

    if model.functions:  # nested functions could expand to a huge graph
        raise BundleError("it contains functions, which are not supported: inline them")
    walk(model.graph)


def check_cost(model: onnx.ModelProto) -> None:
    """Reject a graph whose nodes could run for very long; changes ``model``."""
    try:
        work = max(graph_cost.multiply_accumulates(model))
    except Exception:  # shape inference raises several unrelated types
        raise BundleError("its graph is malformed: its cost can't be counted") from None
    if work > MAX_WORK:
        raise BundleError(
            f"it takes {work:.0e} multiply-accumulates, more than the limit of {MAX_WORK:.0e}"
        )


Shapes = dict[str, tuple[int | None, ...]]


def _shapes(values: object) -> Shapes:
    """Return the shape of each float32 graph input or output; None for free sizes."""
    shapes: Shapes = {}
    for value in values:  # type: ignore[attr-defined]
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.FLOAT:
            raise BundleError(f"{value.name!r} is not float32")
        shapes[_text(value.name)] = tuple(
            d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim
        )
    return shapes


def _controls(text: str, inputs: Shapes) -> dict[str, ModelControl]:
    """Return the controls of the metadata, and take them from the graph's inputs."""
    try:
        declared = controls.parse(text)
    except ControlError as error:
        raise BundleError(str(error)) from None
    for name, control in declared.items():
        must = (None, len(control.default))
        if (has := inputs.pop(controls.PREFIX + name, None)) != must:
            raise BundleError(f"control {name!r} must be an input of shape {must}, not {has}")
    return declared


def _states(inputs: Shapes, outputs: Shapes, spec: Spec) -> dict[str, State]:
    """Check inputs and outputs against the contract; return the states."""
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
        raise BundleError(f"it has {len(inputs)} states, more than the limit of {MAX_INPUTS}")
    for full_name, shape in inputs.items():
        match = _STATE.fullmatch(full_name)
        if match is None:
            raise BundleError(
                f"its graph has an input {full_name!r} that is neither mixture nor state "
                "nor a control of its metadata"
            )
        name, calls = match["name"], int(match["calls"] or 1)
        if outputs.get(f"next_{name}") != shape:
            raise BundleError(f"{full_name!r} has no output {f'next_{name}'!r} of the same shape")
        fixed = tuple(size for size in shape[1:] if size is not None)
        if not shape or shape[0] is not None or len(fixed) != len(shape) - 1:
            raise BundleError(f"{full_name!r} must have shape (streams, fixed sizes), not {shape}")
        if calls > MAX_CALLS:
            raise BundleError(
                f"{full_name!r} has a delay of more than {MAX_CALLS} calls, the limit"
            )
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
