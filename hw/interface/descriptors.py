"""The descriptor: one operation of a Program as 64 bytes, defined once for everything.

It does not execute or time descriptors. The C++ header (`hw.interface.header`), the
register-transfer record and the driver all read the field tables of this module;
nobody else numbers bits.

A descriptor is 512 bits, little-endian, eight beats of an 8-byte port. 64 bytes were chosen over
128: a convolution's arguments fit, a fetch is half a longest AXI3 burst, and command queues are
half as wide. Bits 0-63 are the header, 64-223 the predicted timing (carried so that a file holds
the whole Program; an engine ignores it), 224-511 the payload: arguments, and for transfers the
address pattern before them. Token masks are local: bit i of `wait` is the i-th channel that ends
at the unit, bit i of `signal` the i-th that starts there, in the Program's channel order.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np

from arch_models.fields import FieldError, build
from arch_models.files import parse_json
from cosim.program.table import (
    ARGUMENT_COUNT,
    ARGUMENTS,
    FLAG_FIRST,
    Channel,
    Column,
    Opcode,
    Program,
    Segment,
    Unit,
    UnitKind,
)

DESCRIPTOR_BYTES = 64
SEGMENT_BYTES = 16  # first, last, repeat, zero: four uint32
FILE_HEADER_BYTES = 64
FILE_MAGIC = b"CSPD"
FILE_VERSION = 1
MAX_LOCAL_CHANNELS = 16
TIMING_OFFSET = 64
PAYLOAD_OFFSET = 224


class DescriptorError(ValueError):
    """A program does not fit its descriptors, or bytes are no descriptors. Names the field."""


@dataclass(frozen=True, slots=True)
class Field:
    """`width` bits from bit `offset` of a descriptor; two's complement if `signed`."""

    name: str
    offset: int
    width: int
    signed: bool = False

    @property
    def lowest(self) -> int:
        """Smallest value that fits."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """Largest value that fits."""
        return (1 << (self.width - self.signed)) - 1


HEADER: tuple[Field, ...] = (
    Field("opcode", 0, 8), Field("unit", 8, 7), Field("first_in_layer", 15, 1),
    Field("layer", 16, 16), Field("wait", 32, 16), Field("signal", 48, 16),
)
TIMING: tuple[Field, ...] = (
    Field("fill", 64, 32), Field("interval", 96, 32), Field("trips", 128, 32),
    Field("drain", 160, 32), Field("macs", 192, 32),
)
TRANSFER: tuple[Field, ...] = (
    Field("address", 224, 32), Field("row_bytes", 256, 32), Field("rows", 288, 32),
    Field("row_stride", 320, 32, True), Field("planes", 352, 32),
    Field("plane_stride", 384, 32, True), Field("advance", 416, 32, True),
)
TRANSFER_ARGUMENTS_OFFSET = 448
TRANSFER_OPCODES = frozenset({Opcode.LOAD, Opcode.STORE, Opcode.FETCH})

_ONE_BIT = frozenset({"upsample", "first", "last", "relu", "pool", "add", "broadcast",
                      "film"})
_ONE_BYTE = frozenset({"buffer", "kernel_rows", "kernel_columns", "kernel", "stride", "padding",
                       "shift", "add_shift", "fraction_bits", "order"})
# Negative where a tile of an upsampled image begins at the second copy of a row or column.
_SIGNED_BYTE = frozenset({"pad_top", "pad_left", "pad_value", "zero_in", "zero_other"})
#: What is not zero in programs of designs with `zero_points` alone.
ZERO_POINT_ARGUMENTS = frozenset({"pad_value", "zero_in", "zero_other", "offset"})


def _width(name: str) -> tuple[int, bool]:
    if name in _ONE_BIT:
        return 1, False
    if name in _ONE_BYTE:
        return 8, False
    if name in _SIGNED_BYTE:
        return 8, True
    if "multiplier" in name or name == "offset":
        return 32, True
    return (24, False) if name.endswith("positions") else (16, False)


@cache
def argument_fields(opcode: Opcode) -> tuple[Field, ...]:
    """The functional arguments of an opcode, in the order of `ARGUMENTS`.

    Packed in that order: one-bit fields bit by bit, every other one from the next whole byte.
    Arguments that are not listed as narrower or wider take 16 bits, unsigned.
    """
    offset = TRANSFER_ARGUMENTS_OFFSET if opcode in TRANSFER_OPCODES else PAYLOAD_OFFSET
    found = []
    for name in ARGUMENTS[opcode]:
        width, signed = _width(name)
        if width > 1:
            offset = -(-offset // 8) * 8
        found.append(Field(name, offset, width, signed))
        offset += width
    if offset > DESCRIPTOR_BYTES * 8:
        raise DescriptorError(f"{opcode.name}: arguments end at bit {offset}, "
                              f"a descriptor has {DESCRIPTOR_BYTES * 8}")
    return tuple(found)


def local_channels(program: Program, unit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels that end at a unit and channels that start there, in order: its local masks.

    Raises `DescriptorError` if either list is longer than 16.
    """
    incoming = tuple(i for i, item in enumerate(program.channels) if item.target == unit)
    outgoing = tuple(i for i, item in enumerate(program.channels) if item.source == unit)
    for what, found in (("end", incoming), ("start", outgoing)):
        if len(found) > MAX_LOCAL_CHANNELS:
            raise DescriptorError(f"unit {program.units[unit].name!r}: {len(found)} channels "
                                  f"{what} there, at most {MAX_LOCAL_CHANNELS}")
    return incoming, outgoing


