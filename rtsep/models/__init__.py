"""The architectures (torch), one per file, each with its paper and its named sizes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec

NAMES = (
    "banded",
    "cdae",
    "chandna",
    "clustering",
    "complexunet",
    "conditionedunet",
    "convtasnet",
    "demucs",
    "dilated",
    "feedforward",
    "isa",
    "iva",
    "keptvoice",
    "openunmix",
    "recurrent",
    "repet",
    "segan",
    "tasnet",
    "unet",
    "waveunet",
)
"""Names of the architectures; each is a module of this package, see `Architecture`."""


class Architecture(Protocol):
    """The public names of an architecture's module."""

    PAPER: str
    """Authors, title, venue and year, which are written into bundles."""
    SIZES: Mapping[str, Mapping[str, Any]]
    """Options of `build` by the name of a size; the first is the default."""

    def build(self, spec: Spec, **options: Any) -> Streaming:
        """Build the network for the frames of ``spec``, with random weights."""


def architecture(name: str) -> Architecture:
    """Return the module of an architecture.

    Raises
    ------
    ValueError
        The name is unknown.
    """
    if name not in NAMES:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(NAMES)}")
    return cast(Architecture, import_module(f"rtsep.models.{name}"))


def build(name: str, spec: Spec, options: Mapping[str, Any]) -> Streaming:
    """Build the architecture ``name`` for the frames of ``spec``.

    Parameters
    ----------
    name
        One of `NAMES`.
    spec
        Rate, frames and sources of the stream.
    options
        Constructor arguments; ``size`` selects defaults for them from ``SIZES``.

    Raises
    ------
    ValueError
        The name or an option is unknown, or the architecture does not support the spec.
    """
    found = architecture(name)
    size = options.get("size", next(iter(found.SIZES)))
    if size not in found.SIZES:
        raise ValueError(f"unknown size {size!r}; there are: {', '.join(found.SIZES)}")
    given = {key: value for key, value in options.items() if key != "size"}
    try:
        return found.build(spec, **{**found.SIZES[size], **given})
    except TypeError as error:
        raise ValueError(f"model {name!r}: {error}") from None
