"""Build a bundle from learned sources; its state is activations, updated in every call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import onnx

from rtsep.errors import LearnedError
from rtsep.learned.decoder import EPSILON, Penalty
from rtsep.learned.online import Learning
from rtsep.learned.onnxgraph import Writer
from rtsep.learned.parts import Frame, Learned, Part
from rtsep.learned.source import MODELS, Source, alike
from rtsep.runtime.bundle import Bundle, describe, parse
from rtsep.spec import Float32, Spec
from rtsep.version import __version__

STEPS = 5
"""Default number of updates per frame; more improve quality and raise the load."""
MEMORY = 0.5
"""Weight of the last frame's activations in the initial values of the next frame."""
REMOVAL = {"sparsity": 0.1, "power": 2.0, "memory": 0.9}
"""Options of `bundle` for noise learned live; they favour the noise where both sources fit."""
REMOVAL_STEPS = 2
"""`STEPS` for noise learned live; with more, the voice would fit fluctuations of the noise."""


@dataclass(frozen=True)
class Rest:
    """A source for the remainder of the mixture; it adapts slowly while it separates.

    Attributes
    ----------
    name
        Name of the source.
    first
        (rank, bins): initial dictionary.
    trust
        Weight of the initial dictionary, in frames, for each entry.
    memory_s
        Time constant with which it forgets, in seconds.
    """

    name: str
    first: Float32
    trust: float = 5.0
    memory_s: float = 10.0


@dataclass(frozen=True)
class Noise:
    """A noise that is learned from the first seconds of the stream, where it is alone.

    Attributes
    ----------
    name
        Name of the source.
    seconds
        Time to learn; meanwhile the first source is the mixture.
    rank
        Entries of its dictionary.
    memory_s
        Time constant with which it forgets, in seconds, so that the initial values do not persist.
    anchor
        Strength of the prior that keeps its activations near their mean over these seconds.
    weight
        Factor of its magnitudes in the masks.
    """

    name: str
    seconds: float
    rank: int = 32
    memory_s: float = 3.0
    anchor: float = 0.2
    weight: float = 1.5


def rest(name: str, spec: Spec, voice: Source) -> Rest:
    """Make a `Rest` that starts as ``voice`` if rate and windows agree.

    Otherwise its initial dictionary is random, and it has to adapt first.
    """
    linear = voice.decoder.linear and voice.decoder.taps == 1
    if linear and replace(voice.spec, sources=spec.sources) == spec:
        return Rest(name, voice.decoder.matrices[0])
    rng = np.random.default_rng(1)
    return Rest(name, rng.uniform(0.1, 1.9, (32, spec.frame_shape[1])).astype(np.float32))


def bundle(
    sources: Sequence[Source],
    *,
    steps: int = STEPS,
    rest: Rest | None = None,
    noise: Noise | None = None,
    sparsity: float = 0.0,
    memory: float = MEMORY,
    power: float = 1.0,
) -> Bundle:
    """Combine learned sources into a bundle.

    Parameters
    ----------
    sources
        Sources learned at the same rate with the same windows.
    steps
        Number of updates of the activations per frame.
    rest, noise
        Further sources that adapt to the stream.
    sparsity
        Penalty of the learned sources' activations.
    memory
        Weight of the last frame's activations in the initial values.
    power
        Exponent of the magnitudes in the masks: 1 in the papers, 2 for Wiener filters.

    Raises
    ------
    LearnedError
        There are fewer than two sources, or they differ in rate or windows.
    """
    others = [part.name for part in (rest, noise) if part is not None]
    if not sources or len(sources) + len(others) < 2:
        raise LearnedError(
            f"{''.join(s.name for s in sources) or 'nothing'} alone can't be separated: name "
            "another source, or use --rest NAME for the remainder"
        )
    spec = alike(sources)
    names = (*spec.sources, *others)
    if len(set(names)) < len(names):
        raise LearnedError(f"two sources share a name: {', '.join(names)}")
    spec = replace(spec, sources=names)
    graph = _graph(sources, spec, steps, rest, noise, Penalty(sparsity), memory, power)
    kinds = sorted({MODELS[source.model] for source in sources})
    texts = {
        "name": " + ".join(names),
        "model": f"learned sources, {steps} updates per frame ({'; '.join(kinds)})",
        "training": "\n".join(f"{s.name}: {s.training}" for s in sources),
        "licence": "that of the learned sources",
        "quality": "not measured",
        "version": __version__,
    }
    for key, value in describe(spec, texts).items():
        graph.metadata_props.add(key=key, value=value)
    return parse(graph.SerializeToString())


