"""The decorator that compiles kernels, their cache, and the types of their signatures.

Numba's cache of a kernel becomes stale when another file is edited whose kernels or constants are
compiled into it. Here, therefore, the name of the cache folder contains a hash of all kernel
sources: all files of the package that mention ``rtsep.dsp.kernel``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from numba import cfunc, njit, types
from numba.core import config as _numba_config

F = TypeVar("F", bound=Callable[..., Any])

FAST: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}
"""Allow reordered and fused sums; NaN and Inf stay exact, because kernels check for them."""
KEPT = 4
"""Number of cache folders that are kept, for other branches and recent edits."""
COMPILED: list[Any] = []
"""Every cached kernel that has been defined so far."""

_PACKAGE = Path(__file__).parents[1]
_MARK = b"rtsep.dsp.kernel"
_PREFIX = "kernels-"
_lock = threading.Lock()

# Typed as Any, because numba's annotations do not fit their use.
_config: Any = _numba_config
_named_tuple: Any = types.NamedTuple
_pointer: Any = types.CPointer

INT64_POINTER = _pointer(types.int64)


def array(ndim: int, dtype: Any = types.float32, readonly: bool = False) -> Any:
    """Return the type of a C-contiguous array for a signature."""
    return types.Array(dtype, ndim, "C", readonly=readonly)


def named(kind: type, *fields: Any) -> Any:
    """Return the type of a named tuple with fields of these types."""
    return _named_tuple(fields, kind)


@overload
def kernel(
    signature: Any = None, /, *, callback: Literal[False] = False, **options: Any
) -> Callable[[F], F]: ...


@overload
def kernel(
    signature: Any, /, *, callback: Literal[True], **options: Any
) -> Callable[[Callable[..., Any]], Any]: ...


def kernel(signature: Any = None, /, *, callback: bool = False, **options: Any) -> Any:
    """Compile a function that works on arrays, or load it from the cache.

    Parameters
    ----------
    signature
        If given, the function is compiled at its definition and accepts these types only;
        otherwise it is compiled for the types of each call.
    callback
        Make a C function, see `numba.cfunc`; other libraries call it by its ``address``.
    options
        Options of `numba.njit`. Inlined functions are cached with their callers only.
    """
    folder = None if "inline" in options or "forceinline" in options else cache_folder()
    decorate: Any = cfunc if callback else njit
    if not callback:  # what is called by its address is a callback
        options["no_cfunc_wrapper"] = True

    def compiled(function: Callable[..., Any]) -> Any:
        with _lock:
            usual, _config.CACHE_DIR = _config.CACHE_DIR, str(folder or "")
            try:
                result = decorate(signature, cache=folder is not None, **options)(function)
            finally:
                _config.CACHE_DIR = usual
        if folder is not None:
            COMPILED.append(result)
        return result

    return compiled


inner: Any = kernel(forceinline=True, **FAST)
"""Decorator of functions that are compiled into the kernels that call them."""


def sources() -> dict[str, bytes]:
    """Return the sources of the files with kernels, by module name."""
    found = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        text = path.read_bytes()
        if _MARK in text:
            parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = text
    return found


@cache
def cache_folder() -> Path | None:
    """Return the cache folder of compiled kernels; None if no folder is writable.

    It is in ``NUMBA_CACHE_DIR`` if that is set, beside the sources, or in the user's cache folder.
    """
    digest = hashlib.sha256()
    for name, text in sources().items():
        digest.update(f"{name} {len(text)} ".encode() + text)
    for place in _places():
        folder = place / (_PREFIX + digest.hexdigest()[:16])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # numba needs it writable even to read
                pass
            os.utime(folder)
        except OSError:
            continue
        others = [other for other in place.glob(_PREFIX + "*") if other != folder]
        for old in sorted(others, key=_age)[KEPT - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
        return folder
    return None


def _places() -> Iterator[Path]:
    if _config.CACHE_DIR:
        yield Path(_config.CACHE_DIR, "rtsep")
    yield _PACKAGE / "__pycache__"
    from platformdirs import user_cache_dir

    yield Path(user_cache_dir("rtsep"))


def _age(folder: Path) -> float:
    """Sort key: the last used folder first; folders that have just been removed last."""
    try:
        return -folder.stat().st_mtime
    except OSError:
        return 0.0
