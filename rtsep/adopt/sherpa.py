"""Descriptions in the metadata of a file, by the keys of sherpa-onnx' online denoisers."""

from __future__ import annotations

import onnx

from rtsep.adopt.description import Description, NetworkDescription, Texts
from rtsep.adopt.network import interface
from rtsep.errors import AdoptError

KEYS = ("sample_rate", "n_fft", "hop_length", "window_length", "window_type")
"""Keys that such a file has, beside a shape for every cache."""
WINDOWS = {"hann_sqrt": "hann", "sqrt_hann": "hann", "hamming_sqrt": "hamming"}
"""Names of window pairs by the names in the metadata."""
_SUFFIXES = ("_out", "_new", "_next")


def of_metadata(model: onnx.ModelProto) -> Description | None:
    """Return the description of a file with sherpa-onnx' metadata; None without them.

    Raises
    ------
    AdoptError
        A value is invalid, or the graph has other inputs and outputs than such a file.
    """
    texts = {p.key: p.value for p in model.metadata_props}
    if not all(key in texts for key in KEYS):
        return None
    numbers = {key: _whole(key, texts[key]) for key in KEYS[:4]}
    if numbers["n_fft"] != numbers["window_length"]:
        raise AdoptError(
            f"n_fft {numbers['n_fft']} differs from window_length {numbers['window_length']}"
        )
    window = texts["window_type"]
    if window not in WINDOWS:
        raise AdoptError(f"window_type must be one of {', '.join(WINDOWS)}, not {window!r}")
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    caches = [name for name in inputs if f"{name}_shape" in texts]
    shapes = interface(model)
    for name in caches:
        stated = tuple(_whole(f"{name}_shape", x) for x in texts[f"{name}_shape"].split(","))
        if stated != shapes[name]:
            raise AdoptError(f"{name}_shape is {stated}, but the graph has {shapes[name]}")
    states = {name: _following(name, outputs) for name in caches}
    sounds = [name for name in inputs if name not in states]
    estimates = [name for name in outputs if name not in states.values()]
    if len(sounds) != 1 or len(estimates) < 1:
        raise AdoptError(f"the inputs {', '.join(sounds)} have no *_cache_shape in the metadata")
    network = NetworkDescription(
        input=sounds[0],
        output=estimates[0],
        input_axes=_axes(shapes[sounds[0]], numbers["n_fft"]),
        output_axes=_axes(shapes[estimates[0]], numbers["n_fft"]),
        states=states,
    )
    described = Texts(
        model=texts.get("model_type", "unknown"),
        author=texts.get("author", texts.get("maintainer", "unknown")),
        licence=texts.get("license", texts.get("licence", "not stated in the file")),
    )
    return Description(
        kind="spectrum",
        sample_rate=numbers["sample_rate"],
        window=WINDOWS[window],
        window_length=numbers["window_length"],
        hop_length=numbers["hop_length"],
        networks=(network,),
        texts=described,
    )


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise AdoptError(f"{key} in the metadata must be a whole number, not {text!r}") from None


def _following(name: str, outputs: list[str]) -> str:
    """Return the output that has a cache's next value."""
    for candidate in (*(name + suffix for suffix in _SUFFIXES), f"next_{name}", f"new_{name}"):
        if candidate in outputs:
            return candidate
    raise AdoptError(f"cache {name!r} has no output with its next value")


def _axes(sizes: tuple[int | None, ...], n_fft: int) -> tuple[str, ...]:
    """Return the names of the axes of a spectrum."""
    names = {n_fft // 2 + 1: "bin", 2: "part"}
    rest = iter(("stream", "frame", "channel"))
    return tuple(names[size] if size in names else next(rest, "channel") for size in sizes)
