"""What the outcomes of a search depend on, as plain values to compare two commands by.

It does not store them; see `shared_study`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from arch_models.board import Board
from arch_models.files import read_toml
from arch_models.overlay import Overlay, overlay_toml
from studies.plain.records import encode
from studies.search.outcomes import Settings
from studies.search.sources import simulator_digest
from studies.search.space import Space
from workloads.graph import Graph


def identity(graphs: Sequence[Graph], board: Board, base: Overlay, space: Space,
             settings: Settings) -> dict[str, Any]:
    """The fields in which two searches must agree to be the same search.

    How many designs to reach is left out: a study may go on to more.
    """
    return {
        "workload": ", ".join(graph.name for graph in graphs),
        "layers": digest([[graph.layers, list(graph.tensors.values())] for graph in graphs]),
        "constants": [_constants(graph) for graph in graphs],
        "board": board.name, "board file": digest(board),
        "design": base.name, "design file": digest(overlay_toml(base)),
        "coefficients": _coefficients(base),
        # Of the settings all but one.
        **{name: encode(value) for name, value in vars(settings).items() if name != "designs"},
        "space": {axis.name: encode(axis) for axis in space.axes},
        "constraints": [str(item) for item in space.constraints],
        "simulator": simulator_digest(), "optuna": version("optuna"),
    }


def digest(value: Any) -> str:
    """A short name for a value that is too long to compare by eye."""
    text = json.dumps(encode(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _constants(graph: Graph) -> str:
    found = hashlib.sha256()
    for name, array in sorted(graph.constants.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _coefficients(overlay: Overlay) -> str:
    """A digest of the files that a design may name: of coefficients in place of a shipped backend,
    and of what a build reached."""
    found = [digest(read_toml(overlay.backend)) if overlay.backend.endswith(".toml")
             else overlay.backend]
    return " ".join([*found, *([digest(read_toml(overlay.build))] if overlay.build else [])])
