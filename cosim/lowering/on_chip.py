"""The times of transfers that the tensor memory answers, into rows that are written.

It decides nothing: rows whose address lies in the window are on chip.
"""

from __future__ import annotations

import numpy as np

from arch_models.memory import READ_LEAD, WINDOW, WRITE_LEAD, WRITE_TRAIL
from arch_models.overlay import Overlay, Role
from cosim.lowering.wiring import Wiring
from cosim.program.table import Column


def time_on_chip(operations: np.ndarray, wiring: Wiring, overlay: Overlay) -> None:
    """FILL, INTERVAL, TRIPS and DRAIN of every load and store of the tensor memory.

    It takes a request a cycle and moves a beat of the port's width a cycle. So the beats of a
    transfer follow one another however they are cut, and it takes the set-up, the way to the first
    beat, a cycle a beat, the way back, and the tail.
    """
    for role, units, ways in ((Role.INPUT, wiring.inputs, READ_LEAD),
                              (Role.OUTPUT, wiring.outputs, WRITE_LEAD + WRITE_TRAIL)):
        for master, unit in zip(overlay.masters_of(role), units, strict=True):
            rows = np.flatnonzero((operations[:, Column.UNIT] == unit)
                                  & (operations[:, Column.ADDRESS] >= WINDOW))
            table = operations[rows]
            table[:, Column.FILL] = master.setup_cycles + ways
            table[:, Column.INTERVAL] = 1
            table[:, Column.TRIPS] = beats(table, master.width_bits // 8)
            table[:, Column.DRAIN] = master.tail_cycles
            operations[rows] = table


def beats(transfers: np.ndarray, width: int) -> np.ndarray:
    """int64 (n,) beats of `width` bytes that transfers move; a beat that a run fills in part
    counts whole.

    A run's beats depend on its first byte modulo the width, which repeats with `width` rows and
    planes: so many are looked at, each for all that are like it.
    """
    column = {name: transfers[:, Column[name]] for name in (
        "ADDRESS", "ROW_BYTES", "ROWS", "ROW_STRIDE", "PLANES", "PLANE_STRIDE")}
    period = 1 if not ((column["ROW_STRIDE"] | column["PLANE_STRIDE"]) % width).any() else width
    found = np.zeros(len(transfers), np.int64)
    for plane in range(period):
        planes = np.maximum(0, -(-(column["PLANES"] - plane) // period))
        for row in range(period):
            rows = np.maximum(0, -(-(column["ROWS"] - row) // period))
            first = (column["ADDRESS"] + plane * column["PLANE_STRIDE"]
                     + row * column["ROW_STRIDE"]) % width
            found += planes * rows * (-(-(first + column["ROW_BYTES"]) // width))
    return found
