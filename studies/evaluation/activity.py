"""Counts what a program does that costs energy: cycles in which each part works, bytes, host time.

It knows no joules; `arch_models.power.energy` turns counts into them. Parts have the names of the
resource model: `convolution`, `buffer input`, `master weight`. A master and an engine of one name
are two parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from arch_models.engines import MODELS
from arch_models.engines.base import HOLD_CYCLES, VECTOR_LANES, values
from arch_models.overlay import Engine, Overlay, Role
from arch_models.power.energy import Activity
from arch_models.power.fabric import FILE, STALLED
from arch_models.resources import SOFTMAX_LANES, UNPACK
from arch_models.units import NS_PER_S, ceil_div
from cosim.analysis.least import Least
from cosim.engines import RUNS
from cosim.lowering.lower import Lowered
from cosim.program.table import ARGUMENTS, Buffer, Column, Opcode, Program, UnitKind
from studies.energy.toggles import factors

BEAT_BYTES = 8
ARRAY = Engine.CONVOLUTION.value
#: Read or written with every beat of a transfer on chip.
TENSORS = "buffer tensors"
#: The memory that a LOAD writes.
LOADED: Mapping[Buffer, str] = {
    **{buffer: buffer.name.lower().replace("_", " ") for buffer in Buffer},
    Buffer.OUTPUT: "skip", Buffer.CONVOLUTION_PARAMETERS: "parameters"}


@dataclass(frozen=True)
class Counts:
    """Counts by layer over everything executed once.

    `working`: cycles by part, (layers,) each; of a buffer, accesses over its width. `toggles`:
    what a working cycle of the array costs of one with noise, (layers,). `clocked`: cycles by
    engine in which a gated clock goes on, (layers,). `read`, `written`: bytes. `host_s`: seconds
    of the processor.
    """

    working: Mapping[str, np.ndarray]
    clocked: Mapping[str, np.ndarray]
    toggles: np.ndarray
    read: np.ndarray
    written: np.ndarray
    host_s: np.ndarray

    def activity(self, cycles: Any, clock_hz: Any, row_misses: int | None = None,
                 layers: slice = slice(None)) -> Activity:
        """What some layers do in `cycles`, which may be an array, as may the clock."""
        return Activity(
            cycles, clock_hz, float(self.host_s[layers].sum()),
            {part: float(found[layers].sum()) for part, found in self.working.items()},
            {ARRAY: float((self.working[ARRAY] * self.toggles)[layers].sum())}
            if ARRAY in self.working else {},
            int(self.read[layers].sum()), int(self.written[layers].sum()), row_misses,
            {part: float(found[layers].sum()) for part, found in self.clocked.items()})


def count(lowered: Lowered, moved: np.ndarray, overlay: Overlay) -> Counts:
    """Count the operations of a program that moves (layers, units) bytes."""
    program = lowered.program
    times = np.zeros(len(program.operations), np.int64)
    for segment in program.segments:
        times[segment.first : segment.last] = segment.repeat
    found, clocked = _Working(len(program.layers)), _Working(len(program.layers))
    _units(found, clocked, program, overlay, moved, times)
    _on_chip(found, program, overlay, times)
    _transfers(found, program, overlay, times)
    kinds = np.array([unit.kind for unit in program.units])
    hosts = np.flatnonzero(program.operations[:, Column.KIND] == Opcode.HOST)
    host_ns = np.zeros(len(program.layers))
    np.add.at(host_ns, program.operations[hosts, Column.LAYER],
              np.array(lowered.host_ns) * times[hosts])
    known = layer_weights(program.name)
    toggles = np.array([known.get(name, 1.0) for name in program.layers])
    return Counts(found.cycles, clocked.cycles, toggles,
                  moved[:, kinds == UnitKind.READ].sum(axis=1),
                  moved[:, kinds == UnitKind.WRITE].sum(axis=1), host_ns / NS_PER_S)


def least_activity(work: Least, clock_hz: Any, overlay: Overlay | None = None,
                   row_misses: int | None = 0) -> Activity:
    """The activity of a design that does no more than what it must.

    Left out: what streaming engines and masters do beyond waiting, and beats into memories.
    `overlay` None: the array is not known, and what depends on it is left out, too.
    """
    working = dict.fromkeys((ARRAY, "buffer input", "buffer weight"), work.trips)
    if overlay is not None:
        stores = work.bytes_written / BEAT_BYTES / (
            _lanes(overlay)["output"] * len(overlay.masters_of(Role.OUTPUT)))
        working |= {"buffer accumulator": work.partials / overlay.columns,
                    "buffer output": work.results + stores,
                    "buffer parameters": work.results * (overlay.tm / overlay.requantizers)}
    return Activity(work.cycles, clock_hz, work.host_ns / NS_PER_S, working,
                    {ARRAY: work.weighted_trips}, work.bytes_read, work.bytes_written, row_misses)


def layer_weights(network: str) -> Mapping[str, float]:
    """What a working cycle of the array costs of one with noise, by layer; 1 for one not there."""
    return {name: weight(factor) for name, factor in factors(network).items()}


def weight(factor: float) -> float:
    """A working cycle never costs less than a waiting one, which sees the same operands."""
    return max(factor, values(FILE)[STALLED])


class _Working:
    """Cycles by part and layer, added up."""

    def __init__(self, layers: int) -> None:
        self.layers, self.cycles = layers, dict[str, np.ndarray]()

    def add(self, part: str, layer: np.ndarray, cycles: np.ndarray) -> None:
        mine = self.cycles.setdefault(part, np.zeros(self.layers))
        np.add.at(mine, layer, cycles)


def _units(found: _Working, clocked: _Working, program: Program, overlay: Overlay,
           moved: np.ndarray, times: np.ndarray) -> None:
    """Engines work in their trips, masters while a beat of theirs moves.

    How long an operation of a master waits for memory is not known here, so that its clock is
    taken never to stop.
    """
    table = program.operations
    masters = {item.name: item.width_bits // 8 for item in overlay.masters}
    every = np.arange(len(program.layers))
    for index, unit in enumerate(program.units):
        if unit.kind is not UnitKind.COMPUTE:
            found.add(f"master {unit.name}", every, moved[:, index] / masters[unit.name])
            rows = np.flatnonzero((table[:, Column.UNIT] == index) & (table[:, Column.TRIPS] > 0))
            if len(rows):
                for part in (f"master {unit.name}", TENSORS):
                    found.add(part, table[rows, Column.LAYER],
                              table[rows, Column.TRIPS] * times[rows])
        elif unit.name != "host":
            rows = np.flatnonzero(table[:, Column.UNIT] == index)
            layer, trips = table[rows, Column.LAYER], table[rows, Column.TRIPS]
            works = table[rows, Column.INTERVAL] * trips
            around = table[rows, Column.FILL] + table[rows, Column.DRAIN] + HOLD_CYCLES
            found.add(unit.name, layer, works * times[rows])
            if unit.name == ARRAY and overlay.narrow_weights:
                found.add(UNPACK, layer, works * times[rows])
            clocked.add(unit.name, layer, (works + around) * times[rows])


def _on_chip(found: _Working, program: Program, overlay: Overlay, times: np.ndarray) -> None:
    """What operations read and write on chip, as their engines say."""
    table = program.operations
    kind = table[:, Column.KIND]
    for opcode in (Opcode(int(item)) for item in np.unique(kind)):
        if opcode not in RUNS:
            continue
        rows = np.flatnonzero(kind == opcode)
        values = dict(zip(ARGUMENTS[opcode], program.arguments[rows].T.astype(np.int64),
                          strict=False))
        for memory, each in RUNS[opcode].accesses(opcode, values, table[rows, Column.TRIPS],
                                                  overlay).items():
            found.add(f"buffer {memory}", table[rows, Column.LAYER], each * times[rows])


def _transfers(found: _Working, program: Program, overlay: Overlay, times: np.ndarray) -> None:
    """A beat that comes is written to one lane of a memory; one that goes is read from one."""
    table = program.operations
    beats = (table[:, Column.ROW_BYTES] * table[:, Column.ROWS] * table[:, Column.PLANES] * times
             / BEAT_BYTES)
    lanes = _lanes(overlay)
    loads = np.flatnonzero(table[:, Column.KIND] == Opcode.LOAD)
    into = program.arguments[loads, ARGUMENTS[Opcode.LOAD].index("buffer")]
    for buffer, name in LOADED.items():
        rows = loads[into == buffer]
        if len(rows):
            found.add(f"buffer {name}", table[rows, Column.LAYER], beats[rows] / lanes[name])
    stores = np.flatnonzero(table[:, Column.KIND] == Opcode.STORE)
    copies = len(overlay.masters_of(Role.OUTPUT))
    found.add("buffer output", table[stores, Column.LAYER],
              beats[stores] / (lanes["output"] * copies))


def _lanes(overlay: Overlay) -> dict[str, int]:
    """Beats across a memory; a beat that comes goes into every copy of a lane."""
    copies = VECTOR_LANES if any(item.value == "lookup" for item in overlay.engines) else (
        SOFTMAX_LANES)
    return {"input": overlay.tn // VECTOR_LANES, "output": overlay.tm // VECTOR_LANES,
            "skip": overlay.tm // VECTOR_LANES,
            "weight": ceil_div(overlay.tm * overlay.tn * overlay.weight_bits, 64),
            "parameters": overlay.requantizers, "table": copies,
            **{item.name: item.lanes for model in MODELS for item in model.memories(overlay)}}
