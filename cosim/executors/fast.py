"""The numba executor: the meaning of `des`, to the cycle, at the speed a search needs.

It defines nothing: where it and `cosim.executors.des` differ, this one is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arch_models.memory import Memory
from cosim.executors import fast_ddr3, fast_loop, fast_state
from cosim.executors.fast_loop import build_loop
from cosim.executors.fast_state import (
    G_ROWS,
    M_COLUMNS,
    MEMO,
    P_ACCEPT,
    P_COLUMNS,
    U_ALONE,
    U_CHANNEL,
    U_COLUMNS,
    U_KIND,
    U_OUTSTANDING,
    X_COLUMNS,
)
from cosim.memory import arbiter
from cosim.memory import bursts as memory_rules
from cosim.memory import ddr3 as ddr3_rules
from cosim.memory.ddr3 import R_HITS, R_MISSES, R_SEEN, ddr_parameters, ddr_state
from cosim.program.result import SimResult, Trace
from cosim.program.table import Program, ProgramError, Unit, UnitKind, layer_macs, rows_by_unit


def _digest() -> int:
    digest = hashlib.sha256()
    for module in (arbiter, memory_rules, ddr3_rules, fast_state, fast_ddr3, fast_loop):
        digest.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(digest.digest()[:6], "big")


#: Changes with any file that the compiled loop comes from.
SOURCES = _digest()
_RUN = build_loop(SOURCES)


def simulate(program: Program, memory: Memory, trace: bool = False) -> SimResult:
    """Run a program (see `cosim.program.table`) on a memory and account for every cycle.

    `trace`: also return start and end of every operation, repeats written out. Raises
    `ProgramError` if a unit waits for a token that never comes.
    """
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    units = len(program.units)
    layers = len(program.layers)
    order, starts = rows_by_unit(program)
    repeats = np.array([part.repeat for part in program.segments], np.int64)
    firsts = np.array([part.first for part in program.segments], np.int64)
    lengths = np.array([part.last - part.first for part in program.segments], np.int64)
    bases = np.concatenate(([0], np.cumsum(repeats * lengths)))[:-1].astype(np.int64)
    table, ports = unit_table(program.units, memory)
    tokens = np.array([channel.initial for channel in program.channels], np.int64)
    limits = [unit.outstanding for unit in program.units] + [1]
    capacity = 1 << (max(limits) - 1).bit_length()  # rings are indexed with a mask
    rings = zeros(units, G_ROWS, capacity)
    parameters = zeros(0)
    if memory.ddr is not None and memory.model == "ddr3":
        parameters = ddr_parameters(memory.ddr)
    dram = ddr_state(memory, parameters, sum(limits))
    traced = program.operation_count if trace else 0

    busy, memory_stall, executed = zeros(units), zeros(units), zeros(units)
    token_stall = zeros(units, len(program.channels))
    layer_start, layer_end = zeros(layers) - 1, zeros(layers) - 1
    layer_busy, layer_memory, layer_token = (zeros(layers, units) for _ in range(3))
    layer_bytes, layer_bursts = zeros(layers, units), zeros(layers, units)
    segment_end = zeros(int(repeats[-1]) if len(repeats) else 0)
    starts_at, ends_at, hits, misses = (zeros(traced) for _ in range(4))
    total, stuck, _ = _RUN(
        program.operations, order, starts, repeats, bases, lengths, firsts, table, tokens,
        zeros(len(tokens)), zeros(units, X_COLUMNS), zeros(units), zeros(units), rings,
        zeros(MEMO, M_COLUMNS), ports, parameters, *dram, busy, memory_stall, token_stall,
        executed, layer_start, layer_end, layer_busy, layer_memory, layer_token, layer_bytes,
        layer_bursts, segment_end, starts_at, ends_at, hits, misses)
    regs = dram[0]
    if stuck >= 0:
        raise ProgramError(f"unit {program.units[stuck].name!r} waits for a token that never "
                           f"comes, at cycle {total}")
    return SimResult(
        int(total), busy, total - busy - memory_stall - token_stall.sum(axis=1), memory_stall,
        token_stall, executed, layer_start, layer_end, layer_busy, layer_memory, layer_token,
        layer_bytes, layer_bursts, layer_macs(program), segment_end, int(regs[R_HITS]),
        int(regs[R_MISSES]), int(regs[R_SEEN]),
        Trace(starts_at, ends_at, hits, misses) if trace else None)


def unit_table(program_units: Sequence[Unit], memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """(units x U_COLUMNS, channels x P_COLUMNS): everything the loop asks of units and ports."""
    table = np.zeros((len(program_units), U_COLUMNS), np.int64)
    users: dict[int, int] = {}
    rows = len(memory.ports)
    for index, unit in enumerate(program_units):
        table[index, [U_KIND, U_OUTSTANDING, U_CHANNEL]] = unit.kind, 1, -1
        if unit.kind == UnitKind.COMPUTE:
            continue
        if not 0 <= unit.port < len(memory.ports):
            raise ProgramError(f"unit {unit.name!r}: port is {unit.port}, the memory has "
                               f"{len(memory.ports)}")
        port = memory.ports[unit.port]
        rows = max(rows, port.controller_port + 1)
        read = unit.kind == UnitKind.READ
        channel = unit.port * 2 + (0 if read else 1)
        users[channel] = users.get(channel, 0) + 1
        table[index] = (
            unit.kind, unit.port, unit.outstanding, unit.max_burst_beats, unit.setup_cycles,
            unit.tail_cycles, unit.overlap_runs, unit.run_setup_cycles, port.width_bytes,
            port.read_latency_cycles if read and memory.model == "flat"
            else port.write_lead_cycles,
            0 if read else port.write_latency_cycles, channel, 0,
            port.read_accept if read else port.write_accept, port.request_cycles,
            port.response_cycles if read else port.write_response_cycles, port.controller_port)
    for index, unit in enumerate(program_units):
        if unit.kind != UnitKind.COMPUTE and memory.model == "flat":
            table[index, U_ALONE] = users[int(table[index, U_CHANNEL])] == 1
    ports = np.zeros((2 * rows, P_COLUMNS), np.int64)
    ports[:, P_ACCEPT] = -1
    return table, ports
