"""Bounds what a program does in all, so that no executor's 64-bit counts can run over.

It simulates nothing. Sums are taken in floating point, which does not wrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.program.table import Column, Program, ProgramError, UnitKind

#: Cycles of computing, and bytes and runs that move: two days at 100 MHz. A byte takes less than
#: 2^12 cycles whatever memory does, and a cycle less than 2^6 DDR clocks: all ends before 2^62.
MOST_WORK = 1 << 44
#: Sums of useful products are exact in a float64, too.
MOST_MACS = 1 << 53


@dataclass(frozen=True)
class Beyond:
    """A total that is too large: what it counts, how many (rounded), and how many may be."""

    what: str
    count: float
    most: int
    unit: str


def beyond(program: Program) -> Beyond | None:
    """The first total that no executor should count; None if all are small enough."""
    table = program.operations.astype(np.float64)
    times = np.zeros(len(table))
    for part in program.segments:
        times[part.first : part.last] = part.repeat
    computes = np.array([unit.kind == UnitKind.COMPUTE for unit in program.units], bool)[
        program.operations[:, Column.UNIT]]
    runs = table[:, Column.ROWS] * table[:, Column.PLANES]
    cycles = (table[:, Column.FILL] + table[:, Column.INTERVAL] * table[:, Column.TRIPS]
              + table[:, Column.DRAIN])
    for what, each, most, unit in (
            ("computing", cycles, MOST_WORK, "cycles"),
            ("transfers", runs * (table[:, Column.ROW_BYTES] + 1) * ~computes, MOST_WORK, "bytes"),
            ("products", table[:, Column.MACS], MOST_MACS, "multiply-accumulates")):
        count = float((each * times).sum())
        if count > most:
            return Beyond(what, count, most, unit)
    return None


def refuse_beyond(program: Program) -> None:
    """`ProgramError` if a total is too large to be counted."""
    over = beyond(program)
    if over is not None:
        raise ProgramError(f"{over.what}: {over.count:.6g} {over.unit} in all, at most "
                           f"{over.most:.6g}")
