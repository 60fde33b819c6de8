"""Build the portable graph: a bundle with the engine's windows, overlap-add and rings inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import compose

from rtsep.controls import PREFIX
from rtsep.dsp import windows
from rtsep.dsp.mixer import linear
from rtsep.dsp.overlap_add import LIMIT
from rtsep.errors import BundleError
from rtsep.latency import Latency
from rtsep.learned.onnxgraph import Writer
from rtsep.portable import transform
from rtsep.portable.opset import IR_VERSION, OPSET, lower
from rtsep.runtime.bundle import Bundle
from rtsep.spec import Spec

FORMAT = "rtsep.portable.1"
_TEXTS = ("name", "model", "training", "licence", "quality", "version")
_END = 1 << 30  # beyond the end of any axis
_SEAL = 20927.0625
"""Last value of a sealed state; memory that nobody wrote does not end like this."""


@dataclass(frozen=True)
class Portable:
    """A portable graph with the figures that a program needs around it.

    Attributes
    ----------
    model
        The graph. ``mixture`` (1, channels, block) and ``state`` (1, size) are its inputs,
        ``sources`` (1, sources, channels, block) and ``next_state`` (1, size) its outputs; with
        separate outputs, each source is an output (1, channels, block) of its own name instead of
        ``sources``. The first state is zeros.
    spec
        Spec of the bundle.
    channels
        Channels of mixture and sources.
    latency_samples
        Delay of the sources, in samples of the model's rate.
    state_size
        Number of values of the state.
    outputs
        Names of the outputs with samples.
    """

    model: onnx.ModelProto
    spec: Spec
    channels: int
    latency_samples: int
    state_size: int
    outputs: tuple[str, ...]

    @property
    def block(self) -> int:
        """Samples per call and channel, at the model's rate."""
        return self.spec.step_length