def _graph(
    sources: Sequence[Source],
    spec: Spec,
    steps: int,
    rest: Rest | None,
    noise: Noise | None,
    penalty: Penalty,
    memory: float,
    power: float,
) -> onnx.ModelProto:
    g = Writer()
    bins, count = spec.frame_shape[1], len(spec.sources)
    mixture = g.input("mixture", (1, 1, 2, bins))
    squared = g("ReduceSum", g("Mul", mixture, mixture), g.integers(3), keepdims=0)
    x = g("Reshape", g("Sqrt", squared), g.integers(0, 1, bins))
    level = g("ReduceSum", x, g.integers(2))
    window = max(source.decoder.taps for source in sources)
    if window > 1:
        past = g.input("state.recent", (window - 1, bins))
        x = g("Concat", past, x, axis=1)
        recent = g("Slice", x, g.integers(1), g.integers(window), g.integers(1))
        g.output(recent, "next_state.recent", (window - 1, bins))
    separating = listening = ""
    if noise is not None:
        listening, separating = _phases(g, noise, spec)
    frame = Frame(x, level, window, count, memory, separating)
    parts = _parts(g, sources, penalty)
    rate = spec.sample_rate / spec.hop_length
    if rest is not None:
        forget = rest.memory_s * rate
        kept = {"trust": rest.trust, "memory_frames": forget, "gate": separating}
        parts.append(Learning(g, rest.name, rest.first, **kept))  # type: ignore[arg-type]
    if noise is not None:
        rng = np.random.default_rng(0)
        first = rng.uniform(0.1, 1.9, (noise.rank, bins)).astype(np.float32)
        parts.append(
            Learning(
                *(g, noise.name, first),
                trust=1.0,
                memory_frames=noise.memory_s * rate,
                gate=listening,
                anchor=noise.anchor,
                learned_frames=noise.seconds * rate,
            )
        )
    for part in parts:
        part.begin(frame)
    ratio = ""
    for _ in range(steps):
        ratio = _ratio(g, x, parts)
        for part in parts:
            part.improve(ratio)
    if any(isinstance(part, Learning) for part in parts):
        ratio = _ratio(g, x, parts)
    pieces = [piece for part in parts for piece in part.newest()]
    explained = g("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
    if noise is not None and noise.weight != 1:
        weights = np.ones((1, count, 1), np.float32)
        weights[0, -1] = noise.weight
        explained = g("Mul", explained, g.number(weights))
    if power != 1:
        explained = g("Pow", explained, g.number(power))
    masks = _masks(g, explained, listening, count, EPSILON**power)
    masks = g("Reshape", masks, g.integers(0, 1, count, 1, 1, bins))
    separated = g("Mul", masks, g("Unsqueeze", mixture, g.integers(2)))
    g.output(separated, "sources", (1, count, 1, 2, bins))
    for part in parts:
        part.end(ratio)
    return g.model("learned")


def _parts(g: Writer, sources: Sequence[Source], penalty: Penalty) -> list[Part]:
    """Make the parts of the graph; adjacent linear sources with equal taps share one."""

    def kind(pair: tuple[int, Source]) -> tuple[int, int]:
        index, source = pair
        return (source.decoder.taps, -1) if source.decoder.linear else (0, index)

    parts: list[Part] = []
    for _, group in groupby(enumerate(sources), kind):
        members = [source for _, source in group]
        name = "+".join(source.name for source in members)
        parts.append(Learned(g, name, [source.decoder for source in members], penalty))
    return parts


def _ratio(g: Writer, x: str, parts: Sequence[Part]) -> str:
    explained = g.number(EPSILON)
    for part in parts:
        explained = g("Add", part.explain(), explained)
    return g("Div", x, explained)


def _masks(g: Writer, explained: str, dry: str, count: int, least: float) -> str:
    """Masks (streams, sources, bins); the first source gets everything while ``dry`` is 1."""
    parts = g("Add", explained, g.number(least / count))
    masks = g("Div", parts, g("ReduceSum", parts, g.integers(1)))
    if dry:
        first = np.zeros((1, count, 1), np.float32)
        first[0, 0] = 1.0
        towards = g("Mul", dry, g("Sub", g.number(first), masks))
        masks = g("Add", masks, towards)
    return masks


def _phases(g: Writer, noise: Noise, spec: Spec) -> tuple[str, str]:
    """Gates (streams, 1, 1): 1 while learning, 1 afterwards; the frame counter is state."""
    frames = noise.seconds * spec.sample_rate / spec.hop_length
    heard = g.input("state.frames", (1, 1))
    g.output(
        g("Min", g("Add", heard, g.number(1.0)), g.number(frames + 1)), "next_state.frames", (1, 1)
    )
    left = g("Sub", g.number(np.ceil(frames)), heard)
    listening = g("Clip", left, g.number(0.0), g.number(1.0))
    return listening, g("Sub", g.number(1.0), listening)
