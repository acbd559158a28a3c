"""Asks the engines for the job of every mapped layer, and their models for what operations cost.

It writes no rows and ties no layers to each other; `lower` does.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np

from arch_models.engines import MODELS, EngineModel
from arch_models.overlay import Engine, Overlay
from cosim.compiled import CACHED
from cosim.engines import SLICES
from cosim.engines.base import Job, Mapped, Site
from cosim.lowering.placement import Placement
from cosim.lowering.wiring import Wiring
from cosim.mapping.tiles import LayerMapping, Mapping
from cosim.program.table import ARGUMENTS, Column
from workloads.graph import Graph

FILL, INTERVAL, TRIPS, DRAIN = (int(Column.FILL), int(Column.INTERVAL), int(Column.TRIPS),
                                int(Column.DRAIN))
UNIT, KIND = int(Column.UNIT), int(Column.KIND)
_MODELS: dict[Engine, EngineModel] = {model.engine: model for model in MODELS}
#: Of each engine the opcodes, the arguments that their cost depends on, and where those stand.
_ASKED = {engine: [(opcode, names, np.array([ARGUMENTS[opcode].index(name) for name in names]))
                   for opcode, names in item.cost_arguments.items()]
          for engine, item in SLICES.items()}


def mapped_layer(graph: Graph, overlay: Overlay, mapping: Mapping, item: LayerMapping) -> Mapped:
    """What the engine of a mapped layer is told."""
    return Mapped(graph, overlay, mapping.layouts, graph.layer(item.name), item)


def jobs(graph: Graph, overlay: Overlay, mapping: Mapping, placement: Placement,
         wiring: Wiring) -> list[tuple[Mapped, Job] | None]:
    """A job for each mapped layer; None for those of the host.

    An engine's layers with constants or activations from the weight master alternate between two
    sets of parameters on chip.
    """
    turns: dict[Engine, Callable[[], int]] = {}
    found: list[tuple[Mapped, Job] | None] = []
    for index, item in enumerate(mapping.layers):
        if item.engine is None:
            found.append(None)
            continue
        mapped, engine = mapped_layer(graph, overlay, mapping, item), SLICES[item.engine]
        blobs = placement.roles.get(item.name, {})
        parity = 0
        if blobs or engine.activations(mapped):
            parity = turns.setdefault(item.engine, count().__next__)() % 2
        site = Site(index, wiring.engines[item.engine], placement.addresses, blobs, parity)
        found.append((mapped, engine.job(mapped, site)))
    return found


def fill_costs(operations: np.ndarray, arguments: np.ndarray, mapped: Mapped, unit: int) -> None:
    """Write the times of a layer's operations, as its engine's model says, into its rows."""
    assert mapped.item.engine is not None
    engine, model = SLICES[mapped.item.engine], _MODELS[mapped.item.engine]
    for opcode, names, columns in _ASKED[mapped.item.engine]:
        kinds, first = _alike(operations, arguments, unit, int(opcode), columns)
        if not len(first):
            continue
        costs = np.empty((len(first), 4), np.int64)
        for index, row in enumerate(first):
            values = dict(zip(names, arguments[row, columns].tolist(), strict=True))
            cost = model.cost(*engine.operation(mapped, opcode, values), mapped.overlay)
            costs[index] = cost.fill, cost.interval, cost.trips, cost.drain
        _fill(operations, kinds, costs)


@CACHED
def _alike(operations, arguments, unit, opcode, columns):
    """For each row the number of its kind (-1: another unit's or opcode's), and the first row of
    each kind; rows of a kind agree in `columns` of their arguments."""
    count = len(operations)
    kinds = np.full(count, -1, np.int64)
    first = np.empty(count, np.int64)
    found = 0
    for row in range(count):
        if operations[row, UNIT] != unit or operations[row, KIND] != opcode:
            continue
        for kind in range(found):
            same = True
            for column in columns:
                if arguments[row, column] != arguments[first[kind], column]:
                    same = False
                    break
            if same:
                kinds[row] = kind
                break
        if kinds[row] < 0:
            first[found] = row
            kinds[row] = found
            found += 1
    return kinds, first[:found]


@CACHED
def _fill(operations, kinds, costs):
    for row in range(len(kinds)):
        if kinds[row] >= 0:
            cost = costs[kinds[row]]
            operations[row, FILL], operations[row, INTERVAL] = cost[0], cost[1]
            operations[row, TRIPS], operations[row, DRAIN] = cost[2], cost[3]
