"""Writes a run as a Perfetto trace: units are tracks, operations and stalls are slices, bytes a
second of each direction and tokens of each channel are counters.

It does not run anything; it needs a result that was simulated with `trace=True`.
Open the file at ui.perfetto.dev.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as TraceMessage
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket, TrackEvent

from cosim.analysis.timeline import NONE, Timeline, timeline
from cosim.program.result import SimResult, Trace
from cosim.program.table import Column, Opcode, Program, UnitKind, flat

SEQUENCE = 1
CHUNK = 20_000  # packets held in memory before they are written
PROCESS_TRACK = 1
NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Slice:
    """One bar on a unit's track; times in fabric cycles, half open. `amount` is bytes or MACs."""

    unit: int
    start: int
    end: int
    name: str
    category: str
    amount: int = 0
    row_hits: int = -1  # -1: not counted
    row_misses: int = -1


def slices(program: Program, result: SimResult) -> Iterator[Slice]:
    """All bars of a run, unit by unit, in time order on each unit.

    Categories: `operation`, `stall` (waits for tokens that are not idleness). ValueError when the
    result holds no trace.
    """
    if result.trace is None:
        raise ValueError("the result holds no trace; simulate with trace=True")
    line = timeline(program, result.trace)
    for unit in range(len(program.units)):
        for index in np.flatnonzero(line.unit == unit):
            yield from _slices_of(program, line, int(index), result.trace)


def _slices_of(program: Program, line: Timeline, index: int, trace: Trace) -> Iterator[Slice]:
    unit, start = int(line.unit[index]), int(line.start[index])
    layer = program.layers[line.layer[index]]
    waited = start - int(line.ready[index])
    if waited > 0 and line.channel[index] != NONE and not line.first[index]:
        channel = program.channels[line.channel[index]]
        yield Slice(unit, int(line.ready[index]), start,
                    f"stall: {channel.cause} ({channel.name})", "stall")
    opcode = Opcode(int(line.opcode[index])).name.lower()
    amount = int(line.macs[index]) or int(line.bytes[index])
    yield Slice(unit, start, int(line.end[index]), f"{layer} {opcode}", "operation", amount,
                *_rows(trace, index))


def _rows(trace: Trace, index: int) -> tuple[int, int]:
    """Rows found open and rows opened by an operation; -1 if it touched no DRAM row."""
    if trace.row_hits is None or trace.row_misses is None:
        return -1, -1
    found, opened = int(trace.row_hits[index]), int(trace.row_misses[index])
    return (found, opened) if found + opened else (-1, -1)


@dataclass(frozen=True, slots=True)
class Counter:
    """A value over time: `values[i]` holds from cycle `cycles[i]` on (int64, rising)."""

    name: str
    unit: str
    cycles: np.ndarray
    values: np.ndarray


def counters(program: Program, result: SimResult, clock_hz: float) -> Iterator[Counter]:
    """Bytes a second read and written, each transfer spread evenly over its time; transfers under
    way of each master's direction; tokens that wait in each channel. See `slices` for errors."""
    if result.trace is None:
        raise ValueError("the result holds no trace; simulate with trace=True")
    line = timeline(program, result.trace)
    for kind, name in ((UnitKind.READ, "read"), (UnitKind.WRITE, "written")):
        units = [index for index, unit in enumerate(program.units) if unit.kind == kind]
        own = np.isin(line.unit, units)
        rate = line.bytes[own] / (line.end[own] - line.start[own]) * clock_hz
        yield _stacked(f"bytes a second {name}", "B/s", line.start[own], line.end[own], rate)
        yield _stacked(f"transfers under way, {name}", "", line.start[own], line.end[own],
                       np.ones(int(own.sum())))
    rows = flat(program).operations
    for bit, channel in enumerate(program.channels):
        given = line.end[(rows[:, Column.SIGNAL] >> bit & 1) == 1]
        taken = line.start[(rows[:, Column.WAIT] >> bit & 1) == 1]
        cycles = np.concatenate([np.zeros(1, np.int64), given, taken])
        steps = np.concatenate([[channel.initial], np.ones(len(given)), -np.ones(len(taken))])
        yield _summed(f"tokens: {channel.name}", "", cycles, steps)


def _stacked(name: str, unit: str, start: np.ndarray, end: np.ndarray, height: np.ndarray
             ) -> Counter:
    return _summed(name, unit, np.concatenate([start, end]), np.concatenate([height, -height]))


