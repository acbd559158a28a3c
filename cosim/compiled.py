"""How functions are compiled, and when what is kept on disk is stale.

It compiles nothing itself. numba keeps a compiled function under the file that it stands in, and
does not see when a function that it calls in another file changes. So whatever is kept and calls
into other files names them: `@kept(rows, words)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import CellType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np

#: Compiled anew in each process; for what kept functions call from another file.
PLAIN = numba.njit
#: Compiled once and kept on disk; for what calls its own file only.
CACHED = numba.njit(cache=True)
# The rules allocate nothing, so numba's reference counts would only cost time (a factor of seven);
# without inlining every call pushes the fields of a dozen arrays (a factor of three).
_RULE: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "forceinline": True}
#: The same two for the rules of time that the executors share.
PLAIN_RULE = numba.njit(**_RULE)
CACHED_RULE = numba.njit(cache=True, **_RULE)


@PLAIN_RULE
def at(rows, index):
    """The row of that number. (An index with a sign is asked each time whether it is below 0.)"""
    return rows[np.uint64(index)]


def sources(*modules: ModuleType) -> int:
    """48 bits that change with any of these modules' files."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(digest.digest()[:6], "big")


def kept(*modules: ModuleType, compiler: Callable[..., Any] = CACHED
         ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function that calls into these modules, and keep it until one of them changes.

    `compiler`: `CACHED`, or `CACHED_RULE` for what must not allocate.
    The digest of their files becomes a closed-over variable, which numba's key holds. (A default
    argument would do as well, but each call with one is resolved anew, in a millisecond.)
    """
    stamp = sources(*modules)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        assert isinstance(function, FunctionType)
        code = function.__code__.replace(co_freevars=("stamp",))
        stamped = FunctionType(code, function.__globals__, function.__name__,
                               function.__defaults__, (CellType(stamp),))
        stamped.__module__, stamped.__qualname__ = function.__module__, function.__qualname__
        stamped.__doc__ = function.__doc__
        return compiler(stamped)

    return compiled


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The Python body of a compiled function; itself where compiling is switched off."""
    return getattr(function, "py_func", function)
