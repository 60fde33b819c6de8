"""Types in the signatures of kernels."""

from __future__ import annotations

from typing import Any

from numba import types

_named_tuple: Any = types.NamedTuple  # numba's own annotations do not fit
_pointer: Any = types.CPointer

INT64_POINTER = _pointer(types.int64)


def named(kind: type, *fields: Any) -> Any:
    """Type of a named tuple whose fields are of these types."""
    return _named_tuple(fields, kind)
