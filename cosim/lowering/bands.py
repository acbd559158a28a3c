"""Interleaves the rows of two convolutions that hand a tensor on by bands of rows.

It chooses nothing: the order of the stages is `cosim.mapping.bands.order`'s. Each stage of such a
layer is one load of input, one operation and one store, with a skip tile's load before it where a
sum is fused, and the layer's constants before its first operation.

Both layers work on one engine, so that its channels order banks: the n-th stage of both takes bank
n of INPUT and of OUTPUT, whichever layer it is of. What a stage reads of the ring waits for the
store that completes it; what it overwrites was loaded before, since the input master, the engine
and the output master each take the stages in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from arch_models.memory import WINDOW
from arch_models.overlay import Overlay
from cosim.lowering.placement import TensorPlace
from cosim.lowering.wiring import Wiring
from cosim.mapping.tiles import Turn
from cosim.program.table import ARGUMENTS, Buffer, Column, Opcode

BUFFER, BASE = (ARGUMENTS[Opcode.LOAD].index(name) for name in ("buffer", "base"))
STORE_BASE = ARGUMENTS[Opcode.STORE].index("base")
IN_BASE, OUT_BASE = (ARGUMENTS[Opcode.CONVOLUTION].index(name) for name in ("in_base", "out_base"))


class Ring(NamedTuple):
    """A tensor that passes through the tensor memory: where its planes were taken to begin, and
    its planes, rows, and bytes of a row of one plane."""

    address: int
    planes: int
    rows: int
    row_bytes: int

    @classmethod
    def of(cls, place: TensorPlace) -> Ring:
        """The ring of a tensor that was placed as if all of it were there."""
        return cls(place.address, place.planes, place.rows, place.columns * place.position_bytes)


def as_ring(operations: np.ndarray, ring: Ring) -> None:
    """Turn transfers of planes of a tensor into those of a ring, in which a row of all planes lies
    together; rows that were one run become runs."""
    start = operations[:, Column.ADDRESS] - ring.address
    plane, inside = np.divmod(start, ring.rows * ring.row_bytes)
    row, column = np.divmod(inside, ring.row_bytes)
    size, rows = operations[:, Column.ROW_BYTES], operations[:, Column.ROWS]
    joined = size > ring.row_bytes
    operations[:, Column.ROWS] = np.where(joined, size // ring.row_bytes, rows)
    operations[:, Column.ROW_BYTES] = np.where(joined, ring.row_bytes, size)
    operations[:, Column.ROW_STRIDE] = ring.planes * ring.row_bytes
    operations[:, Column.PLANE_STRIDE] = ring.row_bytes
    operations[:, Column.ADDRESS] = (WINDOW + row * ring.planes * ring.row_bytes
                                     + plane * ring.row_bytes + column)


def interleaved(operations: np.ndarray, arguments: np.ndarray, middle: int, turns: Sequence[Turn],
                ring: Ring, overlay: Overlay, wiring: Wiring) -> np.ndarray:
    """Put the rows of two layers into the order of the turns, in place; new places of the rows.

    `operations`, `arguments`: the rows of the writer, up to `middle`, and of the reader.
    """
    (reads,), (stores,) = wiring.inputs, wiring.outputs
    unit, kind = operations[:, Column.UNIT], operations[:, Column.KIND]
    ends = np.flatnonzero(kind == Opcode.STORE)
    begins = np.concatenate(([0], ends[:-1] + 1))
    written = int(np.count_nonzero(ends < middle))
    inputs = (unit == reads) & (arguments[:, BUFFER] == Buffer.INPUT)
    passes = np.flatnonzero((inputs & (np.arange(len(unit)) >= middle))
                            | ((unit == stores) & (np.arange(len(unit)) < middle)))
    moved = operations[passes]
    as_ring(moved, ring)
    operations[passes] = moved
    skips = (unit == reads) & (arguments[:, BUFFER] == Buffer.OUTPUT)
    skip_free = int(operations[skips, Column.WAIT][-1]) if skips.any() else 0
    done = wiring.layer_done[0][0]
    rows: list[np.ndarray] = []
    for number, turn in enumerate(turns):
        stage = turn.number + written * turn.reader
        mine = np.arange(begins[stage], ends[stage] + 1)
        load = mine[inputs[mine]][0]
        if turn.after >= 0:
            operations[ends[turn.after], Column.SIGNAL] |= done
            operations[load, Column.WAIT] |= done
        if skip_free and not skips[mine].any():
            # A bank of OUTPUT is one of SKIP, too: its room is taken and given by every stage.
            operations[load, Column.WAIT] |= skip_free
            operations[ends[stage], Column.SIGNAL] |= skip_free
        _to_banks(operations, arguments, mine, number, overlay)
        rows.append(mine)
    taken = np.concatenate(rows)
    operations[:], arguments[:] = operations[taken], arguments[taken]
    places = np.empty(len(taken), np.int64)
    places[taken] = np.arange(len(taken))
    return places


def _to_banks(operations: np.ndarray, arguments: np.ndarray, stage: np.ndarray, number: int,
              overlay: Overlay) -> None:
    """Give a stage the banks of INPUT and OUTPUT that are its turn."""
    into = number % overlay.input_banks * overlay.input_words
    out = number % overlay.output_banks * overlay.output_words
    for row in stage:
        line, opcode = arguments[row], int(operations[row, Column.KIND])
        if opcode == Opcode.LOAD and line[BUFFER] == Buffer.INPUT:
            line[BASE] = line[BASE] % overlay.input_words + into
        elif opcode == Opcode.LOAD and line[BUFFER] == Buffer.OUTPUT:
            line[BASE] = line[BASE] % overlay.output_words + out
        elif opcode == Opcode.STORE:
            line[STORE_BASE] = line[STORE_BASE] % overlay.output_words + out
        elif opcode != Opcode.LOAD:
            line[IN_BASE] = line[IN_BASE] % overlay.input_words + into
            line[OUT_BASE] = line[OUT_BASE] % overlay.output_words + out
