"""The numba executor: the meaning of `des`, to the cycle, at the speed a search needs.

It defines nothing: where it and `cosim.executors.des` differ, this one is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from arch_models.memory import Memory
from cosim.executors.fast_loop import MOMENT, Code, Counts, Run, Tokens, loop
from cosim.executors.fast_state import (
    CHANNEL,
    COMPUTE,
    FLIGHT,
    KNOWN,
    MEMO,
    OPERATION,
    PROGRESS,
    READ,
    UNIT,
    WRITE,
    Machine,
)
from cosim.memory.bursts import BOUNDARY_BYTES
from cosim.memory.controller import controller, one_record, timing
from cosim.program.result import SimResult, Trace
from cosim.program.table import Program, ProgramError, Unit, layer_macs, rows_by_unit
from cosim.program.totals import refuse_beyond


def simulate(program: Program, memory: Memory, trace: bool = False) -> SimResult:
    """Run a program (see `cosim.program.table`) on a memory and account for every cycle.

    `trace`: also return start and end of every operation, repeats written out. Raises
    `ProgramError` if a unit waits for a token that never comes, or a total is beyond counting.
    """
    run = _run(load(program), wire(program.units, memory),
               program.operation_count if trace else 0, np.zeros(0, np.int64))
    total, counts, dram = run.moment[0].total, run.counts, run.machine.dram.s[0]
    idle = total - counts.busy - counts.memory_stall - counts.token_stall.sum(axis=1)
    return SimResult(
        int(total), counts.busy, idle, counts.memory_stall, counts.token_stall, counts.executed,
        counts.layer_start, counts.layer_end, counts.layer_busy, counts.layer_memory_stall,
        counts.layer_token_stall, counts.layer_bytes, counts.layer_bursts, layer_macs(program),
        counts.segment_end, int(dram.hits), int(dram.misses), int(dram.seen),
        Trace(counts.trace_start, counts.trace_end, counts.trace_hits, counts.trace_misses)
        if trace else None)


class Loaded(NamedTuple):
    """A program as the loop reads it, whatever ports and limits its units have."""

    program: Program
    code: Code  # of which all operations may end at any time
    tokens: np.ndarray


class Wired(NamedTuple):
    """Units with their limits on the ports of a memory, as the loop reads them."""

    memory: Memory
    units: np.ndarray  # UNIT
    channels: np.ndarray  # CHANNEL
    limits: tuple[int, ...]  # bursts that each unit may have in flight


class Ended(NamedTuple):
    """The `cycles` of a run, None if it was stopped. `needed`: with this limit of writers' bursts
    in flight, or any between it and their own, it goes the same way on a DDR3 memory."""

    cycles: int | None
    needed: int


def simulate_until(loaded: Loaded, wired: Wired, latest: np.ndarray) -> Ended:
    """Run a program as `simulate` does, and stop once an operation ends later than it may.

    `latest`: by operation, in the order of a trace, the last cycle at which it may end.
    """
    run = _run(loaded, wired, 0, latest)
    moment, progress = run.moment[0], run.machine.progress
    return Ended(None if moment.late else int(moment.total), int(progress["needed"].max()))


def load(program: Program) -> Loaded:
    """Look at a program once, for any number of runs; `ProgramError` if a total is beyond counting.
    """
    refuse_beyond(program)
    order, starts = rows_by_unit(program)
    repeats = np.array([part.repeat for part in program.segments], np.int64)
    firsts = np.array([part.first for part in program.segments], np.int64)
    lengths = np.array([part.last - part.first for part in program.segments], np.int64)
    bases = np.concatenate(([0], np.cumsum(repeats * lengths)))[:-1].astype(np.int64)
    return Loaded(program, Code(order, starts, repeats, bases, lengths, firsts,
                                np.zeros(0, np.int64)),
                  np.array([channel.initial for channel in program.channels], np.int64))


def wire(program_units: Sequence[Unit], memory: Memory) -> Wired:
    """Look at units and ports once, for any number of runs."""
    units, channels = unit_table(program_units, memory)
    if memory.model == "ddr3" and memory.ddr is not None:
        _set_paces(units, timing(memory.ddr)[0])
    return Wired(memory, units, channels, tuple(unit.outstanding for unit in program_units))


def _run(loaded: Loaded, wired: Wired, traced: int, latest: np.ndarray) -> Run:
    """A run that is over, or late; `traced`: so many operations are traced."""
    program, code = loaded.program, loaded.code._replace(latest=latest)
    tokens = Tokens(loaded.tokens.copy(), np.zeros(len(program.channels), np.int64))
    run = Run(_machine(program, wired), code, tokens, _counts(program, code, traced),
              one_record(MOMENT))
    total, stuck = loop(run)
    if stuck >= 0:
        raise ProgramError(f"unit {program.units[stuck].name!r} waits for a token that never "
                           f"comes, at cycle {total}")
    return run


def _counts(program: Program, code: Code, traced: int) -> Counts:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    units, layers = len(program.units), len(program.layers)
    return Counts(
        busy=zeros(units), memory_stall=zeros(units),
        token_stall=zeros(units, len(program.channels)), executed=zeros(units),
        layer_start=zeros(layers) - 1, layer_end=zeros(layers) - 1,
        layer_busy=zeros(layers, units), layer_memory_stall=zeros(layers, units),
        layer_token_stall=zeros(layers, units), layer_bytes=zeros(layers, units),
        layer_bursts=zeros(layers, units),
        segment_end=zeros(int(code.repeats[-1]) if len(code.repeats) else 0),
        trace_start=zeros(traced), trace_end=zeros(traced), trace_hits=zeros(traced),
        trace_misses=zeros(traced))


def _machine(program: Program, wired: Wired) -> Machine:
    units = wired.units
    operations = np.ascontiguousarray(program.operations).view(OPERATION).reshape(-1)
    dram = controller(wired.memory, sum(wired.limits) + 1)
    members = len(units) + len(dram.sources)
    ring = 1 << (max(wired.limits, default=1) - 1).bit_length()  # rings are indexed with a mask
    progress = np.zeros(members, PROGRESS)
    progress["needed"] = 1
    ways = np.concatenate((np.where(units["kind"] == COMPUTE, -1,
                                    units["kind"] == WRITE), dram.sources["write"]))
    return Machine(operations, units, progress,
                   np.zeros((members, ring), FLIGHT), np.zeros(ring, np.int64),
                   np.flatnonzero(units["kind"] != COMPUTE),
                   np.flatnonzero(ways == 0), np.flatnonzero(ways == 1),
                   np.zeros(MEMO, KNOWN), wired.channels.copy(), dram)


def _set_paces(units: np.ndarray, t: np.void) -> None:
    """Find who can be a stream (`cosim.executors.fast_streams`), and its pace; none with bank
    groups, whose DRAM bursts have other spacings."""
    atom, row_bytes, clock, cycle, mask = t[["atom", "row_bytes", "clock", "cycle",
                                             "group_mask"]].item()
    if mask:
        return
    size, clocks = units["max_beats"] * units["width"], units["max_beats"] * clock
    stream = ((units["sole"] == 1) & (units["kind"] == READ)
              & (units["outstanding"] <= units["accept"]) & (size & (size - 1) == 0)
              & (atom <= size) & (size <= min(BOUNDARY_BYTES, row_bytes)) & (clocks % cycle == 0))
    units["pace"] = np.where(stream, clocks // cycle, 0)
    units["shift"] = np.where(stream, np.log2(np.maximum(size, 1)).astype(np.int64), 0)


def unit_table(program_units: Sequence[Unit], memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """UNIT records of the units, CHANNEL records of the ports: all the loop asks of them."""
    table = np.zeros(len(program_units), UNIT)
    shared: list[tuple[str, int] | None] = []  # what a unit's requests need
    rows = len(memory.ports)
    for index, unit in enumerate(program_units):
        settings = table[index]
        settings["kind"], settings["outstanding"], settings["channel"] = unit.kind, 1, -1
        if unit.kind == COMPUTE:
            shared.append(None)
            continue
        if not 0 <= unit.port < len(memory.ports):
            raise ProgramError(f"unit {unit.name!r}: port is {unit.port}, the memory has "
                               f"{len(memory.ports)}")
        port = memory.ports[unit.port]
        rows = max(rows, port.controller_port + 1)
        read = unit.kind == READ
        channel = unit.port * 2 + (0 if read else 1)
        shared.append(("channel", channel) if read or memory.model == "flat"
                      else ("crossing", port.controller_port))
        for name, value in (
                ("port", unit.port), ("outstanding", unit.outstanding),
                ("max_beats", unit.max_burst_beats), ("setup", unit.setup_cycles),
                ("tail", unit.tail_cycles), ("overlap", unit.overlap_runs),
                ("run_setup", unit.run_setup_cycles), ("width", port.width_bytes),
                ("lead", port.read_latency_cycles if read and memory.model == "flat"
                 else port.write_lead_cycles),
                ("trail", 0 if read else port.write_latency_cycles), ("channel", channel),
                ("accept", port.read_accept if read else port.write_accept),
                ("request", port.request_cycles),
                ("response", port.response_cycles if read else port.write_response_cycles),
                ("controller", port.controller_port)):
            settings[name] = value
    users = Counter(shared)
    column = "alone" if memory.model == "flat" else "sole"
    table[column] = [item is not None and users[item] == 1 for item in shared]
    channels = np.zeros(2 * rows, CHANNEL)
    channels["accepted"] = -1
    return table, channels
