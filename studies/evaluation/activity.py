"""Counts what a program does that costs energy: products, beats, buffer accesses, bytes.

It knows no joules; `arch_models.energy` turns counts into them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from arch_models.overlay import Overlay
from cosim.program.table import ARGUMENTS, Column, Opcode, Program, UnitKind

ACCESS_BYTES = 8
#: How the beats (positions of 8 channels) of a streaming operation follow from its arguments.
BEATS: Mapping[Opcode, tuple[str, ...]] = {
    Opcode.ADD: ("positions", "planes"), Opcode.MULTIPLY: ("positions", "planes"),
    Opcode.AFFINE: ("positions", "planes"), Opcode.LOOKUP: ("positions", "planes"),
    Opcode.FLOW_SUM: ("positions", "channels"), Opcode.SOFTMAX: ("positions", "channels"),
    Opcode.AVERAGE_POOL: ("in_rows", "in_columns", "planes"),
    Opcode.MAX_POOL: ("in_rows", "in_columns", "planes"),
    Opcode.UPSAMPLE: ("in_rows", "in_columns", "planes"),
    Opcode.GRID_SAMPLE: ("positions", "planes"),
    Opcode.GROUP_SUMS: ("positions", "planes"), Opcode.GROUP_NORM: ("positions", "planes"),
}
#: Channels in a beat where the arguments count channels, not planes.
CHANNELS_A_BEAT = 8
CHANNELWISE = frozenset({Opcode.FLOW_SUM, Opcode.SOFTMAX})
#: Buffer accesses a beat: operands read and result written. A bilinear sample reads four corners.
ACCESSES_A_BEAT: Mapping[Opcode, int] = {Opcode.ADD: 3, Opcode.MULTIPLY: 3,
                                         Opcode.UPSAMPLE: 5, Opcode.GRID_SAMPLE: 5,
                                         Opcode.GROUP_SUMS: 1}


@dataclass(frozen=True)
class Counts:
    """Counts by layer (L,) or layer and unit (L, U), int64, over everything executed once.

    `dsp_macs`: products the array computed, idle lanes included. `beats`: by engine.
    `bram_accesses`: of 64 bits, transfers' side included.
    """

    dsp_macs: np.ndarray
    beats: np.ndarray
    bram_accesses: np.ndarray


def count(program: Program, moved: np.ndarray, overlay: Overlay) -> Counts:
    """Count the operations of a program that moves (layers, units) bytes."""
    layers, units = len(program.layers), len(program.units)
    table, arguments = program.operations, program.arguments
    times = np.zeros(len(table), np.int64)
    for segment in program.segments:
        times[segment.first : segment.last] = segment.repeat
    layer, unit, kind = table[:, Column.LAYER], table[:, Column.UNIT], table[:, Column.KIND]
    dsp, beats = np.zeros(layers, np.int64), np.zeros((layers, units), np.int64)
    accesses = moved.sum(axis=1) // ACCESS_BYTES
    rows = np.flatnonzero(kind == Opcode.CONVOLUTION)
    if len(rows):
        trips = table[rows, Column.TRIPS] * times[rows]
        np.add.at(dsp, layer[rows], trips * overlay.macs_per_cycle)
        a_trip = (overlay.columns * overlay.tn + overlay.tm * overlay.tn) // ACCESS_BYTES
        written = (_product(Opcode.CONVOLUTION, ("out_rows", "out_columns", "out_words"),
                            arguments[rows]) * (overlay.tm // ACCESS_BYTES) * times[rows])
        np.add.at(accesses, layer[rows], trips * a_trip + written)
    for opcode in np.unique(kind):
        if opcode not in BEATS:
            continue
        opcode = Opcode(int(opcode))
        rows = np.flatnonzero(kind == opcode)
        work = _product(opcode, BEATS[opcode], arguments[rows]) * times[rows]
        if opcode in CHANNELWISE:
            work = -(-work // CHANNELS_A_BEAT)
        np.add.at(beats, (layer[rows], unit[rows]), work)
        np.add.at(accesses, layer[rows], work * ACCESSES_A_BEAT.get(opcode, 2))
    return Counts(dsp, beats, accesses)


def _product(opcode: Opcode, names: tuple[str, ...], arguments: np.ndarray) -> np.ndarray:
    value = np.ones(len(arguments), np.int64)
    for name in names:
        value = value * arguments[:, ARGUMENTS[opcode].index(name)]
    return value


def named(program: Program, values: np.ndarray, kind: UnitKind) -> dict[str, int]:
    """Values by unit (U,) as a mapping from the names of the units of one kind; zeros left out."""
    return {unit.name: int(value) for unit, value in zip(program.units, values, strict=True)
            if unit.kind == kind and value}
