"""How functions are compiled, and when what is kept on disk is stale.

It compiles nothing itself. numba keeps a compiled function under the file that it stands in, and
does not see when a function that it calls in another file changes. So every kept function that
calls into other files takes `stamp=sources(...)` as its last argument: a default is a part of the
signature, and the signature of numba's key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numba

#: Compiled anew in each process; for what kept functions call from another file.
PLAIN = numba.njit
#: Compiled once and kept on disk.
CACHED = numba.njit(cache=True)
# The rules allocate nothing, so numba's reference counts would only cost time (a factor of seven);
# without inlining every call pushes the fields of a dozen arrays (a factor of three).
_RULE: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "forceinline": True}
#: The same two for the rules of time that the executors share.
PLAIN_RULE = numba.njit(**_RULE)
CACHED_RULE = numba.njit(cache=True, **_RULE)


def sources(*modules: ModuleType) -> int:
    """48 bits that change with any of these modules' files."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(digest.digest()[:6], "big")
