"""Makes the loads, the work and the stores of every tile wait for one another.

It writes no operation; it adds tokens between those that lowering wrote. Accelerators whose loop
body loads, computes and stores without a dataflow pipeline work like this.

The table lists the operations of a layer tile by tile: loads, work, stores. Wherever the kind
changes from one row to the next, every unit of the rows behind waits for the last operation of
every unit of the rows before. Since each row only waits for rows above it, nothing can block.
"""

from __future__ import annotations

import numpy as np

from cosim.program.table import (
    MAX_CHANNELS,
    Channel,
    Column,
    Opcode,
    ProgramError,
    Unit,
    UnitKind,
)


def serial(operations: np.ndarray, segments: list[tuple[int, int]], units: tuple[Unit, ...],
           channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    """Tie the phases of each segment's rows (first, last); the channels with those added.

    Sets WAIT and SIGNAL in `operations`. Raises `ProgramError` if there are too many channels.
    """
    order = list(UnitKind)
    kinds = np.array([order.index(unit.kind) for unit in units])
    found = list(channels)
    bits: dict[tuple[int, int], int] = {}
    unit = operations[:, Column.UNIT]
    # The host has barriers of its own on both sides.
    kind = np.where(operations[:, Column.KIND] == Opcode.HOST, -1, kinds[unit])
    for first, last in segments:
        turns = first + 1 + np.flatnonzero(np.diff(kind[first:last]))
        edges = [first, *turns.tolist(), last]
        groups = [_ends(unit, begin, end) for begin, end in zip(edges, edges[1:], strict=False)]
        for index in range(len(groups) - 1):
            if kind[edges[index]] < 0 or kind[edges[index + 1]] < 0:
                continue
            for source, (_, row) in groups[index].items():
                for target, (begin, _) in groups[index + 1].items():
                    bit = bits.get((source, target))
                    if bit is None:
                        bit = bits[source, target] = len(found)
                        found.append(Channel(f"phase {units[source].name}-{units[target].name}",
                                             source, target, 0, "phase"))
                    if bit >= MAX_CHANNELS:
                        raise ProgramError(f"channels: {bit + 1}, at most {MAX_CHANNELS}")
                    operations[row, Column.SIGNAL] |= 1 << bit
                    operations[begin, Column.WAIT] |= 1 << bit
    return tuple(found)


def _ends(unit: np.ndarray, begin: int, end: int) -> dict[int, tuple[int, int]]:
    """First and last row of every unit in some rows."""
    found: dict[int, tuple[int, int]] = {}
    for row in range(begin, end):
        number = int(unit[row])
        found[number] = found.get(number, (row, row))[0], row
    return found
