"""What the outcomes of a search depend on, as plain values to compare two commands by.

It does not store them; see `shared_study`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import arch_models
import cosim
from arch_models.board import Board
from arch_models.overlay import Overlay, overlay_toml
from studies.plain.records import encode
from studies.search.outcomes import Settings
from studies.search.space import Space
from workloads.graph import Graph

#: Modules of this room that an outcome or the order of designs depends on.
MODULES = ("evaluation/activity", "evaluation/batch", "evaluation/evaluate", "search/exploration",
           "search/outcomes", "search/pruning", "search/search", "search/space",
           "search/space_overlays")


def identity(graphs: Sequence[Graph], board: Board, base: Overlay, space: Space,
             settings: Settings) -> dict[str, Any]:
    """The fields in which two searches must agree to be the same search.

    How many designs to reach is left out: a study may go on to more.
    """
    return {
        "workload": ", ".join(graph.name for graph in graphs),
        "layers": digest([[graph.layers, list(graph.tensors.values())] for graph in graphs]),
        "board": board.name, "board file": digest(board),
        "design": base.name, "design file": digest(overlay_toml(base)),
        "seed": settings.seed, "sampler": settings.sampler.value, "batch": settings.batch,
        "population": settings.population, "local": settings.local,
        "objectives": [item.value for item in settings.objectives],
        "space": {axis.name: encode(axis) for axis in space.axes},
        "constraints": [str(item) for item in space.constraints],
        "simulator": simulator_digest(),
    }


def digest(value: Any) -> str:
    """A short name for a value that is too long to compare by eye."""
    text = json.dumps(encode(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def simulator_digest() -> str:
    """A digest of the source and the data that predictions come from."""
    found = hashlib.sha256()
    rooms = [Path(str(room.__file__)).parent for room in (arch_models, cosim)]
    files = [path for room in rooms for kind in ("*.py", "*.toml") for path in room.rglob(kind)]
    files += [Path(__file__).parents[1] / f"{name}.py" for name in MODULES]
    for path in sorted(files, key=lambda item: (item.parent.name, item.name)):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]
