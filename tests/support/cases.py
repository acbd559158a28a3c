"""Saves, loads and shrinks programs on which the executors differed.

It compares nothing itself; the tests of equivalence do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from arch_models.memory import Ddr3Timing, Memory, Port, Traffic
from cosim.program.table import Channel, Column, Program, ProgramError, Segment, Unit, UnitKind
from cosim.program.verify import verify

FOLDER = Path(__file__).parents[1] / "equivalence" / "cases"


def save_case(name: str, program: Program, memory: Memory) -> None:
    """Write `name`.npz (the table) and `name`.json (everything else) into `cases/`."""
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / f"{name}.npz", operations=program.operations,
                        arguments=program.arguments)
    text = {"units": [asdict(unit) for unit in program.units],
            "channels": [asdict(channel) for channel in program.channels],
            "layers": program.layers, "segments": [asdict(part) for part in program.segments],
            "memory": asdict(memory)}
    (FOLDER / f"{name}.json").write_text(json.dumps(text, indent=1) + "\n")


def load_case(name: str) -> tuple[Program, Memory]:
    text = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as arrays:
        operations, arguments = arrays["operations"], arrays["arguments"]
    units = tuple(Unit(**{**unit, "kind": UnitKind(unit["kind"])}) for unit in text["units"])
    memory = text["memory"]
    ddr = memory["ddr"]
    return (
        Program(name, units, tuple(Channel(**item) for item in text["channels"]),
                tuple(text["layers"]), operations, arguments,
                tuple(Segment(**item) for item in text["segments"])),
        Memory(memory["model"], tuple(Port(**port) for port in memory["ports"]),
               Ddr3Timing(**ddr) if ddr else None,
               tuple(Traffic(**item) for item in memory["background"])))


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """A smaller program that still fails: no step that makes it smaller keeps it failing."""
    smaller: Program | None = program
    while smaller is not None:
        program = smaller
        smaller = next((item for item in _smaller(program) if _legal(item) and fails(item)), None)
    return program


def _legal(program: Program) -> bool:
    try:
        verify(program)
    except ProgramError:
        return False
    return True


def _smaller(program: Program) -> Iterator[Program]:
    count = len(program.operations)
    size = count // 2
    while size:
        for first in range(0, count, size):
            yield _without(program, first, min(count, first + size))
        size //= 2
    for index, part in enumerate(program.segments):
        if part.repeat > 1:
            segments = list(program.segments)
            segments[index] = replace(part, repeat=1)
            yield replace(program, segments=tuple(segments))
    for column in (Column.PLANES, Column.ROWS, Column.ROW_BYTES, Column.TRIPS, Column.ADDRESS):
        for row in np.flatnonzero(program.operations[:, column] > 1).tolist():
            table = program.operations.copy()
            table[row, column] //= 2
            yield replace(program, operations=table)


def _without(program: Program, first: int, last: int) -> Program:
    def moved(edge: int) -> int:
        return edge - max(0, min(edge, last) - first)

    return replace(
        program, operations=np.delete(program.operations, slice(first, last), axis=0),
        arguments=np.delete(program.arguments, slice(first, last), axis=0),
        segments=tuple(Segment(moved(part.first), moved(part.last), part.repeat)
                       for part in program.segments))
