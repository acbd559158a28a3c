"""Bounds what a program does in all, so that no executor's 64-bit counts can run over.

It simulates nothing. Sums are taken in floating point, which does not wrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.compiled import CACHED
from cosim.program.table import Column, Program, ProgramError, UnitKind

_NEEDED = tuple(int(column) for column in (
    Column.UNIT, Column.FILL, Column.INTERVAL, Column.TRIPS, Column.DRAIN, Column.ROW_BYTES,
    Column.ROWS, Column.PLANES, Column.MACS))

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


@CACHED
def _sums(rows: np.ndarray, computes: np.ndarray) -> tuple[float, float, float]:
    """(cycles of computing, bytes and runs that move, products) of a segment's rows, once."""
    cycles = moved = products = 0.0
    for index in range(len(rows)):
        row = rows[index]
        unit, fill, interval, trips, drain, row_bytes, lines, planes, macs = _NEEDED
        cycles += row[fill] + float(row[interval]) * row[trips] + row[drain]
        if not computes[row[unit]]:
            moved += float(row[lines]) * row[planes] * (row[row_bytes] + 1.0)
        products += row[macs]
    return cycles, moved, products


def beyond(program: Program) -> Beyond | None:
    """The first total that no executor should count; None if all are small enough."""
    computes = np.array([unit.kind == UnitKind.COMPUTE for unit in program.units], bool)
    counts = np.zeros(3)
    for part in program.segments:
        counts += np.multiply(_sums(program.operations[part.first : part.last], computes),
                              part.repeat)
    for count, (what, most, unit) in zip(counts, (
            ("computing", MOST_WORK, "cycles"), ("transfers", MOST_WORK, "bytes"),
            ("products", MOST_MACS, "multiply-accumulates")), strict=True):
        if count > most:
            return Beyond(what, float(count), most, unit)
    return None


def refuse_beyond(program: Program) -> None:
    """`ProgramError` if a total is too large to be counted."""
    over = beyond(program)
    if over is not None:
        raise ProgramError(f"{over.what}: {over.count:.6g} {over.unit} in all, at most "
                           f"{over.most:.6g}")
