"""Small programs that load a memory the way a measurement did.

They run on the executors like any other program; no second model of the memory is here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arch_models.memory import Ddr3Timing, Memory, Port
from cosim.executors import fast
from cosim.program.table import ARGUMENT_COUNT, Column, Opcode, Program, Segment, Unit, UnitKind

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Stream:
    """One master: bursts of `burst_bytes` from `base` on, in order or at random in a region.

    `outstanding` bursts are in flight. A random stream is that many units on the port, each with
    one burst in flight, because a transfer has an address pattern and no list of addresses.
    """

    port: int
    write: bool
    burst_bytes: int
    outstanding: int
    bytes: int
    base: int = 0
    random_region_bytes: int = 0


def traffic_program(streams: tuple[Stream, ...], memory: Memory, seed: int = 0) -> Program:
    """A program of transfers alone, all of which start at cycle 0."""
    units: list[Unit] = []
    rows: list[np.ndarray] = []
    draw = np.random.default_rng(seed)
    for stream in streams:
        width = memory.ports[stream.port].width_bytes
        kind = UnitKind.WRITE if stream.write else UnitKind.READ
        beats = max(1, stream.burst_bytes // width)
        random = stream.random_region_bytes > 0
        for _ in range(stream.outstanding if random else 1):
            index = len(units)
            units.append(Unit(f"stream{index}", kind, stream.port,
                              1 if random else stream.outstanding, beats, setup_cycles=0,
                              tail_cycles=0))
            if not random:
                rows.append(_row(index, stream.base, stream.bytes))
                continue
            slots = stream.random_region_bytes // stream.burst_bytes
            count = stream.bytes // stream.burst_bytes // stream.outstanding
            for slot in draw.integers(slots, size=count).tolist():
                rows.append(_row(index, stream.base + slot * stream.burst_bytes,
                                 stream.burst_bytes))
    operations = np.array(rows, np.int64)
    return Program("traffic", tuple(units), (), ("traffic",), operations,
                   np.zeros((len(rows), ARGUMENT_COUNT), np.int32), (Segment(0, len(rows)),))


def _row(unit: int, address: int, size: int) -> np.ndarray:
    row = np.zeros(len(Column), np.int64)
    row[Column.UNIT] = unit
    row[Column.KIND] = Opcode.OTHER
    row[Column.ADDRESS] = address
    row[Column.ROW_BYTES] = size
    row[Column.ROWS] = row[Column.PLANES] = 1
    return row


def share_of_peak(streams: tuple[Stream, ...], memory: Memory) -> float:
    """Bytes moved over what the data bus could have moved, in percent."""
    if memory.ddr is None:
        raise ValueError("memory: model is 'flat', must be 'ddr3' to have a peak")
    result = fast.simulate(traffic_program(streams, memory), memory)
    seconds = result.total_cycles / memory.ddr.fabric_hz
    return 100 * int(result.layer_bytes.sum()) / seconds / memory.ddr.peak_bytes_per_s


def bare_memory(ddr: Ddr3Timing, ports: int, burst_bytes: int) -> Memory:
    """The DRAM without the ports of a processing system: one burst is one beat, no path."""
    bare = replace(ddr, fabric_hz=ddr.clock_hz, word_clocks_numerator=0)
    return Memory("ddr3", tuple(
        Port(f"stream{index}", burst_bytes, controller_port=index, write_lead_cycles=0,
             read_accept=64, write_accept=64) for index in range(ports)), bare)