def _summed(name: str, unit: str, cycles: np.ndarray, steps: np.ndarray) -> Counter:
    """The running sum of steps, one value a cycle; what floating point leaves of zero is zero."""
    when, places = np.unique(cycles, return_inverse=True)
    values = np.rint(np.cumsum(np.bincount(places, steps, len(when)))).astype(np.int64)
    return Counter(name, unit, when, values)


def write_trace(program: Program, result: SimResult, clock_hz: float, file: BinaryIO) -> int:
    """Write the run to a binary file as Perfetto protobuf; returns the number of slices.

    `clock_hz` turns fabric cycles into the trace's nanoseconds.
    """
    writer = _Writer(file, NS_PER_SECOND / clock_hz)
    writer.header(program)
    count = 0
    for item in slices(program, result):
        writer.add(item)
        count += 1
    for index, counter in enumerate(counters(program, result, clock_hz)):
        writer.count(PROCESS_TRACK + 1 + len(program.units) + index, counter)
    writer.flush()
    return count


class _Writer:
    """Packets of one sequence with interned names, written in chunks."""

    def __init__(self, file: BinaryIO, ns_per_cycle: float) -> None:
        self.file = file
        self.ns_per_cycle = ns_per_cycle
        self.message: Any = TraceMessage()
        self.names: dict[str, int] = {}
        self.categories: dict[str, int] = {}

    def header(self, program: Program) -> None:
        packet = self._packet()
        packet.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        packet.track_descriptor.uuid = PROCESS_TRACK
        packet.track_descriptor.process.pid = 1
        packet.track_descriptor.process.process_name = program.name
        for index, unit in enumerate(program.units):
            packet = self._packet()
            descriptor = packet.track_descriptor
            descriptor.uuid = PROCESS_TRACK + 1 + index
            descriptor.parent_uuid = PROCESS_TRACK
            descriptor.thread.pid = 1
            descriptor.thread.tid = 1 + index
            descriptor.thread.thread_name = unit.name

    def add(self, item: Slice) -> None:
        track = PROCESS_TRACK + 1 + item.unit
        begin = self._packet(item.start)
        begin.sequence_flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        event = begin.track_event
        event.type = TrackEvent.TYPE_SLICE_BEGIN
        event.track_uuid = track
        event.name_iid = self._intern(begin, self.names, item.name, "event_names")
        event.category_iids.append(
            self._intern(begin, self.categories, item.category, "event_categories"))
        if item.amount:
            note = event.debug_annotations.add()
            note.name = "bytes or MACs"
            note.int_value = item.amount
        if item.row_misses >= 0:
            for name, value in (("DRAM row hits", item.row_hits),
                                ("DRAM rows opened", item.row_misses)):
                note = event.debug_annotations.add()
                note.name = name
                note.int_value = value
        end = self._packet(item.end)
        end.sequence_flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        end.track_event.type = TrackEvent.TYPE_SLICE_END
        end.track_event.track_uuid = track
        if len(self.message.packet) >= CHUNK:
            self.flush()

    def count(self, track: int, counter: Counter) -> None:
        packet = self._packet()
        packet.track_descriptor.uuid = track
        packet.track_descriptor.parent_uuid = PROCESS_TRACK
        packet.track_descriptor.name = counter.name
        packet.track_descriptor.counter.unit_name = counter.unit
        for cycle, value in zip(counter.cycles, counter.values, strict=True):
            packet = self._packet(int(cycle))
            packet.track_event.type = TrackEvent.TYPE_COUNTER
            packet.track_event.track_uuid = track
            packet.track_event.counter_value = int(value)
            if len(self.message.packet) >= CHUNK:
                self.flush()

    def flush(self) -> None:
        self.file.write(self.message.SerializeToString())
        self.message = TraceMessage()

    def _packet(self, cycle: int = 0) -> Any:
        packet = self.message.packet.add()
        packet.timestamp = round(cycle * self.ns_per_cycle)
        packet.trusted_packet_sequence_id = SEQUENCE
        return packet

    @staticmethod
    def _intern(packet: Any, known: dict[str, int], text: str, kind: str) -> int:
        if text not in known:
            known[text] = len(known) + 1
            entry = getattr(packet.interned_data, kind).add()
            entry.iid = known[text]
            entry.name = text
        return known[text]
