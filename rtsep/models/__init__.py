"""One architecture per file, with its paper, its named sizes and how it is made (torch)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec

NAMES = (
    "banded",
    "chandna",
    "convtasnet",
    "dilated",
)
"""The architectures; each is a module of this package that fulfils `Architecture`."""


class Architecture(Protocol):
    """What the file of an architecture defines."""

    PAPER: str
    """Authors, title, where and when: what bundles say of their model."""
    SIZES: Mapping[str, Mapping[str, Any]]
    """Options of `build` by a name for them, which is the option ``size``; first the usual one."""

    def build(self, spec: Spec, **options: Any) -> Streaming:
        """Make the network for the frames of ``spec``, with random weights."""


def architecture(name: str) -> Architecture:
    """Find the module of an architecture.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(NAMES)}")
    return cast(Architecture, import_module(f"rtsep.models.{name}"))


def build(name: str, spec: Spec, options: Mapping[str, Any]) -> Streaming:
    """Make the architecture ``name`` for the frames of ``spec``.

    Parameters
    ----------
    name
        One of `NAMES`.
    spec
        The stream it works on.
    options
        Constructor arguments; ``size`` is a name for several, changed by those given.

    Raises
    ------
    ValueError
        Unknown name, options the architecture does not take, or a spec it can't work on.
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
