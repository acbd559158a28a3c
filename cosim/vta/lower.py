"""Lowers a convolution and its schedule on VTA to a Program: fetch, load, compute, store, host.

It does not simulate and decides no schedule; the instruction stream is `cosim.vta.instructions`.

Each module runs its instructions in order. A module that both computes and transfers (compute
loads micro-ops and biases; load clears padding) is several units here that hand a token to and
fro, so only one of them works at a time. The fetch module reads one instruction a request and may
run at most a command queue ahead of each module.

Times (`arch_models.vta.VtaTiming`), with what the published HLS source
(`hardware/xilinx/src/vta.cc` of apache/tvm-vta) says of each:

- every instruction costs `instruction_cycles`, since a module is started anew for each; GEMM (and
  its other use, the reset) costs `gemm_cycles` more, for it fills and drains its deep pipeline;
- each row of a two-dimensional load is one copy, which starts when the row before has arrived:
  `row_cycles` from request to first beat;
- a padded load clears both edges of every row in loops of their own: `padded_row_cycles` to enter
  and leave them, and a cycle a cleared block;
- each row of a store is one copy, too, and waits for its write response: `store_row_cycles`;
- inside a row a burst follows one cycle after the last. A burst that misses the cache takes the
  slower of DRAM and consumer, on the mean `miss_burst_cycles` longer where the consumer takes a
  beat a cycle, `miss_wide_burst_cycles` where it takes two. The module does one thing at a time, so
  only the sum of these waits matters; it is taken before the load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arch_models.memory import Memory, Port
from arch_models.vta import VtaArray, VtaTiming
from cosim.program.table import (
    ARGUMENT_COUNT,
    FLAG_FIRST,
    MAX_CHANNELS,
    Channel,
    Column,
    Opcode,
    Program,
    ProgramError,
    Segment,
    Unit,
    UnitKind,
)
from cosim.vta.instructions import instructions, memory_map
from cosim.vta.queue import Field, Kind, Module, Token
from cosim.vta.schedule import VtaConvolution, VtaSchedule

UNIT_NAMES = ("host", "fetch", "load", "load_input", "load_weight", "compute", "load_micro_op",
              "load_bias", "store", "store_output")
(HOST, FETCH, LOAD, LOAD_INPUT, LOAD_WEIGHT, COMPUTE, LOAD_MICRO_OP, LOAD_BIAS, STORE,
 STORE_OUTPUT) = range(10)
#: The units of the load module that move data.
LOADS = (LOAD_INPUT, LOAD_WEIGHT)

#: Which unit of each module runs what transfers nothing.
_CONTROL = np.array([LOAD, COMPUTE, STORE])
_TRANSFER_UNIT = {Kind.INPUT: LOAD_INPUT, Kind.WEIGHT: LOAD_WEIGHT, Kind.BIAS: LOAD_BIAS,
                  Kind.MICRO_OP: LOAD_MICRO_OP, Kind.OUTPUT: STORE_OUTPUT}
_CAUSE = {Token.LOADED: "input", Token.CONSUMED: "buffer", Token.COMPUTED: "data",
          Token.STORED: "output"}

PORT, WEIGHT_PORT, MICRO_OP_PORT = range(3)


@dataclass(frozen=True)
class _Edges:
    """Tokens of one meaning: from the ends of some operations to the starts of others (rows)."""

    name: str
    cause: str
    source: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class _Places:
    """Rows of each instruction: its fetch, its first and its last operation."""

    fetch: np.ndarray
    head: np.ndarray
    tail: np.ndarray


def vta_memory(array: VtaArray) -> Memory:
    """The one merged port, flat; its latencies are those between the bursts of a run.

    Ports are what differs in width. A weight buffer that takes a beat every two cycles is the same
    transfer as on a port of half the width; the micro-op master is 32 bits wide. The load module
    uses one port at a time; what else reads meanwhile is under 1 % of the bytes.
    """
    full = array.port_width_bytes
    widths = (("ACP", full), ("ACP to weights", full // array.weight_beat_cycles),
              ("ACP to micro-ops", array.micro_op_bytes))
    return Memory("flat", tuple(Port(name, width, 1, 1, 1) for name, width in widths))


def lower_vta(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray, timing: VtaTiming, *,
              vector_operations: int = 3, bias: bool = False) -> Program:
    """The Program of one convolution call, the host's start included.

    `vector_operations` and `bias` as in `vta_instructions.instructions`. Raises
    `VtaScheduleError` if a tile does not divide its dimension.
    """
    table = instructions(layer, schedule, array, vector_operations=vector_operations, bias=bias,
                         cache_bytes=timing.cache_bytes)
    stream = memory_map(layer, array).instruction
    name = (f"vta {array.name} {layer.in_channels}x{layer.in_rows}x{layer.in_columns} to "
            f"{layer.out_channels}, {layer.kernel_rows}x{layer.kernel_columns}")
    return lower_instructions(name, table, stream, array, timing, padded=layer.padded)


def lower_instructions(name: str, table: np.ndarray, stream: int, array: VtaArray,
                       timing: VtaTiming, *, padded: bool) -> Program:
    """The Program of an instruction table (`vta_instructions.Field`) that lies at `stream`.

    `padded`: input loads clear edges (`VtaConvolution.padded`).
    """
    operations, places = _operations(table, stream, array, timing)
    channels = _connect(operations, _edges(table, operations, places, array))
    for unit in range(len(UNIT_NAMES)):
        own = np.flatnonzero(operations[:, Column.UNIT] == unit)
        operations[own[:1], Column.FLAGS] = FLAG_FIRST
    arguments = np.zeros((len(operations), ARGUMENT_COUNT), np.int32)
    return Program(name, _units(array, timing, padded), channels, ("convolution",), operations,
                   arguments, (Segment(0, len(operations)),))


def _units(array: VtaArray, timing: VtaTiming, padded: bool) -> tuple[Unit, ...]:
    row = timing.row_cycles
    input_row = row + timing.padded_row_cycles * padded

    def master(unit: int, kind: UnitKind, row: int, port: int = PORT,
               setup: int = timing.instruction_cycles) -> Unit:
        slower = array.weight_beat_cycles if port == WEIGHT_PORT else 1
        return Unit(UNIT_NAMES[unit], kind, port, 1, array.burst_beats * slower, setup + row, 1,
                    False, row)

    compute, read = UnitKind.COMPUTE, UnitKind.READ
    return (
        Unit(UNIT_NAMES[HOST], compute),
        master(FETCH, read, row, setup=0),
        Unit(UNIT_NAMES[LOAD], compute),
        master(LOAD_INPUT, read, input_row),
        master(LOAD_WEIGHT, read, row, WEIGHT_PORT),
        Unit(UNIT_NAMES[COMPUTE], compute),
        master(LOAD_MICRO_OP, read, row, MICRO_OP_PORT),
        master(LOAD_BIAS, read, row),
        Unit(UNIT_NAMES[STORE], compute),
        master(STORE_OUTPUT, UnitKind.WRITE, timing.store_row_cycles),
    )


def miss_cycles(table: np.ndarray, array: VtaArray, timing: VtaTiming) -> np.ndarray:
    """Cycles that each instruction of a table waits for bursts that miss the cache, int64."""
    wide = array.weight_beat_cycles > 1
    weights = timing.miss_wide_burst_cycles if wide else timing.miss_burst_cycles
    wait = np.where(table[:, Field.KIND] == Kind.WEIGHT, weights, timing.miss_burst_cycles)
    burst = array.burst_beats * array.port_width_bytes
    return np.rint(table[:, Field.MISS_BYTES] * wait / burst).astype(np.int64)


def _operations(table: np.ndarray, stream: int, array: VtaArray,
                timing: VtaTiming) -> tuple[np.ndarray, _Places]:
    """One host row, then for each instruction: its fetch, its padding and waits if any, itself."""
    count = len(table)
    kind = table[:, Field.KIND]
    unit = _CONTROL[table[:, Field.MODULE]]
    moves = table[:, Field.RUN_BYTES] * table[:, Field.RUNS] > 0
    for transfer, its_unit in _TRANSFER_UNIT.items():
        unit = np.where((kind == transfer) & moves, its_unit, unit)
    pads = table[:, Field.PAD_BLOCKS] + miss_cycles(table, array, timing)
    split = (pads > 0) & moves
    step = 2 + split
    fetch = 1 + np.cumsum(step) - step
    tail = fetch + step - 1
    rows = np.zeros((1 + int(step.sum()), len(Column)), np.int64)
    rows[:, Column.KIND] = Opcode.OTHER
    rows[:, Column.PLANES] = 1
    rows[0, Column.UNIT], rows[0, Column.FILL] = HOST, timing.host_cycles

    rows[fetch, Column.UNIT], rows[fetch, Column.KIND] = FETCH, Opcode.FETCH
    rows[fetch, Column.ADDRESS] = stream + np.arange(count) * array.instruction_bytes
    rows[fetch, Column.ROW_BYTES], rows[fetch, Column.ROWS] = array.instruction_bytes, 1

    padding = fetch[split] + 1
    rows[padding, Column.UNIT], rows[padding, Column.FILL] = LOAD, pads[split]

    rows[tail, Column.UNIT] = unit
    for column, field in ((Column.ADDRESS, Field.ADDRESS), (Column.ROW_BYTES, Field.RUN_BYTES),
                          (Column.ROWS, Field.RUNS), (Column.ROW_STRIDE, Field.RUN_STRIDE)):
        rows[tail, column] = np.where(moves, table[:, field], 0)
    multiplies = (kind == Kind.GEMM) | (kind == Kind.RESET)
    rows[tail, Column.FILL] = np.where(
        moves, 0, timing.instruction_cycles + timing.gemm_cycles * multiplies
        + np.where(split, 0, pads))
    rows[tail, Column.INTERVAL] = np.where(kind == Kind.ALU, array.alu_interval_cycles,
                                           array.gemm_interval_cycles)
    rows[tail, Column.TRIPS] = table[:, Field.TRIPS]
    rows[tail, Column.MACS] = (kind == Kind.GEMM) * table[:, Field.TRIPS] * array.macs_per_cycle
    return rows, _Places(fetch, fetch + 1, tail)


def _edges(table: np.ndarray, operations: np.ndarray, places: _Places,
           array: VtaArray) -> list[_Edges]:
    module = table[:, Field.MODULE]
    unit = operations[:, Column.UNIT]
    found = [_Edges("started", "host", np.array([0]), places.fetch[:1]),
             _Edges("fetched", "fetch", places.fetch, places.head)]
    for part in Module:
        own = np.flatnonzero(module == part)
        rows = np.unique(np.concatenate((places.head[own], places.tail[own])))
        turn = np.flatnonzero(unit[rows[1:]] != unit[rows[:-1]])
        found.append(_Edges(f"{part.name.lower()} turn", "dependence", rows[turn],
                            rows[turn + 1]))
        ahead = own[array.queue_depth:]
        found.append(_Edges(f"{part.name.lower()} queue", "buffer",
                            places.tail[own[:len(ahead)]], places.fetch[ahead]))
    for token, cause in _CAUSE.items():
        # Queues are first in, first out, so the n-th pop takes the n-th push.
        push = np.flatnonzero(table[:, Field.PUSH] >> token & 1)
        pop = np.flatnonzero(table[:, Field.POP] >> token & 1)
        found.append(_Edges(token.name.lower(), cause, places.tail[push], places.head[pop]))
    return found


def _connect(operations: np.ndarray, edges: list[_Edges]) -> tuple[Channel, ...]:
    """Set WAIT and SIGNAL, one channel for each meaning and pair of units."""
    channels: list[Channel] = []
    unit = operations[:, Column.UNIT]
    for group in edges:
        pairs = unit[group.source] * len(UNIT_NAMES) + unit[group.target]
        for pair in np.unique(pairs):
            source, target = divmod(int(pair), len(UNIT_NAMES))
            bit = np.int64(1 << min(len(channels), MAX_CHANNELS))
            channels.append(Channel(f"{group.name} {UNIT_NAMES[source]}-{UNIT_NAMES[target]}",
                                    source, target, 0, group.cause))
            chosen = pairs == pair
            operations[group.source[chosen], Column.SIGNAL] |= bit
            operations[group.target[chosen], Column.WAIT] |= bit
    if len(channels) > MAX_CHANNELS:
        raise ProgramError(f"channels: {len(channels)}, at most {MAX_CHANNELS}")
    return tuple(channels)
