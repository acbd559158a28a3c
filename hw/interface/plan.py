"""What the processor does with a program: start stretches of it in fabric, run layers between.

It starts nothing itself; the driver and the tests follow the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arch_models.memory import Memory
from cosim.executors import fast
from cosim.program.table import ARGUMENTS, Channel, Column, Opcode, Program, Segment, UnitKind
from hw.interface.configuration import COMMAND_DEPTH, Configuration, EmissionError, UnitRole


@dataclass(frozen=True, slots=True)
class Start:
    """Run operations [first, first + count) of the table `repeats` times in fabric.

    `repeat_first`: number of the first repeat; addresses move by ADVANCE times it.
    """

    first: int
    count: int
    repeats: int
    repeat_first: int


@dataclass(frozen=True, slots=True)
class HostStep:
    """Run a layer of the program (by its number) on the processor."""

    layer: int


Step = Start | HostStep


def in_order_of_start(program: Program, configuration: Configuration, memory: Memory) -> Program:
    """The program with the rows between two host operations sorted by when they start.

    Commands go in table order into queues that hold some of them. Sorted so, none comes late,
    however short the queues: a queue has room for a row once an earlier row of that unit has
    started, and no row in front of it starts later. What runs and when stays the same, for every
    unit's rows keep their order. `memory` gives the times; of rows that repeat, those of the first
    time. A program that fetches its own descriptors is returned as it is: its fetches name rows by
    their places.
    """
    outside = np.array([role is UnitRole.HOST for role in configuration.roles])
    if UnitRole.FETCH in configuration.roles:
        return program
    trace = fast.simulate(program, memory, trace=True).trace
    assert trace is not None
    order, first = np.arange(len(program.operations)), 0
    for segment in program.segments:
        count = segment.last - segment.first
        rows = np.arange(segment.first, segment.last)
        # Host rows stay where they are; the stretches between them are sorted one by one.
        stretch = np.cumsum(outside[program.operations[rows, Column.UNIT]])
        held = outside[program.operations[rows, Column.UNIT]]
        order[rows] = rows[np.lexsort((trace.start[first : first + count], ~held, stretch))]
        first += count * segment.repeat
    return replace(program, operations=program.operations[order],
                   arguments=program.arguments[order])


def late_commands(program: Program, configuration: Configuration, memory: Memory,
                  depth: int = COMMAND_DEPTH) -> int:
    """Operations that start, by the prediction of each start, before queues of `depth` let their
    command in; 0 means that queues change no time. Dispatch itself is taken to be instant."""
    late = 0
    for step in steps(program, configuration):
        if isinstance(step, HostStep):
            continue
        part = stretch_program(program, configuration, step)
        trace = fast.simulate(part, memory, trace=True).trace
        assert trace is not None
        unit = np.tile(part.operations[:, Column.UNIT], step.repeats)
        room = np.zeros(len(unit), np.int64)  # when a place in the unit's queue is free
        for number in range(len(part.units)):
            mine = np.flatnonzero(unit == number)
            room[mine[depth:]] = trace.start[mine[:-depth]]
        late += int((np.maximum.accumulate(room) > trace.start).sum())
    return late


def steps(program: Program, configuration: Configuration) -> tuple[Step, ...]:
    """The program cut at its host operations, repeats of such segments written out.

    Raises `EmissionError` if the table's order is no legal order of execution: in fabric,
    commands are dispatched in table order, so every token must come from an earlier row.
    """
    _require_sequential(program, configuration)
    host = np.array([role is UnitRole.HOST for role in configuration.roles])
    is_host = host[program.operations[:, Column.UNIT]]
    column = ARGUMENTS[Opcode.HOST].index("layer")
    found: list[Step] = []
    for segment in program.segments:
        cuts = [segment.first + int(row)
                for row in np.flatnonzero(is_host[segment.first : segment.last])]
        if not cuts:
            if segment.last > segment.first:
                found.append(Start(segment.first, segment.last - segment.first,
                                   segment.repeat, 0))
            continue
        for repeat in range(segment.repeat):
            first = segment.first
            for cut in [*cuts, segment.last]:
                if cut > first:
                    found.append(Start(first, cut - first, 1, repeat))
                if cut < segment.last:
                    found.append(HostStep(int(program.arguments[cut, column])))
                first = cut + 1
    return tuple(found)


def stretch_program(program: Program, configuration: Configuration, start: Start) -> Program:
    """What one start runs in fabric, as a program of its own: simulate it to predict the start.

    Rows of the host and of the fetch unit are left out, and so are the channels' tokens that
    come from or go to them: the start itself stands for them. The channels begin with the tokens
    that everything before the start has left.
    """
    outside = np.array([role in (UnitRole.HOST, UnitRole.FETCH) for role in configuration.roles])
    rows = np.arange(start.first, start.first + start.count)
    rows = rows[~outside[program.operations[rows, Column.UNIT]]]
    kept = sum(1 << bit for bit, channel in enumerate(program.channels)
               if not outside[channel.source] and not outside[channel.target])
    channels = _channels_at(program, start, ~outside[program.operations[:, Column.UNIT]], kept)
    table = program.operations[rows].copy()
    table[:, [Column.WAIT, Column.SIGNAL]] &= kept
    kinds = np.array([unit.kind for unit in program.units])[table[:, Column.UNIT]]
    moved = kinds != UnitKind.COMPUTE
    table[moved, Column.ADDRESS] += start.repeat_first * table[moved, Column.ADVANCE]
    return replace(program, channels=channels, operations=table,
                   arguments=program.arguments[rows].copy(),
                   segments=(Segment(0, len(rows), start.repeats),))


def _channels_at(program: Program, start: Start, inside: np.ndarray, kept: int
                 ) -> tuple[Channel, ...]:
    """The channels with the tokens they hold when a start begins."""
    times = np.zeros(len(program.operations), np.int64)  # how often each row ran before
    for segment in program.segments:
        if segment.last <= start.first:
            times[segment.first : segment.last] = segment.repeat
        elif segment.first <= start.first:
            times[segment.first : segment.last] = start.repeat_first
            times[segment.first : start.first] += 1
    times[~inside] = 0
    found = []
    for bit, channel in enumerate(program.channels):
        moved = 0
        if kept >> bit & 1:
            given, taken = ((program.operations[:, column] >> bit) & 1
                            for column in (Column.SIGNAL, Column.WAIT))
            moved = int(((given - taken) * times).sum())
        found.append(replace(channel, initial=channel.initial + moved))
    return tuple(found)


def _require_sequential(program: Program, configuration: Configuration) -> None:
    tokens = [channel.initial for channel in program.channels]
    table = program.operations
    # The fetch unit is the dispatcher; its tokens are the command queues.
    kept = sum(1 << bit for bit, channel in enumerate(program.channels)
               if UnitRole.FETCH not in (configuration.roles[channel.source],
                                         configuration.roles[channel.target]))
    waits = [_bits(int(mask) & kept) for mask in table[:, Column.WAIT]]
    signals = [_bits(int(mask) & kept) for mask in table[:, Column.SIGNAL]]
    for segment in program.segments:
        for _ in range(segment.repeat):
            for row in range(segment.first, segment.last):
                for channel in waits[row]:
                    tokens[channel] -= 1
                    if tokens[channel] < 0:
                        raise EmissionError(
                            f"operation {row} waits for channel "
                            f"{program.channels[channel].name!r} before any earlier row gives a "
                            "token; rows must be in a legal order of execution to be emitted")
                for channel in signals[row]:
                    tokens[channel] += 1


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
