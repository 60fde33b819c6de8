"""Tuples of arrays that kernels take by address, beside `rtsep.dsp.kernel`.

To unpack a tuple takes numba a quarter of a microsecond for every array in it, at every call: as
long as the transforms of a frame where there are thirty. So that is done once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_cgutils: Any = cgutils  # numba's own annotations do not fit
Value = TypeVar("Value")


def putter(kind: Any) -> Any:
    """Make ``put(value, address)`` for kernels: it keeps a tuple of this type there."""

    @intrinsic
    def put(typingctx: Any, value: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            borrowed = _borrowed(context, builder, kind, args[0])
            builder.store(borrowed, _pointer(context, builder, kind, args[1]))
            return context.get_dummy_value()

        return types.void(kind, types.int64), codegen

    return put


def taker(kind: Any) -> Any:
    """Make ``take(address)`` for kernels: it returns what has been put there."""

    @intrinsic
    def take(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_pointer(context, builder, kind, args[0]))

        return kind(types.int64), codegen

    return take


class Held(Generic[Value]):
    """A tuple of arrays with an address, for as long as this object lives.

    Parameters
    ----------
    value
        The tuple.
    kind
        Its type in signatures.
    put
        A kernel that puts such a tuple to an address, see `putter`.

    Attributes
    ----------
    value
        The tuple; who changes the arrays' elements changes what kernels see.
    address
        For kernels.
    """

    def __init__(self, value: Value, kind: Any, put: Callable[[Value, int], None]) -> None:
        self.value = value
        self._memory = np.zeros(_words(kind), np.int64)
        self.address: int = self._memory.ctypes.data
        put(value, self.address)


def _words(kind: Any) -> int:
    """64-bit words that a value of this type takes, at most."""
    if isinstance(kind, types.Array):
        return 5 + 2 * int(kind.ndim)
    fields: tuple[Any, ...] = getattr(kind, "types", ())
    return sum(map(_words, fields)) if fields else 1


def _pointer(context: Any, builder: Any, kind: Any, address: Any) -> Any:
    pointer = context.get_value_type(kind).as_pointer()
    assert isinstance(pointer, ir.PointerType)
    return builder.inttoptr(address, pointer)


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return the value without references to the objects that own its arrays' memory."""
    for index, field in enumerate(getattr(kind, "types", ())):
        part = _borrowed(context, builder, field, builder.extract_value(value, index))
        value = builder.insert_value(value, part, index)
    if isinstance(kind, types.Array):
        array = _cgutils.create_struct_proxy(kind)(context, builder, value)
        array.meminfo = _cgutils.get_null_value(array.meminfo.type)
        array.parent = _cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    return value
