"""The Program: a flat, read-only table of integers that says what every unit does and waits for.

It does not say how long a memory transfer takes (the memory does) and holds no Python callables.

One row is one operation. A unit runs its own operations in table order; between units, order
comes only from token channels. An operation takes one token from every channel in its `WAIT`
mask when it starts and puts one token into every channel in its `SIGNAL` mask when it ends.
A ping-pong buffer is a channel back from the consumer that starts with two tokens.

A transfer whose TRIPS are not 0 asks no memory: it moves between two memories on chip, in FILL +
INTERVAL * TRIPS + DRAIN cycles, TRIPS of them with a beat.

Half-open time: an operation that occupies cycles [start, end) has its tokens visible at `end`,
so a dependent operation may start at `end`. No operation takes zero cycles.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from arch_models.overlay import Engine, Overlay

MAX_CHANNELS = 62  # the masks are signed 64-bit integers


class ProgramError(ValueError):
    """A program breaks a rule. The message names the operation, the value and the rule."""


class UnitKind(IntEnum):
    """Which closed timing rule a unit follows."""

    COMPUTE = 0  # engines and the host: FILL + INTERVAL * TRIPS + DRAIN
    READ = 1  # a read master: bursts from memory into a buffer
    WRITE = 2  # a write master: bursts from a buffer into memory


class Column(IntEnum):
    """The columns of `Program.operations` (int64). Sizes are bytes, times are fabric cycles."""

    UNIT = 0
    KIND = 1  # an `Opcode`: what the hardware does; the executors ignore it
    LAYER = 2
    FLAGS = 3  # bit 0: first operation of its unit in its layer (waiting for it is idleness)
    WAIT = 4  # mask of channels, one token each
    SIGNAL = 5
    # transfers: `PLANES` x `ROWS` runs of `ROW_BYTES`
    ADDRESS = 6
    ROW_BYTES = 7
    ROWS = 8
    ROW_STRIDE = 9
    PLANES = 10
    PLANE_STRIDE = 11
    # compute, and transfers on chip
    FILL = 12
    INTERVAL = 13
    TRIPS = 14
    DRAIN = 15
    MACS = 16  # useful multiply-accumulates
    ADVANCE = 17  # bytes added to ADDRESS at each repeat of the segment


FLAG_FIRST = 1


class Opcode(IntEnum):
    """What an operation does to the data. `ARGUMENTS` names its functional arguments."""

    LOAD = 0
    STORE = 1
    CONVOLUTION = 2
    ADD = 3
    MULTIPLY = 4
    AFFINE = 5
    FLOW_SUM = 6
    LOOKUP = 7
    AVERAGE_POOL = 8
    MAX_POOL = 9
    UPSAMPLE = 10
    SOFTMAX = 11
    GRID_SAMPLE = 12
    GROUP_NORM = 13
    HOST = 14
    FETCH = 15
    OTHER = 16  # timed only; no functional meaning (accelerators that are not emitted)
    GROUP_SUMS = 17  # the first pass of a group norm; GROUP_NORM is the second
    DEPTHWISE = 18
    NARROW_CONVOLUTION = 19  # CONVOLUTION with weights of 4 bits, two a byte of WEIGHT


#: What the convolution engine runs.
CONVOLUTIONS = (Opcode.CONVOLUTION, Opcode.NARROW_CONVOLUTION)


class Buffer(IntEnum):
    """The on-chip memory a LOAD writes."""

    INPUT = 0
    WEIGHT = 1
    OUTPUT = 2  # a skip tile, added in place by a fused convolution
    CONVOLUTION_PARAMETERS = 3
    VECTOR_PARAMETERS = 4
    TABLE = 5
    NORM_PARAMETERS = 6
    DEPTHWISE_PARAMETERS = 7
    DEPTHWISE_WEIGHTS = 8


class BeatMemory(NamedTuple):
    """How many beats a memory holds: a field of the overlay over `per_beat`, `times` other ones.

    `engine`: without it in fabric there is no such memory; "": several engines read it.
    """

    field: str
    per_beat: int = 1
    times: tuple[str, ...] = ()
    engine: str = ""


#: Memories of the weight master in which a word is a beat.
BEAT_MEMORIES: dict[Buffer, BeatMemory] = {
    Buffer.CONVOLUTION_PARAMETERS: BeatMemory("parameter_entries"),
    Buffer.VECTOR_PARAMETERS: BeatMemory("vector_entries"),
    Buffer.TABLE: BeatMemory("table_bytes", 8),
    Buffer.NORM_PARAMETERS: BeatMemory("vector_entries", engine="norm"),
    Buffer.DEPTHWISE_PARAMETERS: BeatMemory("vector_entries", engine="depthwise"),
    Buffer.DEPTHWISE_WEIGHTS: BeatMemory("vector_entries", times=("depthwise_taps",),
                                         engine="depthwise"),
}


def beats_of(buffer: Buffer, overlay: Overlay) -> int:
    """Beats of one of `BEAT_MEMORIES` in an overlay; 0 if it has no engine that reads them."""
    memory = BEAT_MEMORIES[buffer]
    if memory.engine and Engine(memory.engine) not in overlay.engines:
        return 0
    return -(-getattr(overlay, memory.field) // memory.per_beat) * math.prod(
        getattr(overlay, name) for name in memory.times)


class WeightOrder(IntEnum):
    """How a LOAD fills the words of WEIGHT. Other buffers take STORED."""

    STORED = 0  # as the bytes lie in DRAM
    ROWS = 1  # an activation: its positions are output channels, its channels input channels
    COLUMNS = 2  # an activation: its channels are output channels, its positions input channels


#: Words of NORM_PARAMETERS before those of the channels: epsilon, and the two film factors.
NORM_CONSTANTS = 2

#: Functional arguments of each opcode, in the order of `Program.arguments`. docs/design.md
#: ("The overlay's operations") says what each means; units are beats (8 bytes), buffer words
#: and elements as named there.
ARGUMENTS: dict[Opcode, tuple[str, ...]] = {
    Opcode.LOAD: ("buffer", "base", "positions", "order"),
    Opcode.STORE: ("base", "positions"),
    Opcode.CONVOLUTION: (
        "in_base", "in_rows", "in_columns", "in_words", "weight_base", "parameter_base",
        "out_base", "out_rows", "out_columns", "out_words", "kernel_rows", "kernel_columns",
        "stride", "pad_top", "pad_left", "upsample", "first", "last", "relu", "pool", "add",
        "add_multiplier_new", "add_multiplier_skip", "add_shift", "pad_value",
    ),
    Opcode.ADD: ("in_base", "other_base", "out_base", "positions", "planes",
                 "multiplier_in", "multiplier_other", "shift", "offset"),
    Opcode.MULTIPLY: ("in_base", "other_base", "out_base", "positions", "planes", "broadcast",
                      "multiplier", "shift", "zero_in", "zero_other", "offset"),
    Opcode.AFFINE: ("in_base", "out_base", "positions", "planes", "parameter_base", "relu"),
    Opcode.FLOW_SUM: ("in_base", "out_base", "columns", "positions", "channels",
                      "parameter_base", "first_row", "fraction_bits"),
    Opcode.LOOKUP: ("in_base", "out_base", "positions", "planes", "table_base"),
    Opcode.AVERAGE_POOL: ("in_base", "in_rows", "in_columns", "planes", "out_base",
                          "kernel", "stride"),
    Opcode.MAX_POOL: ("in_base", "in_rows", "in_columns", "planes", "out_base",
                      "kernel", "stride", "padding"),
    Opcode.UPSAMPLE: ("in_base", "in_rows", "in_columns", "planes", "out_base"),
    Opcode.SOFTMAX: ("in_base", "out_base", "positions", "channels", "table_base",
                     "fraction_bits"),
    Opcode.GRID_SAMPLE: ("in_base", "in_rows", "in_columns", "planes", "grid_base", "positions",
                         "out_base", "fraction_bits"),
    Opcode.GROUP_SUMS: ("in_base", "positions", "planes", "channels", "group_channels",
                        "parameter_base", "gain_base", "offset_base", "all_positions", "first",
                        "last", "film"),
    Opcode.GROUP_NORM: ("in_base", "in_positions", "out_base", "positions", "planes", "relu"),
    Opcode.DEPTHWISE: ("in_base", "in_rows", "in_columns", "planes", "weight_base",
                       "parameter_base", "out_base", "row_span", "column_span", "kernel_rows",
                       "kernel_columns", "stride", "pad_top", "pad_left", "relu", "pad_value"),
    Opcode.HOST: ("layer",),
    Opcode.FETCH: (),
    Opcode.OTHER: (),
}
ARGUMENTS[Opcode.NARROW_CONVOLUTION] = ARGUMENTS[Opcode.CONVOLUTION]
ARGUMENT_COUNT = max(len(names) for names in ARGUMENTS.values())


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that runs operations in order.

    For READ and WRITE units: `port` indexes the memory's ports, `outstanding` bounds bursts in
    flight, `max_burst_beats` the burst length (AXI3: 16), `setup_cycles` the cycles from the
    start of an operation to its first request, `tail_cycles` from its last response to its end.
    `overlap_runs`: may the first burst of a run be requested while the run before it is still
    in flight (a descriptor DMA: yes; a `memcpy` loop in HLS: no). `run_setup_cycles` is added
    before the first request of every run but the first.
    """

    name: str
    kind: UnitKind
    port: int = -1
    outstanding: int = 1
    max_burst_beats: int = 16
    setup_cycles: int = 1
    tail_cycles: int = 1
    overlap_runs: bool = True
    run_setup_cycles: int = 0


