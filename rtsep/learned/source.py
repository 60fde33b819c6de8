"""A learned source on disk: ``.rtsep``, weights as safetensors with a description in the header.

Nothing in a file is executed; sizes, shapes and values are checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rtsep.dsp.radices import factorise
from rtsep.dsp.windows import pair
from rtsep.errors import LearnedError
from rtsep.files.atomic import replacing
from rtsep.learned.decoder import Decoder
from rtsep.spec import Spec

FORMAT = "rtsep.source.1"
MAX_BYTES = 1 << 26
"""Larger files are rejected before reading."""
MODELS = {
    "nmf": "non-negative matrix factorisation",
    "cnmf": "convolutive non-negative matrix factorisation",
    "nae": "non-negative auto-encoder, Smaragdis and Venkataramani 2017",
    "nae-deep": "non-negative auto-encoder of several layers, Smaragdis and Venkataramani 2017",
    "ccae": "convolutional auto-encoder, Venkataramani, Subakan and Smaragdis 2017",
    "rcae": "recurrent encoder, convolutional decoder, Venkataramani, Subakan and Smaragdis 2017",
}
"""Models of learned sources, with a description."""

MAX_RANK, MAX_TAPS, MAX_LAYERS = 1024, 64, 8
_NAME = re.compile(r"\w[\w .+-]{0,63}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_STREAM = ("sample_rate", "window", "window_length", "hop_length", "synthesis_length")


@dataclass(frozen=True)
class Source:
    """A learned source.

    Attributes
    ----------
    name
        Name of the source and its stem.
    model
        One of `MODELS`.
    decoder
        The learned decoder.
    spec
        Rate and windows; this source is its only one.
    training
        Description of the training sound.
    """

    name: str
    model: str
    decoder: Decoder
    spec: Spec
    training: str


def check_name(name: str) -> str:
    """Return ``name`` if it is valid for a source."""
    if not _NAME.fullmatch(name) or name == "mixture":
        raise LearnedError(f"{name!r} is not valid as the name of a source and of its files")
    return name


def stream(name: str, rate_hz: int, window_length: int, hop_length: int) -> Spec:
    """Return the spec of a source: spectra of square-root Hann windows, one frame per call.

    Raises
    ------
    LearnedError, SpecError
        The figures are invalid.
    """
    spec = Spec(rate_hz, 1, "stft", "hann", window_length, hop_length, 1, 0, (name,))
    try:
        _check_windows(spec)
    except ValueError as error:
        raise LearnedError(str(error)) from None
    return spec


def _check_windows(spec: Spec) -> None:
    pair(spec.window, spec.window_length, spec.hop_length, spec.synthesis_length)
    factorise(spec.window_length)


def write(source: Source, path: Path) -> None:
    """Write a file atomically."""
    decoder = source.decoder
    told = {
        "format": FORMAT,
        "name": source.name,
        "model": source.model,
        "training": source.training,
        "taps": decoder.taps,
        "linear": decoder.linear,
        "scale": decoder.scale,
        **{key: getattr(source.spec, key) for key in _STREAM},
    }
    tensors = {f"matrix{i}": np.ascontiguousarray(m) for i, m in enumerate(decoder.matrices)}
    tensors["usual"] = decoder.usual
    try:
        with replacing(path) as part:
            part.write_bytes(save(tensors, {"rtsep": json.dumps(told)}))
    except OSError as error:
        raise LearnedError(f"{path} can't be written: {error.strerror}") from None


def read(path: Path | str) -> Source:
    """Read and check a file.

    Raises
    ------
    LearnedError
        The file is missing, too large, truncated, of another format, or has invalid contents.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise LearnedError(f"{path} is a folder, not a learned source")
        if path.stat().st_size > MAX_BYTES:
            raise LearnedError(
                f"{path} is larger than {MAX_BYTES >> 20} MiB, the limit for learned sources"
            )
        with safe_open(path, "np") as file:
            header = (file.metadata() or {}).get("rtsep")
            names = file.keys()
            if len(names) > MAX_LAYERS + 1:
                raise LearnedError(f"{path} has {len(names)} tensors, more than a decoder has")
            tensors = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise LearnedError(f"{path} can't be read: {error.strerror or error}") from None
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LearnedError):
            raise
        raise LearnedError(f"{path} is not a learned source, or it is truncated") from None
    if header is None:
        raise LearnedError(f"{path} is not a learned source: its header names no format")
    try:
        return _parse(json.loads(header), tensors)
    except (KeyError, TypeError, RecursionError, ValueError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        reason = "".join(c if c.isprintable() else "?" for c in reason)[:200]
        raise LearnedError(f"{path} is not a valid learned source: {reason}") from None


def _parse(told: Any, tensors: dict[str, Any]) -> Source:
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise LearnedError(f"its format is not {FORMAT!r}")
    name, model, training = (told[key] for key in ("name", "model", "training"))
    for text in (name, model, training):
        if not isinstance(text, str) or _CONTROL.search(text) or len(text) > 4000:
            raise LearnedError("its texts are not plain text")
    if model not in MODELS:
        raise LearnedError(f"its model is {model!r}; there are: {', '.join(MODELS)}")
    rate, window, length, hop, synthesis = (told[key] for key in _STREAM)
    name = check_name(name)
    spec = Spec(rate, 1, "stft", window, length, hop, 1, 0, (name,), synthesis)
    _check_windows(spec)
    return Source(name, model, _decoder(told, tensors, length // 2 + 1), spec, training)


def _decoder(told: dict[str, Any], tensors: dict[str, Any], bins: int) -> Decoder:
    taps, linear, scale = told["taps"], told["linear"], told["scale"]
    if not isinstance(linear, bool) or not isinstance(taps, int) or not 1 <= taps <= MAX_TAPS:
        raise LearnedError(f"its decoder has {taps!r} taps; 1 to {MAX_TAPS} are possible")
    if not isinstance(scale, float) or not 1e-9 <= scale <= 1e9:
        raise LearnedError(f"its scale is {scale!r}")
    usual = tensors.pop("usual")
    matrices = tuple(tensors[f"matrix{i}"] for i in range(len(tensors)))
    for array in (usual, *matrices):
        if array.dtype != np.float32 or not np.all(np.abs(array) <= 1e9):  # NaN too
            raise LearnedError("its weights are not finite numbers of single precision")
    if usual.ndim != 1 or not 1 <= len(usual) <= MAX_RANK or not np.all(usual >= 0):
        raise LearnedError(f"its rank must be 1 to {MAX_RANK}, and its values non-negative")
    width = taps * len(usual)
    for matrix in matrices:
        if matrix.ndim != 2 or matrix.shape[0] != width or not 1 <= matrix.shape[1] <= 1 << 16:
            raise LearnedError(f"a matrix of shape {matrix.shape} does not follow {width} inputs")
        width = matrix.shape[1]
    if not matrices or width != bins:
        raise LearnedError(f"it decodes {width} magnitudes, but its windows have {bins}")
    if linear and (len(matrices) > 1 or not np.all(matrices[0] >= 0)):
        raise LearnedError("a linear decoder must have one matrix without negative weights")
    return Decoder(matrices, taps, linear, scale, usual)


def alike(sources: Sequence[Source]) -> Spec:
    """Return the common spec of several sources.

    Raises
    ------
    LearnedError
        They were learned at different rates or windows, or two have the same name.
    """
    first = sources[0]
    for other in sources[1:]:
        for key in _STREAM:
            mine, its = getattr(first.spec, key), getattr(other.spec, key)
            if mine != its:
                raise LearnedError(
                    f"{first.name} was learned with {key} {mine}, {other.name} with {its}: learn "
                    "both with the same value"
                )
    names = tuple(source.name for source in sources)
    if len(set(names)) < len(names):
        raise LearnedError(f"two sources share a name: {', '.join(names)}; learn one with --name")
    s = first.spec
    return Spec(
        *(s.sample_rate, 1, "stft", s.window, s.window_length, s.hop_length, 1, 0, names),
        s.synthesis_length,
    )
