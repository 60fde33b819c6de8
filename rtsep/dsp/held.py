"""Pass tuples of arrays to kernels by address.

Numba unpacks a tuple at every call of a kernel, a quarter of a microsecond per array: with thirty
arrays, as long as the transforms of a frame. Here a tuple is unpacked once and stored at an
address. Used with `rtsep.dsp.kernel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_cgutils: Any = cgutils  # numba's annotations do not fit
Value = TypeVar("Value")


def putter(kind: Any) -> Any:
    """Make ``put(value, address)`` for kernels, which stores a tuple of this type."""

    @intrinsic
    def put(typingctx: Any, value: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            borrowed = _borrowed(context, builder, kind, args[0])
            builder.store(borrowed, _pointer(context, builder, kind, args[1]))
            return context.get_dummy_value()

        return types.void(kind, types.int64), codegen

    return put


def taker(kind: Any) -> Any:
    """Make ``take(address)`` for kernels, which returns the stored tuple."""

    @intrinsic
    def take(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_pointer(context, builder, kind, args[0]))

        return kind(types.int64), codegen

    return take


def _call(typingctx: Any, function: Any, address: Any) -> Any:

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


call: Any = intrinsic(_call)
"""``call(function, address)`` for kernels calls the function at an address, which takes an address.

What is called so, a callback (see `rtsep.dsp.kernel.kernel`), is not compiled again with each of
its callers, as other kernels are.
"""


class Held(Generic[Value]):
    """A tuple of arrays with an address, valid while this object lives.

    Parameters
    ----------
    value
        The tuple.
    kind
        Its type in signatures.
    put
        Kernel that stores such a tuple at an address, see `putter`.

    Attributes
    ----------
    value
        The tuple; kernels use the same arrays.
    address
        Address for kernels.
    """

    def __init__(self, value: Value, kind: Any, put: Callable[[Value, int], None]) -> None:
        self.value = value
        self._memory = np.zeros(_words(kind), np.int64)
        self.address: int = self._memory.ctypes.data
        put(value, self.address)


def _words(kind: Any) -> int:
    """Return an upper bound of the size of a value of this type, in 64-bit words."""
    if isinstance(kind, types.Array):
        return 5 + 2 * int(kind.ndim)
    fields: tuple[Any, ...] = getattr(kind, "types", ())
    return sum(map(_words, fields)) if fields else 1


def _pointer(context: Any, builder: Any, kind: Any, address: Any) -> Any:
    pointer = context.get_value_type(kind).as_pointer()
    assert isinstance(pointer, ir.PointerType)
    return builder.inttoptr(address, pointer)


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return the value without references to the owners of its arrays' memory."""
    for index, field in enumerate(getattr(kind, "types", ())):
        part = _borrowed(context, builder, field, builder.extract_value(value, index))
        value = builder.insert_value(value, part, index)
    if isinstance(kind, types.Array):
        array = _cgutils.create_struct_proxy(kind)(context, builder, value)
        array.meminfo = _cgutils.get_null_value(array.meminfo.type)
        array.parent = _cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    return value