@dataclass(frozen=True, slots=True)
class Channel:
    """A token FIFO from one unit to another. `cause` names the stall of a unit that waits here
    (input, weights, output, barrier, host, fetch, dependence)."""

    name: str
    source: int
    target: int
    initial: int = 0
    cause: str = "dependence"


@dataclass(frozen=True, slots=True)
class Segment:
    """Operations [first, last) run `repeat` times; segments follow one another in every unit.

    Each unit walks the segments on its own. At repeat i an operation's address is
    ADDRESS + i * ADVANCE.
    """

    first: int
    last: int
    repeat: int = 1


@dataclass(frozen=True)
class Program:
    """What the hardware does, operation by operation. See the module docstring for the meaning.

    `operations`: int64 (count, len(Column)); `arguments`: int32 (count, ARGUMENT_COUNT).
    """

    name: str
    units: tuple[Unit, ...]
    channels: tuple[Channel, ...]
    layers: tuple[str, ...]
    operations: np.ndarray
    arguments: np.ndarray
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        self.operations.setflags(write=False)
        self.arguments.setflags(write=False)

    @property
    def operation_count(self) -> int:
        """Operations executed, repeats included."""
        return sum((part.last - part.first) * part.repeat for part in self.segments)

    def content_hash(self) -> str:
        """SHA-256 of everything that has a meaning (not of the name)."""
        digest = hashlib.sha256()
        digest.update(repr((self.units, self.channels, self.layers, self.segments)).encode())
        digest.update(np.ascontiguousarray(self.operations).tobytes())
        digest.update(np.ascontiguousarray(self.arguments).tobytes())
        return digest.hexdigest()


