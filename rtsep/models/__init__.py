"""One architecture per file, its paper cited in the docstring (torch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rtsep.models import banded, chandna, convtasnet, dilated
from rtsep.models.banded import Banded
from rtsep.models.chandna import Chandna
from rtsep.models.convtasnet import ConvTasNet
from rtsep.models.dilated import Dilated
from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec

PAPERS = {
    "banded": "after Le, Chen, Chen, Lu: DPCRN: Dual-Path Convolution Recurrent Network for Single "
    "Channel Speech Enhancement, Interspeech 2021",
    "chandna": "Chandna, Miron, Janer, Gomez: Monoaural Audio Source Separation Using Deep "
    "Convolutional Neural Networks, LVA/ICA 2017",
    "convtasnet": "Luo, Mesgarani: Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking "
    "for Speech Separation, IEEE/ACM TASLP 2019",
    "dilated": "Mobin, Cheung, Olshausen: Convolutional vs. Recurrent Neural Networks for Audio "
    "Source Separation, arXiv 1803.08629, 2018",
}
"""The architectures by name, each with its paper."""

SIZES: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "banded": banded.SIZES,
    "chandna": chandna.SIZES,
    "convtasnet": convtasnet.SIZES,
    "dilated": dilated.SIZES,
}
"""Options of each architecture by a name for them, which is the option ``size``; first the
paper's."""

MEMORY_S = 30.0
"""Time constant of Conv-TasNet's normalisation unless its options say otherwise: long beside an
utterance, short enough to forget another room."""


def build(name: str, spec: Spec, options: dict[str, Any]) -> Streaming:
    """Make the architecture ``name`` for the frames of ``spec``.

    Raises
    ------
    ValueError
        Unknown name, options the architecture does not take, or a spec it can't work on.
    """
    if name not in PAPERS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(PAPERS)}")
    try:
        return _BUILDERS[name](spec, **options)
    except TypeError as error:
        raise ValueError(f"model {name!r}: {error}") from None


def _masks(
    name: str, model: type[Chandna] | type[Dilated], spec: Spec, size: str, options: dict[str, Any]
) -> Streaming:
    """Make a network that masks spectra."""
    if spec.frontend != "stft":
        raise ValueError(f"{name} works on spectra: frontend must be 'stft', not {spec.frontend!r}")
    return model(
        bins=spec.window_length // 2 + 1,
        sources=len(spec.sources),
        channels=spec.channels,
        lookahead=spec.lookahead,
        **_sized(name, size, options),
    )


def _chandna(spec: Spec, size: str = "music", **options: Any) -> Streaming:
    return _masks("chandna", Chandna, spec, size, options)


def _dilated(spec: Spec, size: str = "full", **options: Any) -> Streaming:
    return _masks("dilated", Dilated, spec, size, options)


def _banded(spec: Spec, size: str = "base", **options: Any) -> Streaming:
    return Banded(
        spec.window_length // 2 + 1,
        len(spec.sources),
        spec.channels,
        spec.lookahead,
        **_sized("banded", size, options),
    )


def _convtasnet(spec: Spec, size: str = "full", **options: Any) -> Streaming:
    if spec.lookahead:
        raise ValueError(f"convtasnet looks at no later frames: lookahead {spec.lookahead}, not 0")
    memory = MEMORY_S * spec.sample_rate / spec.hop_length
    return ConvTasNet(
        frame_shape=spec.frame_shape,
        sources=len(spec.sources),
        channels=spec.channels,
        **{"memory": memory, **_sized("convtasnet", size, options)},
    )


def _sized(name: str, size: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a named size, changed by those given."""
    if size not in SIZES[name]:
        raise ValueError(f"unknown size {size!r}; there are: {', '.join(SIZES[name])}")
    return {**SIZES[name][size], **options}


_BUILDERS: dict[str, Callable[..., Streaming]] = {
    "banded": _banded,
    "chandna": _chandna,
    "convtasnet": _convtasnet,
    "dilated": _dilated,
}