def build(
    bundle: Bundle,
    channels: int | None = None,
    *,
    batch: bool = False,
    separate: bool = False,
    sealed: bool = False,
) -> Portable:
    """Build the portable graph of a bundle.

    Parameters
    ----------
    bundle
        The model.
    channels
        Channels of mixture and sources; by default those that the model processes jointly. A model
        of one channel processes each as a separate stream.
    batch
        Leave the first size of all inputs and outputs free: each index is a separate stream.
    separate
        Make one output per source instead of ``sources``.
    sealed
        Take any state that is not a ``next_state`` of this graph for zeros, for programs that begin
        with memory as they find it. Not with ``batch``.

    Raises
    ------
    BundleError
        The graph has an operation that can't be expressed in `rtsep.portable.opset.OPSET`.
    SpecError
        The model processes another number of channels jointly.
    """
    spec = bundle.spec
    channels = spec.channels if channels is None else channels
    layout = _Layout(bundle, spec.streams(channels))
    g = Writer()
    mixture = g.input("mixture", (channels, spec.step_length))
    size = layout.size + sealed
    state = g.input("state", (size,))
    if sealed:
        seal = g("Slice", state, g.integers(layout.size), g.integers(size), g.integers(1))
        state = g("Slice", state, g.integers(0), g.integers(layout.size), g.integers(1))
        state = g("Where", g("Equal", seal, g.number(_SEAL)), state, g.number(0.0))
    if layout.streams > 1:
        state = g("Reshape", state, g.integers(-1, layout.size // layout.streams))
    # The parts before and after the model work on rows (streams, channels jointly, samples).
    rows = g("Reshape", mixture, g.integers(-1, spec.channels, spec.step_length))
    audible = g("LessOrEqual", g("Abs", rows), g.number(LIMIT))  # False for NaN
    rows = g("Where", audible, rows, g.number(0.0))
    frames, history = _analyse(g, spec, rows, layout.read(g, state, "history"))
    inner = _inner(bundle)
    for name, value in (("mixture", frames), *layout.inputs(g, state)):
        g("Identity", value, name=f"model.{name}")
    for name, control in bundle.controls.items():
        g("Identity", g.number([control.default]), name=f"model.{PREFIX}{name}")
    g.include(inner)
    spectra, sound = _check_frames(g, spec, "model.sources")
    samples, overlap = _overlap_add(g, spec, spectra, layout.read(g, state, "overlap"))
    following = layout.following(g, state, sound, history, overlap)
    if bundle.floor_db is not None:
        samples = _leave(g, len(spec.sources), samples, linear(bundle.floor_db))
    outputs = _sources(g, spec, samples, channels, separate)
    if layout.streams > 1:
        following = g("Reshape", following, g.integers(-1, layout.size))
    if sealed:
        following = g("Concat", following, g.number([[_SEAL]]), axis=1)
    g.output(following, "next_state", (size,))
    late = Latency.of(spec, spec.step_length).total
    model = g.model("portable", OPSET, IR_VERSION)
    _finish(model, bundle, channels, late, batch)
    return Portable(model, spec, channels, late, size, outputs)


class _Layout:
    """Places of all states in the one tensor, for one stream.

    A state that is read up to ``n`` calls later has ``n`` entries, the oldest first.
    """

    def __init__(self, bundle: Bundle, streams: int) -> None:
        spec, self.streams, self._states = bundle.spec, streams, bundle.states
        old = spec.window_length - spec.hop_length
        tail = spec.synthesis_length - spec.hop_length
        self._shapes: dict[str, tuple[int, ...]] = {
            "history": (spec.channels, old),
            "overlap": (len(spec.sources), spec.channels, tail),
        }
        self._shapes |= {
            name: (max(state.inputs), *state.shape) for name, state in bundle.states.items()
        }
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        starts = [0, *np.cumsum(sizes).tolist()]
        self._starts = dict(zip(self._shapes, starts, strict=False))
        self.size = max(streams * starts[-1], 1)

    def _part(self, g: Writer, state: str, start: int, size: int) -> str:
        return g("Slice", state, g.integers(start), g.integers(start + size), g.integers(1))

    def read(self, g: Writer, state: str, name: str) -> str:
        """Return (streams, ...) of history or overlap; an empty name if it has no values."""
        shape = self._shapes[name]
        if not math.prod(shape):
            return ""
        part = self._part(g, state, self._starts[name], math.prod(shape))
        return g("Reshape", part, g.integers(-1, *shape))

    def inputs(self, g: Writer, state: str) -> list[tuple[str, str]]:
        """Return the model's state inputs by name."""
        found = []
        for name, declared in self._states.items():
            size, deepest = math.prod(declared.shape), max(declared.inputs)
            for calls, key in declared.inputs.items():
                start = self._starts[name] + (deepest - calls) * size
                part = self._part(g, state, start, size)
                found.append((key, g("Reshape", part, g.integers(-1, *declared.shape))))
        return found

    def following(self, g: Writer, state: str, sound: str, history: str, overlap: str) -> str:
        """Return the next state (streams, values); the model's is zeros where it is not sound."""
        flat = g.integers(0, -1)
        parts = []
        for name, declared in self._states.items():
            size, deepest = math.prod(declared.shape), max(declared.inputs)
            if deepest > 1:
                start = self._starts[name] + size
                parts.append(self._part(g, state, start, (deepest - 1) * size))
            parts.append(g("Reshape", f"model.next_{name}", g.integers(-1, size)))
        kept = [g("Reshape", part, flat) for part in (history, overlap) if part]
        if parts:
            own = g("Concat", *parts, axis=1)
            kept.append(g("Where", sound, own, g.number(0.0)))
        if not kept:  # a state has at least one value
            return g("Mul", state, g.number(0.0))
        return g("Concat", *kept, axis=1)


def _inner(bundle: Bundle) -> onnx.GraphProto:
    """Return the bundle's graph in `OPSET`, all names with the prefix ``model.``."""
    model = onnx.load_model_from_string(bundle.graph)
    try:
        lower(model)
    except BundleError as error:
        raise BundleError(f"{bundle.metadata['name']} can't be made portable: {error}") from None
    del model.graph.value_info[:]
    return compose.add_prefix(model, "model.").graph


def _analyse(g: Writer, spec: Spec, rows: str, history: str) -> tuple[str, str]:
    """Return the model's frames and the next history, empty if windows do not overlap."""
    window, _ = windows.pair(*_window(spec))
    whole = g("Concat", history, rows, axis=2) if history else rows
    kept = ""
    if history:
        kept = g("Slice", whole, g.integers(spec.step_length), g.integers(_END), g.integers(2))
    if spec.chunk > 1:
        starts = spec.hop_length * np.arange(spec.chunk)[:, None]
        whole = g("Gather", whole, g.indices(starts + np.arange(spec.window_length)), axis=2)
        whole = g("Transpose", whole, perm=[0, 2, 1, 3])
    if spec.frontend == "stft":
        flat = g("Reshape", whole, g.integers(-1, spec.window_length))
        frames = transform.forward(g, flat, window)
    else:
        frames = g("Mul", whole, g.number(window))
    shape = (-1, spec.chunk, spec.channels, *spec.frame_shape)
    return g("Reshape", frames, g.integers(*shape)), kept


def _check_frames(g: Writer, spec: Spec, sources: str) -> tuple[str, str]:
    """Replace frames that are not finite by silence; also return (streams, 1) of booleans."""
    axes = range(2, 4 + len(spec.frame_shape))
    sums = g("ReduceSum", g("Abs", sources), g.integers(*axes))
    good = g("LessOrEqual", sums, g.number(LIMIT))  # False for NaN
    frames = g("Where", good, sources, g.number(0.0))
    good = g("Reshape", good, g.integers(-1, spec.chunk))
    if spec.chunk > 1:
        bad = g("ReduceSum", g("Cast", g("Not", good), to=1), g.integers(1))
        good = g("Less", bad, g.number(0.5))
    return frames, good


def _overlap_add(g: Writer, spec: Spec, frames: str, overlap: str) -> tuple[str, str]:
    """Return (streams, sources, channels, step) and the next overlap, empty if there is none."""
    _, window = windows.pair(*_window(spec))
    chunk, hop, length = spec.chunk, spec.hop_length, spec.synthesis_length
    outer = len(spec.sources), spec.channels
    if spec.frontend == "stft":
        flat = g("Reshape", frames, g.integers(-1, *spec.frame_shape))
        x = transform.inverse(g, flat, spec.window_length, window)
    else:
        if length < spec.window_length:
            axis = g.integers(4)
            start = spec.window_length - length
            frames = g("Slice", frames, g.integers(start), g.integers(_END), axis)
        x = g("Mul", frames, g.number(window))
    if chunk > 1:
        # Rows one hop longer than the sum, cut into rows of its length, move by a hop each.
        total = length + (chunk - 1) * hop
        x = g("Reshape", x, g.integers(-1, chunk, *outer, length))
        x = g("Transpose", x, perm=[0, 2, 3, 1, 4])
        x = g("Pad", x, g.integers(0, 0, 0, 0, 0, 0, 0, 0, 0, total + hop - length))
        x = g("Reshape", x, g.integers(-1, *outer, chunk * (total + hop)))
        x = g("Slice", x, g.integers(0), g.integers(chunk * total), g.integers(3))
        x = g("Reshape", x, g.integers(-1, *outer, chunk, total))
        x = g("ReduceSum", x, g.integers(3), keepdims=0)
    x = g("Reshape", x, g.integers(-1, *outer, length + (chunk - 1) * hop))
    if not overlap:
        return x, ""
    x = g("Add", x, g("Pad", overlap, g.integers(0, 0, 0, 0, 0, 0, 0, spec.step_length)))
    step, axis = g.integers(spec.step_length), g.integers(3)
    return g("Slice", x, g.integers(0), step, axis), g("Slice", x, step, g.integers(_END), axis)


def _leave(g: Writer, sources: int, samples: str, floor: float) -> str:
    """Leave a part of the other sources in each, as the engine does by the bundle's floor."""
    scale = 1.0 / (1.0 + (sources - 1) * floor)
    total = g("ReduceSum", samples, g.integers(1), keepdims=1)
    own = g("Mul", samples, g.number(scale * (1.0 - floor)))
    return g("Add", own, g("Mul", total, g.number(scale * floor)))


def _sources(g: Writer, spec: Spec, samples: str, channels: int, separate: bool) -> tuple[str, ...]:
    """Declare the outputs with samples; return their names."""
    count, shape = len(spec.sources), (channels, spec.step_length)
    if channels > spec.channels:
        samples = g("Reshape", samples, g.integers(-1, channels, count, spec.step_length))
        samples = g("Transpose", samples, perm=[0, 2, 1, 3])
    if not separate:
        g.output(samples, "sources", (count, *shape))
        return ("sources",)
    for place, name in enumerate(spec.sources):
        taken = g("Slice", samples, g.integers(place), g.integers(place + 1), g.integers(1))
        g.output(g("Squeeze", taken, g.integers(1)), name, shape)
    return spec.sources


def _window(spec: Spec) -> tuple[str, int, int, int]:
    return spec.window, spec.window_length, spec.hop_length, spec.synthesis_length


def _finish(model: onnx.ModelProto, bundle: Bundle, channels: int, late: int, batch: bool) -> None:
    """Set sizes and metadata, and check the graph."""
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not batch:
            first.dim_value = 1
    spec = bundle.spec
    texts = {
        "format": FORMAT,
        "sample_rate": spec.sample_rate,
        "channels": channels,
        "block": spec.step_length,
        "latency_samples": late,
        "sources": ",".join(spec.sources),
        **{key: bundle.metadata[key] for key in _TEXTS},
    }
    for key, text in texts.items():
        model.metadata_props.add(key=f"rtsep.{key}", value=str(text))
    model.producer_name = "rtsep"
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx raises types of its own
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise BundleError(f"{bundle.metadata['name']} can't be made portable: {reason}") from None
