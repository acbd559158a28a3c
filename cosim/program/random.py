"""Seeded random programs that can always finish, for tests and validations.

It does not judge results; tests compare executors, bounds and contracts on them.

Channels may point forward or back. A program is finishable by construction: operations are drawn
one at a time in an order that an untimed run could take, and an operation waits only for tokens
that exist at that point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arch_models.memory import Ddr3Timing, Memory, Port, Traffic
from cosim.program.table import (
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
    """How large the drawn programs are; `on_chip`: the share of transfers that ask no memory."""

    operations: int = 40
    repeats: int = 4
    row_bytes: int = 700
    on_chip: float = 0.0


def random_memory(seed: int, model: str = "flat") -> Memory:
    """One to four ports with random widths, latencies and depths; a random DRAM behind them.

    `model`: `flat`, `ddr3`, or `ddr4` for that with bank groups.
    """
    draw = np.random.default_rng([seed, 1])

    def pick(low: int, high: int) -> int:
        return int(draw.integers(low, high))

    ports = tuple(
        Port(f"port{index}", int(draw.choice([4, 8, 16])), pick(1, 30), pick(0, 12), pick(0, 3),
             pick(0, 4), pick(1, 20), pick(1, 20), pick(1, 20), pick(1, 5), pick(1, 5))
        for index in range(pick(1, 5)))
    if model == "flat":
        return Memory(model, ports)
    ddr = Ddr3Timing(
        clock_hz=int(draw.choice([400, 525])), fabric_hz=int(draw.choice([50, 100, 150, 525])),
        t_rcd=pick(3, 9), t_rp=pick(3, 9), t_ras=pick(10, 20), t_rc=pick(20, 30),
        t_rrd=pick(2, 7), t_faw=pick(10, 25), t_ccd=4, read_latency=pick(4, 9),
        rd2wr=pick(4, 9), wr2rd=pick(8, 16), rd2pre=pick(2, 6), wr2pre=pick(8, 20),
        t_refi=pick(300, 900), t_rfc=pick(20, 160), read_starve=pick(8, 100),
        write_starve=pick(8, 100), read_run=pick(1, 12), write_run=pick(1, 12),
        idle_gap=pick(0, 3), read_entries=pick(4, 33), write_entries=pick(4, 33),
        bypass_transactions=pick(0, 64), write_gap_eighths=pick(0, 5), transaction_bytes=16,
        row_bytes=int(draw.choice([512, 2048])), banks=int(draw.choice([4, 8, 16])),
        pipeline_clocks=pick(0, 6), word_clocks_numerator=pick(0, 4),
        word_clocks_denominator=pick(1, 3))
    if model == "ddr4":
        ddr = replace(ddr, bank_groups=int(draw.choice([2, 4])), group_bit=pick(4, 8),
                      t_ccd_l=pick(4, 8), t_rrd_l=ddr.t_rrd + pick(0, 3),
                      wr2rd_l=ddr.wr2rd + pick(0, 6))
        model = "ddr3"
    background = tuple(
        Traffic(f"source{index}", pick(20, 300), pick(1, 65), bool(pick(0, 2)), 1 << 20)
        for index in range(pick(0, 3)))
    return Memory(model, ports, ddr, background)


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
    if sizes.on_chip and draw.random() < sizes.on_chip:
        row[Column.FILL] = units[index].setup_cycles + draw.integers(0, 20)
        row[Column.INTERVAL], row[Column.TRIPS] = 1, draw.integers(1, 200)
        row[Column.DRAIN] = units[index].tail_cycles
    return row