def encode(program: Program) -> bytes:
    """All rows of a program as descriptors, 64 bytes each, in table order.

    Raises `DescriptorError` naming the operation, field, value and range if a value does not
    fit, or if a column that the unit's kind does not use is not zero.
    """
    table = program.operations
    raw = np.zeros((len(table), DESCRIPTOR_BYTES), np.uint8)
    everything = np.arange(len(table))
    transfer = _transfers(program, table)
    flags = table[:, Column.FLAGS]
    _require(everything, "FLAGS", flags, 0, FLAG_FIRST)
    wait, signal = _local_masks(program, table)
    header = (table[:, Column.KIND], table[:, Column.UNIT], flags, table[:, Column.LAYER],
              wait, signal)
    for item, values in zip(HEADER, header, strict=True):
        _insert(raw, everything, item, values)
    for item in TIMING:
        _insert(raw, everything, item, table[:, Column[item.name.upper()]])
    for item in TRANSFER:
        values = table[:, Column[item.name.upper()]]
        rest = np.flatnonzero(~transfer)
        _require(rest, f"{item.name.upper()} of a compute operation", values[rest], 0, 0)
        rows = np.flatnonzero(transfer)
        _insert(raw, rows, item, values[rows])
    for opcode in map(Opcode, np.unique(table[:, Column.KIND])):
        rows = np.flatnonzero(table[:, Column.KIND] == opcode)
        fields = argument_fields(opcode)
        for index in range(ARGUMENT_COUNT):
            values = program.arguments[rows, index].astype(np.int64)
            if index < len(fields):
                _insert(raw, rows, fields[index], values)
            else:
                _require(rows, f"argument {index} of {opcode.name}", values, 0, 0)
    return raw.tobytes()


def decode(data: bytes, units: tuple[Unit, ...], channels: tuple[Channel, ...]
           ) -> tuple[np.ndarray, np.ndarray]:
    """Operations and arguments from descriptors: the inverse of `encode`, exactly.

    Raises `DescriptorError` if the length is no multiple of 64, or an opcode or unit is unknown.
    """
    if len(data) % DESCRIPTOR_BYTES:
        raise DescriptorError(f"descriptors: {len(data)} bytes, must be a multiple of "
                              f"{DESCRIPTOR_BYTES}; the file is truncated")
    raw = np.frombuffer(data, np.uint8).reshape(-1, DESCRIPTOR_BYTES)
    everything = np.arange(len(raw))
    table = np.zeros((len(raw), len(Column)), np.int64)
    arguments = np.zeros((len(raw), ARGUMENT_COUNT), np.int32)
    columns = (Column.KIND, Column.UNIT, Column.FLAGS, Column.LAYER, Column.WAIT, Column.SIGNAL)
    for item, column in zip(HEADER, columns, strict=True):
        table[:, column] = _extract(raw, everything, item)
    _require(everything, "opcode", table[:, Column.KIND], 0, max(Opcode))
    _require(everything, "unit", table[:, Column.UNIT], 0, len(units) - 1)
    shell = Program("", units, channels, (), table, arguments, ())
    table, arguments = table.copy(), arguments.copy()
    table[:, Column.WAIT], table[:, Column.SIGNAL] = _global_masks(shell, table)
    for item in TIMING:
        table[:, Column[item.name.upper()]] = _extract(raw, everything, item)
    rows = np.flatnonzero(_transfers(shell, table))
    for item in TRANSFER:
        table[rows, Column[item.name.upper()]] = _extract(raw, rows, item)
    for opcode in map(Opcode, np.unique(table[:, Column.KIND])):
        rows = np.flatnonzero(table[:, Column.KIND] == opcode)
        for index, item in enumerate(argument_fields(opcode)):
            arguments[rows, index] = _extract(raw, rows, item)
    return table, arguments


def pack(program: Program) -> bytes:
    """A descriptor file: header of 64 bytes, segment table (padded to 64), descriptors.

    Header: magic, uint16 version, uint16 descriptor bytes, uint32 operations, uint32 segments,
    uint32 offset of the segments, uint32 offset of the descriptors; the rest is zero.
    """
    segments = b"".join(struct.pack("<4I", part.first, part.last, part.repeat, 0)
                        for part in program.segments)
    segments += bytes(-len(segments) % FILE_HEADER_BYTES)
    header = struct.pack("<4sHHIIII", FILE_MAGIC, FILE_VERSION, DESCRIPTOR_BYTES,
                         len(program.operations), len(program.segments), FILE_HEADER_BYTES,
                         FILE_HEADER_BYTES + len(segments))
    return header.ljust(FILE_HEADER_BYTES, b"\0") + segments + encode(program)


