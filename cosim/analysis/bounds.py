"""Lower bounds of a program: no memory and no arbitration can make it faster than this.

It predicts nothing; the distance of a simulation from its bounds says what contention costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arch_models.memory import Memory, Port
from cosim.executors import fast
from cosim.program.table import Column, Program, UnitKind, executed_bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds on `SimResult.total_cycles`, in fabric cycles.

    `critical_path_cycles`: the program with a private port for every unit and the shortest
    latency the memory can have; it holds each unit's own work and every token. `port_cycles`: the
    beats of the busiest read or write channel of a port. `memory_cycles`: all bytes at the DRAM's
    peak rate (0 in the flat memory).
    """

    critical_path_cycles: int
    port_cycles: int
    memory_cycles: int

    @property
    def cycles(self) -> int:
        """The tightest of the bounds."""
        return max(self.critical_path_cycles, self.port_cycles, self.memory_cycles)

    @property
    def binding(self) -> str:
        """Which bound is the tightest: critical path, port or memory."""
        named = (("critical path", self.critical_path_cycles), ("port", self.port_cycles),
                 ("memory", self.memory_cycles))
        return max(named, key=lambda item: item[1])[0]


def bounds(program: Program, memory: Memory) -> Bounds:
    """Bounds of a program on a memory; costs about one `flat` simulation.

    The critical path is a true bound: with private ports no unit waits for another but through
    tokens, and in such a system (a max-plus recurrence) no end comes earlier when a transfer
    takes longer.
    """
    ideal = _ideal(program, memory)
    alone = fast.simulate(*ideal)
    return Bounds(int(alone.total_cycles), _port_cycles(program, memory),
                  _memory_cycles(program, memory))


def _ideal(program: Program, memory: Memory) -> tuple[Program, Memory]:
    units = []
    ports: list[Port] = []
    for unit in program.units:
        if unit.kind == UnitKind.COMPUTE:
            units.append(unit)
            continue
        port = memory.ports[unit.port]
        if memory.model == "ddr3":
            # A word crosses the port's path and the DRAM in no less than this; loads included,
            # the true path is longer.
            port = Port(port.name, port.width_bytes, read_latency_cycles=1,
                        write_latency_cycles=0, write_lead_cycles=0)
        units.append(replace(unit, port=len(ports)))
        ports.append(port)
    return replace(program, units=tuple(units)), Memory("flat", tuple(ports))


def _port_cycles(program: Program, memory: Memory) -> int:
    """Whole beats of the busiest channel; partial beats are counted as bytes, so it is a bound."""
    moved = np.bincount(program.operations[:, Column.UNIT], executed_bytes(program),
                        len(program.units))
    channels: dict[tuple[int, UnitKind], float] = {}
    for unit, size in zip(program.units, moved, strict=True):
        if unit.kind != UnitKind.COMPUTE:
            key = (unit.port, unit.kind)
            width = memory.ports[unit.port].width_bytes
            channels[key] = channels.get(key, 0.0) + size / width
    return int(max(channels.values(), default=0.0))


def _memory_cycles(program: Program, memory: Memory) -> int:
    if memory.model == "flat" or memory.ddr is None:
        return 0
    transfers = np.array([unit.kind != UnitKind.COMPUTE for unit in program.units])
    moving = transfers[program.operations[:, Column.UNIT]]
    size = int(executed_bytes(program)[moving].sum())
    # Writes are answered when the controller's queue has them: that much may move after the end.
    size = max(0, size - memory.ddr.write_entries * memory.ddr.transaction_bytes)
    return int(size * memory.ddr.fabric_hz // memory.ddr.peak_bytes_per_s)
