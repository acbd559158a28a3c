"""Puts descriptor loads in front of a program's segments, for overlays that fetch from DRAM.

It changes nothing else: every operation waits, besides its own tokens, for its descriptor.
"""

from __future__ import annotations

import numpy as np

from arch_models.units import ceil_div
from cosim.lowering.wiring import Wiring
from cosim.program.table import ARGUMENT_COUNT, FLAG_FIRST, Column, Opcode, Segment

DESCRIPTOR_BYTES = 64
FETCH_ROWS = 64  # descriptors in one fetch
FETCH_AHEAD = 4  # fetches that may be ahead of the last store


def with_fetches(
    operations: np.ndarray, arguments: np.ndarray, segments: list[Segment], wiring: Wiring,
    address: int,
) -> tuple[np.ndarray, np.ndarray, list[Segment]]:
    """The tables and segments with a fetch before every `FETCH_ROWS` rows.

    `address`: of the first descriptor. Waits and signals of `operations` are changed in place.
    """
    tables, functional, made = [], [], []
    position = 0
    for segment in segments:
        body = operations[segment.first : segment.last]
        loads = _fetch_rows(body, wiring, address)
        address += len(body) * DESCRIPTOR_BYTES
        tables += [loads, body]
        functional += [np.zeros((len(loads), ARGUMENT_COUNT), np.int32),
                       arguments[segment.first : segment.last]]
        made.append(Segment(position, position + len(loads) + len(body), segment.repeat))
        position = made[-1].last
    return np.concatenate(tables), np.concatenate(functional), made


def _fetch_rows(body: np.ndarray, wiring: Wiring, address: int) -> np.ndarray:
    count = ceil_div(len(body), FETCH_ROWS)
    loads = np.zeros((count, len(Column)), np.int64)
    loads[:, Column.UNIT], loads[:, Column.KIND] = wiring.fetch, Opcode.FETCH
    for index in range(count):
        rows = body[index * FETCH_ROWS : (index + 1) * FETCH_ROWS]
        size = len(rows) * DESCRIPTOR_BYTES
        line = loads[index]
        line[Column.ADDRESS] = address + index * FETCH_ROWS * DESCRIPTOR_BYTES
        line[Column.ROW_BYTES] = line[Column.ROW_STRIDE] = line[Column.PLANE_STRIDE] = size
        line[Column.ROWS] = line[Column.PLANES] = 1
        line[Column.LAYER] = rows[0, Column.LAYER]
        units, where = np.unique(rows[:, Column.UNIT], return_index=True)
        for unit, at in zip(units.tolist(), where.tolist(), strict=True):
            line[Column.SIGNAL] |= wiring.fetched[unit]
            rows[at, Column.WAIT] |= wiring.fetched[unit]
        stores = np.flatnonzero(rows[:, Column.UNIT] == wiring.outputs[0])
        if len(stores) and index + FETCH_AHEAD < count:
            rows[stores[-1], Column.SIGNAL] |= wiring.credit
            loads[index + FETCH_AHEAD, Column.WAIT] |= wiring.credit
    first = np.ones(count, bool)
    first[1:] = loads[1:, Column.LAYER] != loads[:-1, Column.LAYER]
    loads[first, Column.FLAGS] = FLAG_FIRST
    return loads
