"""Hand-made programs: one tile through one engine, written operation by operation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cosim.lowering.placement import TensorPlace
from cosim.program.table import (
    ARGUMENT_COUNT,
    ARGUMENTS,
    Buffer,
    Channel,
    Column,
    Opcode,
    Program,
    Segment,
    Unit,
    UnitKind,
)

UNITS = (Unit("input", UnitKind.READ, 0), Unit("weight", UnitKind.READ, 1),
         Unit("output", UnitKind.WRITE, 2), Unit("engine", UnitKind.COMPUTE))
INPUT, WEIGHT, OUTPUT, ENGINE = range(4)
CHANNELS = (Channel("input filled", INPUT, ENGINE, 0, "input"),
            Channel("input free", ENGINE, INPUT, 2, "buffer"),
            Channel("weight filled", WEIGHT, ENGINE, 0, "weights"),
            Channel("weight free", ENGINE, WEIGHT, 2, "buffer"),
            Channel("output filled", ENGINE, OUTPUT, 0, "data"),
            Channel("output free", OUTPUT, ENGINE, 2, "output"))
IN_FILLED, IN_FREE, WEIGHT_FILLED, WEIGHT_FREE, OUT_FILLED, OUT_FREE = (1 << i for i in range(6))


def planes_of(channels: int) -> int:
    return -(-channels // 8)


def blocks(tensor: np.ndarray) -> np.ndarray:
    """int8 (channels, rows, columns) as DRAM bytes [plane][row][column][8 channels]."""
    channels, rows, columns = tensor.shape
    padded = np.zeros((planes_of(channels) * 8, rows, columns), np.int8)
    padded[:channels] = tensor
    return padded.reshape(-1, 8, rows, columns).transpose(0, 2, 3, 1).reshape(-1).view(np.uint8)


def grid_blocks(grid: np.ndarray) -> np.ndarray:
    """int16 (2, rows, columns) as DRAM bytes, (x, y, 0, 0) a position."""
    wide = np.zeros((*grid.shape[1:], 4), np.int16)
    wide[..., :2] = np.moveaxis(grid, 0, 2)
    return wide.reshape(-1).view(np.uint8)


def plain_place(address: int, channels: int, rows: int, columns: int,
                bits: int = 8) -> TensorPlace:
    """A tensor stored by itself: 8 channels a plane, or for 16 bits one (x, y) pair a plane."""
    lanes, step = (2, 4) if bits == 16 else (8, 8)
    places = tuple(channel // lanes * step + channel % lanes for channel in range(channels))
    return TensorPlace(address, channels, rows, columns, bits, -(-channels // lanes), 8, places)


def unblocked(data: np.ndarray, channels: int, rows: int, columns: int) -> np.ndarray:
    """The inverse of `blocks`."""
    shaped = data.view(np.int8).reshape(-1, rows, columns, 8).transpose(0, 3, 1, 2)
    return shaped.reshape(-1, rows, columns)[:channels]


def parameter_bytes(offset: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    entries = np.zeros(len(offset), np.dtype([("offset", "<i4"), ("multiplier", "<i2"),
                                              ("shift", "u1"), ("zero", "u1")]))
    entries["offset"], entries["multiplier"], entries["shift"] = offset, multiplier, shift
    return entries.view(np.uint8)


def weight_bytes(weights: np.ndarray, tm: int, tn: int) -> np.ndarray:
    """[out_word][in_word][ky][kx][m][n], zeros at padded channels."""
    out, inner, rows, columns = weights.shape
    padded = np.zeros((-(-out // tm) * tm, -(-inner // tn) * tn, rows, columns), np.int8)
    padded[:out, :inner] = weights
    shaped = padded.reshape(-1, tm, padded.shape[1] // tn, tn, rows, columns)
    return shaped.transpose(0, 2, 4, 5, 1, 3).reshape(-1).view(np.uint8)


@dataclass
class Sheet:
    """Collects rows and a memory image."""

    rows: list[np.ndarray] = field(default_factory=list)
    arguments: list[np.ndarray] = field(default_factory=list)
    memory: list[np.ndarray] = field(default_factory=list)
    size: int = 0

    def place(self, data: np.ndarray) -> int:
        """Put bytes in memory, 64-byte aligned; their address."""
        address = self.size
        padded = np.zeros(-(-data.size // 64) * 64, np.uint8)
        padded[: data.size] = data
        self.memory.append(padded)
        self.size += padded.size
        return address

    def row(self, unit: int, opcode: Opcode, values: dict[str, int], wait: int = 0,
            signal: int = 0, **columns: int) -> None:
        row = np.zeros(len(Column), np.int64)
        row[[Column.UNIT, Column.KIND, Column.WAIT, Column.SIGNAL]] = unit, opcode, wait, signal
        if unit == ENGINE:
            row[Column.TRIPS] = 1
        for name, value in columns.items():
            row[Column[name]] = value
        self.rows.append(row)
        functional = np.zeros(ARGUMENT_COUNT, np.int32)
        for name, value in values.items():
            functional[ARGUMENTS[opcode].index(name)] = value
        self.arguments.append(functional)

    def load(self, address: int, planes: int, positions: int, base: int = 0,
             buffer: Buffer = Buffer.INPUT, signal: int = 0) -> None:
        """A whole tensor that lies contiguously."""
        self.row(INPUT, Opcode.LOAD, {"buffer": buffer, "base": base, "positions": positions},
                 0, signal, ADDRESS=address, ROW_BYTES=positions * 8, ROWS=1, PLANES=planes,
                 PLANE_STRIDE=positions * 8)

    def load_block(self, data: np.ndarray, buffer: Buffer, base: int = 0,
                   signal: int = 0) -> None:
        self.row(WEIGHT, Opcode.LOAD, {"buffer": buffer, "base": base}, 0, signal,
                 ADDRESS=self.place(data), ROW_BYTES=data.size, ROWS=1, PLANES=1)

    def store(self, address: int, planes: int, positions: int, base: int = 0) -> None:
        self.row(OUTPUT, Opcode.STORE, {"base": base, "positions": positions}, OUT_FILLED,
                 OUT_FREE, ADDRESS=address, ROW_BYTES=positions * 8, ROWS=1, PLANES=planes,
                 PLANE_STRIDE=positions * 8)

    def program(self) -> Program:
        return Program("tiny", UNITS, CHANNELS, ("layer",), np.array(self.rows),
                       np.array(self.arguments), (Segment(0, len(self.rows)),))

    def image(self) -> np.ndarray:
        return np.concatenate(self.memory)
