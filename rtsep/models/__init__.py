"""One architecture per file, its paper cited in the docstring (torch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rtsep.models import convtasnet
from rtsep.models.chandna import Chandna
from rtsep.models.convtasnet import ConvTasNet
from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec

PAPERS = {
    "chandna": "Chandna, Miron, Janer, Gomez: Monoaural Audio Source Separation Using Deep "
    "Convolutional Neural Networks, LVA/ICA 2017",
    "convtasnet": "Luo, Mesgarani: Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking "
    "for Speech Separation, IEEE/ACM TASLP 2019",
}
"""The architectures by name, each with its paper."""


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


def _chandna(spec: Spec, **options: Any) -> Streaming:
    return Chandna(
        bins=spec.window_length // 2 + 1,
        sources=len(spec.sources),
        channels=spec.channels,
        lookahead=spec.lookahead,
        **options,
    )


def _convtasnet(spec: Spec, size: str = "full", **options: Any) -> Streaming:
    if spec.lookahead:
        raise ValueError(f"convtasnet looks at no later frames: lookahead {spec.lookahead}, not 0")
    return ConvTasNet(
        frame_shape=spec.frame_shape,
        sources=len(spec.sources),
        channels=spec.channels,
        **_sized(convtasnet.SIZES, size, options),
    )


def _sized(
    sizes: Mapping[str, Mapping[str, Any]], size: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of a named size, changed by those given."""
    if size not in sizes:
        raise ValueError(f"unknown size {size!r}; there are: {', '.join(sizes)}")
    return {**sizes[size], **options}


_BUILDERS: dict[str, Callable[..., Streaming]] = {"chandna": _chandna, "convtasnet": _convtasnet}
