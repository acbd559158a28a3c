"""What a frame takes at least behind each of its layers, of a program that is there.

It simulates no memory. See `cosim.analysis.alone`, whose bound it takes layer by layer: the layers
behind one lie one behind the other, each as long as it is alone, and so do the processor's steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from arch_models.memory import Memory
from cosim.analysis.alone import least_cycles
from cosim.executors.fast import unit_table
from cosim.program.table import Channel, Column, Opcode, Program, UnitKind
from cosim.recurrence.cpu import LONG_AGO, STEP, makespan

#: Channels that tie a layer to others.
TIES = frozenset({"barrier", "host", "fetch"})


@dataclass
class Behind:
    """Keeps what layers of equal rows take alone."""

    known: dict[bytes, int] = field(default_factory=dict)

    def cycles(self, program: Program, memory: Memory, weight: int) -> np.ndarray | None:
        """Cycles by layer; None for a program that runs a segment more than once or hands data on
        through memories on chip, where layers may lie beside one another.

        `memory`: a flat one whose ports are as quick as any that the masters could be at;
        `weight`: the unit that brings weights, which no store of the layer before holds up.
        """
        table = program.operations
        units = unit_table(program.units, memory)[0]
        moves = units["kind"][table[:, Column.UNIT]] != UnitKind.COMPUTE
        if len(program.segments) > 1 or any(part.repeat > 1 for part in program.segments) or (
                moves & (table[:, Column.TRIPS] > 0)).any():
            return None
        least = np.zeros(len(program.layers), np.int64)
        hosts = table[:, Column.KIND] == Opcode.HOST
        np.add.at(least, table[hosts, Column.LAYER], table[hosts, Column.FILL])
        fetch = {channel.source for channel in program.channels if channel.cause == "fetch"}
        inside = table[~hosts & ~np.isin(table[:, Column.UNIT], list(fetch))]
        common = repr((units.tolist(), program.channels)).encode()
        mask = sum(1 << bit for bit, channel in enumerate(program.channels)
                   if channel.cause not in TIES and channel.target not in fetch)
        for layer, rows in _by_layer(inside):
            rows[:, Column.ADDRESS] = rows[:, Column.LAYER] = rows[:, Column.FLAGS] = 0
            rows[:, Column.WAIT] &= mask
            rows[:, Column.SIGNAL] &= mask
            key = hashlib.blake2b(common + rows.tobytes(), digest_size=16).digest()
            if key not in self.known:
                self.known[key] = _alone(rows, units, weight, program.channels)
            least[layer] += self.known[key]
        return np.append(np.cumsum(least[::-1])[::-1][1:], 0)


def _by_layer(table: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(layer, a copy of its rows), in order."""
    order = np.argsort(table[:, Column.LAYER], kind="stable")
    table = table[order]
    cuts = np.flatnonzero(np.diff(table[:, Column.LAYER])) + 1
    for rows in np.split(table, cuts) if len(table) else ():
        yield int(rows[0, Column.LAYER]), rows.copy()


def _alone(rows: np.ndarray, units: np.ndarray, weight: int, channels: tuple[Channel, ...]
           ) -> int:
    """A layer by itself, whose weights have come long ago as far as banks allow."""
    rows = rows[np.argsort(rows[:, Column.UNIT], kind="stable")]
    steps = np.zeros(len(rows), STEP)
    steps["wait"], steps["signal"], steps["form"] = rows[:, Column.WAIT], rows[:, Column.SIGNAL], -1
    steps["cycles"] = least_cycles(rows, units[rows[:, Column.UNIT]])
    ready = np.zeros(len(units), np.int64)
    ready[weight] = LONG_AGO
    found = makespan(steps, np.searchsorted(rows[:, Column.UNIT], np.arange(len(units) + 1)),
                     np.array([channel.initial for channel in channels], np.int64), ready)
    assert found is not None  # a layer by itself waits for nothing but its own tokens
    return found
