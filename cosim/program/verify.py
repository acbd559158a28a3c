"""Refuses a program that no executor could give a meaning to.

It changes and runs nothing; `progress` walks the tokens without time.
"""

from __future__ import annotations

import numpy as np

from cosim.program.progress import first_stuck
from cosim.program.table import (
    ARGUMENT_COUNT,
    MAX_CHANNELS,
    Column,
    Program,
    ProgramError,
    UnitKind,
)


def verify(program: Program) -> None:
    """Refuse a program that no executor could give a meaning to; `ProgramError` names the rule.

    Checked: table shapes, unit and layer indices, channel ends (a wait belongs to the channel's
    target, a signal to its source), positive sizes and durations, segments that cover the table
    in order, and that the tokens balance well enough to finish (a dry run without time).
    """
    table = program.operations
    if table.ndim != 2 or table.shape[1] != len(Column) or table.dtype != np.int64:
        raise ProgramError(f"operations: shape {table.shape} {table.dtype}, "
                           f"must be (n, {len(Column)}) int64")
    if program.arguments.shape != (len(table), ARGUMENT_COUNT):
        raise ProgramError(f"arguments: shape {program.arguments.shape}, "
                           f"must be ({len(table)}, {ARGUMENT_COUNT})")
    if len(program.channels) > MAX_CHANNELS:
        raise ProgramError(f"channels: {len(program.channels)}, at most {MAX_CHANNELS}")
    _verify_units(program)
    _verify_segments(program)
    _verify_rows(program)
    _verify_progress(program)


def _verify_units(program: Program) -> None:
    least = {"outstanding": 1, "max_burst_beats": 1, "setup_cycles": 0, "tail_cycles": 0,
             "run_setup_cycles": 0}
    for unit in program.units:
        for field, low in least.items():
            if getattr(unit, field) < low:
                raise ProgramError(f"unit {unit.name!r}: {field} is {getattr(unit, field)}, "
                                   f"must be at least {low}")
    for channel in program.channels:
        for field in ("source", "target"):
            if not 0 <= getattr(channel, field) < len(program.units):
                raise ProgramError(f"channel {channel.name!r}: {field} is "
                                   f"{getattr(channel, field)}, must be from 0 to "
                                   f"{len(program.units) - 1}")
        if channel.initial < 0:
            raise ProgramError(f"channel {channel.name!r}: initial is {channel.initial}, must be "
                               "at least 0")


def _verify_segments(program: Program) -> None:
    expected = 0
    for index, segment in enumerate(program.segments):
        if segment.first != expected or segment.last < segment.first or segment.repeat < 1:
            raise ProgramError(f"segment {index}: {segment}, must start at {expected}, not end "
                               "before it starts, and repeat at least once")
        expected = segment.last
    if expected != len(program.operations):
        raise ProgramError(f"segments: end at {expected}, must cover {len(program.operations)}")


def _verify_rows(program: Program) -> None:
    table = program.operations
    unit = table[:, Column.UNIT]
    _refuse(unit, (unit < 0) | (unit >= len(program.units)), "UNIT",
            f"from 0 to {len(program.units) - 1}")
    layer = table[:, Column.LAYER]
    _refuse(layer, (layer < 0) | (layer >= len(program.layers)), "LAYER",
            f"from 0 to {len(program.layers) - 1}")
    kinds = np.array([u.kind for u in program.units])[unit]
    compute = kinds == UnitKind.COMPUTE
    duration = (table[:, Column.FILL] + table[:, Column.INTERVAL] * table[:, Column.TRIPS]
                + table[:, Column.DRAIN])
    _refuse(duration, compute & (duration < 1), "duration", "at least 1 cycle")
    for column in (Column.ROW_BYTES, Column.ROWS, Column.PLANES):
        value = table[:, column]
        _refuse(value, ~compute & (value < 1), column.name, "at least 1")
    on_chip = ~compute & (table[:, Column.TRIPS] != 0)
    _refuse(duration, on_chip & (duration < 1), "duration", "at least 1 cycle")
    lowest = table[:, Column.ADDRESS].copy()
    for stride, count in ((Column.ROW_STRIDE, Column.ROWS), (Column.PLANE_STRIDE, Column.PLANES)):
        lowest += np.minimum(0, table[:, stride] * (table[:, count] - 1))
    repeats = np.zeros(len(table), np.int64)
    for part in program.segments:
        repeats[part.first : part.last] = part.repeat - 1
    lowest += np.minimum(0, table[:, Column.ADVANCE] * repeats)
    _refuse(lowest, ~compute & (lowest < 0), "lowest address", "at least 0")
    waits = np.zeros(len(program.units), np.int64)
    signals = np.zeros(len(program.units), np.int64)
    for bit, channel in enumerate(program.channels):
        waits[channel.target] |= 1 << bit
        signals[channel.source] |= 1 << bit
    wait, signal = table[:, Column.WAIT], table[:, Column.SIGNAL]
    _refuse(wait, (wait & ~waits[unit]) != 0, "WAIT", "channels that end at the unit")
    _refuse(signal, (signal & ~signals[unit]) != 0, "SIGNAL", "channels that start at the unit")


def _refuse(values: np.ndarray, bad: np.ndarray, field: str, rule: str) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        raise ProgramError(f"operation {index}: {field} is {int(values[index])}, must be {rule}")


def _verify_progress(program: Program) -> None:
    """Every operation must come to its turn."""
    stuck = first_stuck(program)
    if stuck is not None:
        row, empty = stuck
        unit = program.units[int(program.operations[row, Column.UNIT])]
        names = ", ".join(program.channels[bit].name for bit in empty)
        raise ProgramError(f"operation {row} of unit {unit.name!r} never starts: no token ever "
                           f"comes on {names}")
