"""Seeded random programs that can always finish, for tests and validations.

It does not judge results; tests compare executors, bounds and contracts on them.

Channels may point forward or back. A program is finishable by construction: operations are drawn
one at a time in an order that an untimed run could take, and an operation waits only for tokens
that exist at that point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arch_models.memory import Memory, Port
from cosim.program import (
    ARGUMENT_COUNT,
    Channel,
    Column,
    Opcode,
    Program,
    Segment,
    Unit,
    UnitKind,
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the drawn programs are."""

    operations: int = 40
    repeats: int = 4
    row_bytes: int = 700


def random_memory(seed: int, model: str = "flat") -> Memory:
    """Two to four ports with random widths and latencies."""
    draw = np.random.default_rng([seed, 1])
    ports = tuple(
        Port(f"port{index}", int(draw.choice([4, 8])), int(draw.integers(1, 30)),
             int(draw.integers(0, 12)), int(draw.integers(0, 3)))
        for index in range(int(draw.integers(1, 5))))
    return Memory(model, ports)


def random_program(seed: int, ports: int, sizes: Sizes = Sizes()) -> Program:
    """A program that every executor can finish. Equal seeds give equal programs."""
    draw = np.random.default_rng([seed, 0])
    units = _units(draw, ports)
    channels = _channels(draw, len(units))
    layers = tuple(f"layer{index}" for index in range(int(draw.integers(1, 5))))
    rows: list[np.ndarray] = []
    segments: list[Segment] = []
    tokens = [channel.initial for channel in channels]
    for _ in range(int(draw.integers(1, 4))):
        first = len(rows)
        balanced = bool(draw.integers(2))
        count = int(draw.integers(1, max(2, sizes.operations // 2)))
        held = list(tokens)
        for _ in range(count):
            rows.append(_operation(draw, units, channels, len(layers), held, sizes))
        repeat = 1
        if balanced and all(now >= before for now, before in zip(held, tokens, strict=True)):
            # A round that leaves no channel poorer can run again.
            repeat = int(draw.integers(1, sizes.repeats + 1))
        tokens = [before + (now - before) * repeat
                  for now, before in zip(held, tokens, strict=True)]
        segments.append(Segment(first, len(rows), repeat))
    operations = np.array(rows, np.int64)
    return Program(f"random-{seed}", units, channels, layers, operations,
                   np.zeros((len(rows), ARGUMENT_COUNT), np.int32), tuple(segments))


def _units(draw: np.random.Generator, ports: int) -> tuple[Unit, ...]:
    units = []
    for index in range(int(draw.integers(1, 8))):
        kind = UnitKind(int(draw.integers(3)))
        if kind == UnitKind.COMPUTE:
            units.append(Unit(f"unit{index}", kind))
            continue
        units.append(Unit(
            f"unit{index}", kind, port=int(draw.integers(ports)),
            outstanding=int(draw.integers(1, 9)),
            max_burst_beats=int(draw.choice([1, 4, 8, 16])),
            setup_cycles=int(draw.integers(0, 6)), tail_cycles=int(draw.integers(0, 4)),
            overlap_runs=bool(draw.integers(2)), run_setup_cycles=int(draw.integers(0, 4))))
    return tuple(units)


def _channels(draw: np.random.Generator, units: int) -> tuple[Channel, ...]:
    count = int(draw.integers(0, 2 * units + 1))
    return tuple(
        Channel(f"channel{index}", int(draw.integers(units)), int(draw.integers(units)),
                int(draw.integers(0, 4)))
        for index in range(count))


def _operation(draw: np.random.Generator, units: tuple[Unit, ...], channels: tuple[Channel, ...],
               layers: int, tokens: list[int], sizes: Sizes) -> np.ndarray:
    """One row; `tokens` becomes what an untimed run holds after it."""
    row = np.zeros(len(Column), np.int64)
    index = int(draw.integers(len(units)))
    row[Column.UNIT] = index
    row[Column.KIND] = Opcode.OTHER
    row[Column.LAYER] = draw.integers(layers)
    row[Column.FLAGS] = draw.integers(2)
    for bit, channel in enumerate(channels):
        if channel.target == index and tokens[bit] > 0 and draw.random() < 0.7:
            row[Column.WAIT] |= 1 << bit
            tokens[bit] -= 1
        if channel.source == index and draw.random() < 0.7:
            row[Column.SIGNAL] |= 1 << bit
            tokens[bit] += 1
    if units[index].kind == UnitKind.COMPUTE:
        row[Column.FILL] = draw.integers(0, 20)
        row[Column.INTERVAL] = draw.integers(1, 4)
        row[Column.TRIPS] = draw.integers(1, 60)
        row[Column.DRAIN] = draw.integers(0, 10)
        row[Column.MACS] = draw.integers(0, 1000)
        return row
    aligned = 8 if draw.random() < 0.6 else 1
    row[Column.ADDRESS] = draw.integers(0, 1 << 18) // aligned * aligned
    row[Column.ROW_BYTES] = draw.integers(1, sizes.row_bytes)
    row[Column.ROWS] = draw.integers(1, 4)
    row[Column.PLANES] = draw.integers(1, 3)
    row[Column.ROW_STRIDE] = draw.integers(0, 6000) // aligned * aligned
    row[Column.PLANE_STRIDE] = draw.integers(0, 20000) // aligned * aligned
    row[Column.ADVANCE] = draw.integers(0, 5000) // aligned * aligned
    return row