def flat(program: Program) -> Program:
    """The same program with every repeat written out; equal in every result."""
    parts, arguments = [], []
    for segment in program.segments:
        rows = program.operations[segment.first : segment.last]
        for index in range(segment.repeat):
            copy = rows.copy()
            copy[:, Column.ADDRESS] += index * rows[:, Column.ADVANCE]
            copy[:, Column.ADVANCE] = 0
            parts.append(copy)
            arguments.append(program.arguments[segment.first : segment.last])
    operations = np.concatenate(parts) if parts else program.operations[:0].copy()
    functional = np.concatenate(arguments) if arguments else program.arguments[:0].copy()
    return Program(program.name, program.units, program.channels, program.layers, operations,
                   functional, (Segment(0, len(operations)),))


def runs(operation: Sequence[int], address: int) -> Iterator[int]:
    """Start addresses of the runs of a transfer, given its row and the address of its first."""
    for plane in range(operation[Column.PLANES]):
        for row in range(operation[Column.ROWS]):
            yield (address + plane * operation[Column.PLANE_STRIDE]
                   + row * operation[Column.ROW_STRIDE])


def layer_macs(program: Program) -> np.ndarray:
    """(layers,) useful multiply-accumulates over all repeats; exact up to 2^53."""
    macs = np.zeros(len(program.layers))
    for part in program.segments:
        rows = program.operations[part.first : part.last]
        macs += np.bincount(rows[:, Column.LAYER], rows[:, Column.MACS].astype(np.float64),
                            len(macs)) * part.repeat
    return macs.astype(np.int64)


def executed_bytes(program: Program) -> np.ndarray:
    """int64 (operations): bytes that each transfer asks of memory, times the repeats of its
    segment; of what is no such transfer the number means nothing."""
    table = program.operations
    repeats = np.zeros(len(table), np.int64)
    for part in program.segments:
        repeats[part.first : part.last] = part.repeat
    size = table[:, Column.ROW_BYTES] * table[:, Column.ROWS] * table[:, Column.PLANES]
    return np.where(table[:, Column.TRIPS] > 0, 0, size * repeats)


def layer_bytes(program: Program) -> np.ndarray:
    """(layers, units) bytes that each master asks of memory over all repeats; zero for compute
    units."""
    table = program.operations
    units = len(program.units)
    size = executed_bytes(program)
    cell = table[:, Column.LAYER] * units + table[:, Column.UNIT]
    # Sums of bytes stay far below 2^53, so counting in float64 is exact.
    moved = np.bincount(cell, size, len(program.layers) * units).astype(np.int64)
    moved = moved.reshape(len(program.layers), units)
    moved[:, [unit.kind == UnitKind.COMPUTE for unit in program.units]] = 0
    return moved


def rows_by_unit(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """Each unit's rows in order: (rows, starts), both int64.

    Unit u runs rows[starts[s, u] : starts[s, u + 1]] in segment s; `starts` is
    (segments, units + 1).
    """
    units = len(program.units)
    rows = np.empty(len(program.operations), np.int64)
    starts = np.empty((len(program.segments), units + 1), np.int64)
    for index, part in enumerate(program.segments):
        unit = program.operations[part.first : part.last, Column.UNIT]
        # Numbers of a byte or two are sorted by their digits.
        order = np.argsort(unit.astype(np.min_scalar_type(units)), kind="stable")
        rows[part.first : part.last] = part.first + order
        starts[index, 0] = part.first
        starts[index, 1:] = part.first + np.bincount(unit, minlength=units).cumsum()
    return rows, starts
