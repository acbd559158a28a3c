"""Counts what a program's operations do to DSP slices, buffers and memory, layer by layer.

It knows no joules; `arch_models.energy` turns the counts into energy.
"""

from __future__ import annotations

import numpy as np

from arch_models.energy import Activity
from arch_models.overlay import Overlay
from cosim.program.result import SimResult
from cosim.program.table import ARGUMENTS, Column, Opcode, Program, UnitKind

BEAT_BYTES = 8
_STREAMED = (Opcode.ADD, Opcode.MULTIPLY, Opcode.AFFINE, Opcode.FLOW_SUM, Opcode.LOOKUP,
             Opcode.AVERAGE_POOL, Opcode.MAX_POOL, Opcode.UPSAMPLE, Opcode.SOFTMAX,
             Opcode.GRID_SAMPLE, Opcode.GROUP_SUMS, Opcode.GROUP_NORM)


def row_counts(program: Program, overlay: Overlay) -> dict[str, np.ndarray]:
    """Per row, repeats not counted: `macs` of DSP slices, `beats` handled, `bram` accesses.

    A convolution reads, each trip, one INPUT word a column and one WEIGHT word; a partial sum is
    written and read again. A streaming engine touches a beat for each cycle of its interval and
    writes one. A transfer touches a beat for every 8 bytes.
    """
    table, arguments = program.operations, program.arguments
    kind, trips = table[:, Column.KIND], table[:, Column.TRIPS]
    macs = np.where(kind == Opcode.CONVOLUTION, trips * overlay.macs_per_cycle, 0)
    beats = np.where(np.isin(kind, [int(item) for item in _STREAMED]),
                     trips * table[:, Column.INTERVAL], 0)
    moved = table[:, Column.ROW_BYTES] * table[:, Column.ROWS] * table[:, Column.PLANES]
    reads_in = overlay.columns * max(1, overlay.tn * overlay.data_bits // 64)
    reads_weight = max(1, overlay.tm * overlay.tn * overlay.weight_bits // 64)
    bram = moved // BEAT_BYTES + 2 * beats
    bram += np.where(kind == Opcode.CONVOLUTION, trips * (reads_in + reads_weight), 0)
    names = ARGUMENTS[Opcode.CONVOLUTION]
    place = {name: arguments[:, names.index(name)].astype(np.int64)
             for name in ("out_rows", "out_columns", "out_words", "first", "last")}
    words = place["out_rows"] * place["out_columns"] * place["out_words"]
    partial = (2 - place["first"] - place["last"]) * words * overlay.tm // 2
    written = place["last"] * words * max(1, overlay.tm // BEAT_BYTES)
    bram += np.where(kind == Opcode.CONVOLUTION, partial + written, 0)
    return {"macs": macs, "beats": beats, "bram": bram, "bytes": moved}


def activity(program: Program, overlay: Overlay, result: SimResult, cycles: int,
             rows: np.ndarray | None = None, share: float = 1.0) -> Activity:
    """Counts of one pass over the program (repeats not counted) that took `cycles`.

    `rows`: a mask of the rows to count (one layer's); `share`: their part of the row misses.
    """
    counts = row_counts(program, overlay)
    unit = program.operations[:, Column.UNIT]
    chosen = np.ones(len(unit), bool) if rows is None else rows
    read: dict[str, int] = {}
    written: dict[str, int] = {}
    beats: dict[str, int] = {}
    for index, item in enumerate(program.units):
        mine = chosen & (unit == index)
        if item.kind is UnitKind.COMPUTE:
            total = int(counts["beats"][mine].sum())
            if total:
                beats[item.name] = total
            continue
        target = read if item.kind is UnitKind.READ else written
        target[item.name] = int(counts["bytes"][mine].sum())
    passes = max(1, program.operation_count // max(1, len(unit)))
    misses = result.row_misses if result.row_hits + result.row_misses else None
    if misses is not None:
        misses = round(misses * share / passes)
    return Activity(cycles / overlay.clock_hz, cycles, int(counts["macs"][chosen].sum()), beats,
                    int(counts["bram"][chosen].sum()), read, written, misses)
