"""How functions are compiled, and when what is kept of them on disk is stale.

It compiles nothing itself. numba keeps a compiled function beside the file that it stands in, and
sees only whether that file changes. Compiled code holds more: the functions that it calls, and the
constants and fields of records of other files. So what is kept here is known by a digest of all
of these, and one that changes is compiled anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile

#: Compiled anew in each process; for what is only called by functions that are kept.
PLAIN = numba.njit
# The rules allocate nothing, so numba's reference counts would only cost time (a factor of seven);
# without inlining every call pushes the fields of a dozen arrays (a factor of three).
#: The same for the rules of time that the executors share.
PLAIN_RULE = numba.njit(error_model="numpy", _nrt=False, forceinline=True)


def CACHED(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function once, and keep it on disk until anything that it comes from changes."""
    return _kept(PLAIN(function))


def CACHED_RULE(function: Callable[..., Any]) -> Callable[..., Any]:
    """`CACHED` for rules of time."""
    return _kept(PLAIN_RULE(function))


def plain(function: Callable[..., Any]) -> Any:
    """The Python body of a compiled function; itself where compiling is switched off."""
    return getattr(function, "py_func", function)


@PLAIN_RULE
def at(rows, index):
    """The row of that number. (An index with a sign is asked each time whether it is below 0.)"""
    return rows[np.uint64(index)]


def _kept(compiled: Any) -> Callable[..., Any]:
    if plain(compiled) is not compiled:
        compiled._cache = _Kept(compiled.py_func)
    return compiled  # type: ignore[no-any-return]


class _Index(IndexDataCacheFile):
    """numba's list of what is kept of one function."""

    def _load_index(self) -> dict[Any, str]:
        """The list; empty where it cannot be read.

        It names the records that the function takes, some of which another version of cosim may
        not have; numba reads all of it before it asks whether it is stale.
        """
        try:
            found: dict[Any, str] = super()._load_index()
        except Exception:  # what is gone may raise anything when it is looked for
            return {}
        return found


class _Kept(FunctionCache):
    """What is kept of one function, each compilation under a digest of all that it comes from."""

    def __init__(self, function: FunctionType) -> None:
        super().__init__(function)
        self._cache_file = _Index(self.cache_path, self._impl.filename_base,
                                  self._impl.locator.get_source_stamp())

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        digest = hashlib.sha256(repr(_fields(signature)).encode())
        for part in _sources(self._py_func, set()):
            digest.update(part)
        return (*super()._index_key(signature, codegen), digest.digest())


def _fields(kinds: Any) -> list[Any]:
    """The names of fields of all tuples in numba's types. To numba itself two types are one if
    only the order of their fields differs, and machine code knows fields by their places."""
    return [(getattr(kind, "fields", ()), _fields(kind.types))
            for kind in kinds if isinstance(kind, numba.types.BaseTuple)]


def _sources(function: FunctionType, seen: set[FunctionType]) -> Iterator[bytes]:
    """The digest of a function's own code, then of every one that it calls."""
    if function in seen:
        return
    seen.add(function)
    own, called = _own(function)
    yield own
    for other in called:
        yield from _sources(other, seen)


@cache
def _own(function: FunctionType) -> tuple[bytes, tuple[FunctionType, ...]]:
    """A digest of a function's code and of what it reads by name; the compiled ones among these."""
    called: list[FunctionType] = []
    cells = (cell.cell_contents for cell in function.__closure__ or ())
    read = [*cells, *(function.__defaults__ or ()),
            *_by_name(function.__code__, function.__globals__)]
    said = [_said(value, called) for value in read]
    text = repr((list(_code(function.__code__)), said))
    return hashlib.sha256(text.encode()).digest(), tuple(called)


def _code(code: CodeType) -> Iterator[Any]:
    yield code.co_code, code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _code(value)
        else:
            yield repr(value)


def _by_name(code: CodeType, names: dict[str, Any]) -> Iterator[Any]:
    """Values that code reads by name: globals, and what it reads of modules among these."""
    for name in code.co_names:
        if name in names:
            value = names[name]
            yield value
            if isinstance(value, ModuleType):
                yield from (vars(value)[item] for item in code.co_names if item in vars(value))
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _by_name(value, names)


def _said(value: Any, called: list[FunctionType]) -> str:
    """What tells a value that code may read from another; compiled functions go to `called`.

    Raises TypeError for a value that nothing here tells from another.
    """
    body = plain(value)
    if body is not value:
        called.append(body)
        return str(body.__qualname__)
    if isinstance(value, type) and issubclass(value, Enum):
        return repr([(item.name, item.value) for item in value])
    if isinstance(value, type):
        return repr((value.__qualname__, getattr(value, "_fields", ())))
    if hasattr(value, "__name__"):  # modules, and functions that are not compiled here
        return str(value.__name__)
    if isinstance(value, np.ndarray):
        return repr((value.dtype, value.shape, value.tobytes()))
    if isinstance(value, tuple):
        return repr((type(value), [_said(item, called) for item in value]))
    if isinstance(value, bool | int | float | str | Enum | np.generic | np.dtype | None):
        return repr(value)
    raise TypeError(f"compiled code may not read {value!r} by name")