def unpack(data: bytes, shell: str) -> Program:
    """The program of a descriptor file and its shell (`shell_text`), equal to what was packed."""
    if len(data) < FILE_HEADER_BYTES or data[:4] != FILE_MAGIC:
        raise DescriptorError("descriptor file: does not start with a header of "
                              f"{FILE_HEADER_BYTES} bytes and the magic {FILE_MAGIC.decode()!r}")
    _, version, size, operations, count, first, start = struct.unpack("<4sHHIIII", data[:24])
    if (version, size) != (FILE_VERSION, DESCRIPTOR_BYTES):
        raise DescriptorError(f"descriptor file: version {version} with {size}-byte descriptors, "
                              f"must be {FILE_VERSION} with {DESCRIPTOR_BYTES}")
    if len(data) != start + operations * DESCRIPTOR_BYTES:
        raise DescriptorError(f"descriptor file: {len(data)} bytes, its header says "
                              f"{start + operations * DESCRIPTOR_BYTES}; the file is truncated")
    if first + count * SEGMENT_BYTES > start:
        raise DescriptorError(f"descriptor file: {count} segments from {first} on, must end before "
                              f"the descriptors at {start}")
    try:
        parts = build(Shell, parse_json(shell, "program"), "program")
    except FieldError as error:
        raise DescriptorError(str(error)) from None
    segments = tuple(Segment(*struct.unpack_from("<3I", data, first + index * SEGMENT_BYTES))
                     for index in range(count))
    table, arguments = decode(data[start:], parts.units, parts.channels)
    return Program(parts.name, parts.units, parts.channels, parts.layers, table, arguments,
                   segments)


@dataclass(frozen=True)
class Shell:
    """What `shell_text` writes."""

    name: str
    units: tuple[Unit, ...]
    channels: tuple[Channel, ...]
    layers: tuple[str, ...]


def shell_text(program: Program) -> str:
    """Units, channels and layer names of a program as JSON: what descriptors do not hold."""
    return json.dumps({"name": program.name, "units": [asdict(unit) for unit in program.units],
                       "channels": [asdict(channel) for channel in program.channels],
                       "layers": list(program.layers)}, indent=1) + "\n"


def _transfers(program: Program, table: np.ndarray) -> np.ndarray:
    kinds = np.array([unit.kind for unit in program.units], np.int64)
    return kinds[table[:, Column.UNIT]] != UnitKind.COMPUTE


def _local_masks(program: Program, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """WAIT and SIGNAL with the bits of each unit's own channels."""
    return _renumbered(program, table, to_local=True)


def _global_masks(program: Program, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """WAIT and SIGNAL with the bits of the program's channels."""
    return _renumbered(program, table, to_local=False)


def _renumbered(program: Program, table: np.ndarray, to_local: bool
                ) -> tuple[np.ndarray, np.ndarray]:
    masks = (np.zeros(len(table), np.int64), np.zeros(len(table), np.int64))
    for unit in range(len(program.units)):
        rows = table[:, Column.UNIT] == unit
        for local, column, mask in zip(local_channels(program, unit),
                                       (Column.WAIT, Column.SIGNAL), masks, strict=True):
            for bit, channel in enumerate(local):
                source, target = (channel, bit) if to_local else (bit, channel)
                mask[rows] |= ((table[rows, column] >> source) & 1) << target
    return masks


def _require(rows: np.ndarray, what: str, values: np.ndarray, low: int, high: int) -> None:
    bad = (values < low) | (values > high)
    if bad.any():
        index = int(np.argmax(bad))
        rule = f"{low}" if low == high else f"from {low} to {high}"
        raise DescriptorError(f"operation {int(rows[index])}: {what} is {int(values[index])}, "
                              f"must be {rule}")


def _insert(raw: np.ndarray, rows: np.ndarray, item: Field, values: np.ndarray) -> None:
    """Write a field. Fields of a byte or more lie on byte boundaries; narrower ones in a byte."""
    _require(rows, item.name, values, item.lowest, item.highest)
    bits = (values & ((1 << item.width) - 1)) << (item.offset % 8)
    for byte in range(-(-(item.offset % 8 + item.width) // 8)):
        raw[rows, item.offset // 8 + byte] |= ((bits >> (8 * byte)) & 255).astype(np.uint8)


def _extract(raw: np.ndarray, rows: np.ndarray, item: Field) -> np.ndarray:
    bits = np.zeros(len(rows), np.int64)
    for byte in range(-(-(item.offset % 8 + item.width) // 8)):
        bits |= raw[rows, item.offset // 8 + byte].astype(np.int64) << (8 * byte)
    value = (bits >> (item.offset % 8)) & ((1 << item.width) - 1)
    if item.signed:
        value -= (value >> (item.width - 1)) << item.width
    return value
