"""The AXI masters of a program's fabric: names, units, directions.

Both backends have the same; it draws no signals (`hw.rtl.axi` does).
"""

from __future__ import annotations

from dataclasses import dataclass

from cosim.program.table import Program
from hw.interface.configuration import Configuration, UnitRole


@dataclass(frozen=True)
class MemoryPort:
    """One AXI master of the top: the program's unit, its port of the board, direction."""

    name: str
    unit: int
    writes: bool


def memory_ports(program: Program, configuration: Configuration) -> tuple[MemoryPort, ...]:
    """The masters of the fabric in the program's order, without descriptors."""
    return tuple(
        MemoryPort(unit.name, index, role is UnitRole.OUTPUT)
        for index, (unit, role) in enumerate(zip(program.units, configuration.roles, strict=True))
        if role in (UnitRole.INPUT, UnitRole.WEIGHT, UnitRole.OUTPUT))
