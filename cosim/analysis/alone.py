"""What one mapped layer takes at the least, between the barrier before it and the one behind it.

It lowers no network and knows no address: whatever lies where, a layer takes no less. It is much
tighter than `cosim.analysis.least`, which looks at one unit of a layer at a time.

Why it is a bound, whatever the memory. The first load of a layer waits for the last store of the
layer before it, every operation of an engine waits for a load of its layer, every store for an
engine. So at that barrier none of the layer's operations has begun but loads of weights and
parameters, and those have got no further than the banks that they fill allow. Here they have: all
of them that need no token of this layer are over. From there on the operations' ends follow from
one another by `max` and `+` alone (`cosim.recurrence`), so that they come no later if a transfer
takes less. A transfer takes at least its set-up, the way of the first beat there, a cycle a beat,
and the way back; cutting it into bursts, other masters, other transfers and the DRAM only add.
The DRAM's way to an open row is what the flat memory takes as its latency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from arch_models.board import Board
from arch_models.memory import READ_LEAD, WRITE_LEAD, WRITE_TRAIL, Port, memory_for
from arch_models.overlay import Overlay, Role
from cosim.engines import SLICES
from cosim.engines.base import Mapped, Site
from cosim.engines.rows import Table
from cosim.executors.fast import unit_table
from cosim.lowering.jobs import fill_costs
from cosim.lowering.wiring import wire
from cosim.mapping.layout import Layouts
from cosim.mapping.tiles import LayerMapping
from cosim.program.table import ARGUMENT_COUNT, Column, UnitKind
from cosim.recurrence.cpu import LONG_AGO, STEP, makespan
from workloads.graph import Graph


class Alone:
    """Times layers of one graph on one design. Ports count with their width and latency only."""

    def __init__(self, graph: Graph, overlay: Overlay, board: Board) -> None:
        self.graph, self.overlay = graph, overlay
        self.wiring = wire(overlay, board)
        memory = memory_for(board, overlay, "flat")
        self.units = unit_table(self.wiring.units, memory)[0]
        # The quickest port that a master could be at.
        for kind in (UnitKind.READ, UnitKind.WRITE):
            there = self.units["kind"] == kind
            for name in ("lead", "trail"):
                self.units[name][there] = min(_ways(memory.ports, kind, name))
        if overlay.tensor_memory_kib:  # what is loaded or stored may lie there
            for unit, ways in ((self.wiring.inputs[0], (READ_LEAD, 0)),
                               (self.wiring.outputs[0], (WRITE_LEAD, WRITE_TRAIL))):
                for name, cycles in zip(("lead", "trail"), ways, strict=True):
                    self.units[name][unit] = min(self.units[name][unit], cycles)
        self.tokens = np.array([item.initial for item in self.wiring.channels], np.int64)
        self.ready = np.zeros(len(self.units), np.int64)
        self.ready[self.wiring.weight] = LONG_AGO

    def wait(self, role: Role) -> int:
        """Cycles that each transfer of a master takes besides its beats, at least."""
        unit = {Role.INPUT: self.wiring.inputs[0], Role.WEIGHT: self.wiring.weight,
                Role.OUTPUT: self.wiring.outputs[0]}[role]
        return int(sum(self.units[name][unit] for name in ("setup", "lead", "trail", "tail")))

    def cycles(self, layouts: Layouts, item: LayerMapping) -> int:
        """Fabric cycles of a layer that is not the host's."""
        assert item.engine is not None
        mapped = Mapped(self.graph, self.overlay, layouts, self.graph.layer(item.name), item)
        engine = SLICES[item.engine]
        site = Site(0, self.wiring.engines[item.engine], defaultdict(int),
                    {role: (0, size) for role, size in engine.constants(mapped)}, 0)
        job = engine.job(mapped, site)
        operations = np.zeros((job.most_rows, len(Column)), np.int64)
        arguments = np.zeros((job.most_rows, ARGUMENT_COUNT), np.int32)
        count, units = len(self.units), self.units
        marks = np.full((2, count), -1, np.int64)
        rows = job.kernel(Table(operations, arguments, marks[0], marks[1],
                                np.zeros(count, np.int64)),
                          0, job.common, job.plan, job.areas, job.wires)
        operations, arguments = operations[:rows], arguments[:rows]
        fill_costs(operations, arguments, mapped, job.common.engine)
        order = np.argsort(operations[:, Column.UNIT], kind="stable")
        operations = operations[order]
        steps = np.zeros(rows, STEP)
        steps["wait"] = operations[:, Column.WAIT]
        steps["signal"] = operations[:, Column.SIGNAL]
        steps["form"] = -1
        steps["cycles"] = least_cycles(operations, units[operations[:, Column.UNIT]])
        found = makespan(steps, np.searchsorted(operations[:, Column.UNIT], np.arange(count + 1)),
                         self.tokens, self.ready)
        assert found is not None  # a layer by itself waits for nothing but its own tokens
        return found


def least_cycles(operations: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The least that each operation takes on its unit."""
    beats = (-(-operations[:, Column.ROW_BYTES] // np.maximum(1, units["width"]))
             * operations[:, Column.ROWS] * operations[:, Column.PLANES])
    moved = units["setup"] + units["lead"] + beats + units["trail"] + units["tail"]
    computed = (operations[:, Column.FILL] + operations[:, Column.DRAIN]
                + operations[:, Column.INTERVAL] * operations[:, Column.TRIPS])
    return np.where(units["kind"] == UnitKind.COMPUTE, computed, moved)


def _ways(ports: Iterable[Port], kind: UnitKind, name: str) -> Iterable[int]:
    """The latency of every port, in one direction, to the first beat or back."""
    for port in ports:
        if kind is UnitKind.READ:
            yield port.read_latency_cycles if name == "lead" else 0
        else:
            yield port.write_lead_cycles if name == "lead" else port.write_latency_cycles
