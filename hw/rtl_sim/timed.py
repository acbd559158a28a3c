"""Runs a timed-only program on the compiled test model and reads its cycles and counters back.

It judges nothing; `studies.validate.rtl` compares with the executors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from arch_models.memory import Memory
from cosim.program.result import Trace
from cosim.program.table import Program, Unit, UnitKind, flat
from hw.interface.descriptors import DESCRIPTOR_BYTES, encode, local_channels
from hw.rtl.timed_top import TimedTop
from hw.rtl.transfers.bursts import LEAST_SETUP, LEAST_TAIL
from hw.rtl_sim.ddr3 import Ddr3Bench
from hw.rtl_sim.model import MasterTiming, RtlModel, build


@dataclass(frozen=True)
class RtlRun:
    """What the hardware did: cycles, start and end of every operation, and its counters.

    `busy`, `memory_stall`, `idle`: (U,) cycles; `token_stall`: (U, C), as in `SimResult`.
    """

    total_cycles: int
    trace: Trace
    busy: np.ndarray
    memory_stall: np.ndarray
    idle: np.ndarray
    token_stall: np.ndarray


def buildable(program: Program) -> Program:
    """The program with every master's set-up and tail as long as its registers need."""
    units = tuple(replace(unit, setup_cycles=LEAST_SETUP + unit.setup_cycles,
                          tail_cycles=LEAST_TAIL + unit.tail_cycles) for unit in program.units)
    return replace(program, units=units)


def master_timing(program: Program, memory: Memory, unit: int) -> MasterTiming:
    """How the flat memory serves a master of a program; another memory only takes the width."""
    master = program.units[unit]
    port = memory.ports[master.port]
    read = master.kind is UnitKind.READ
    return MasterTiming(
        2 * master.port + (not read), unit, port.width_bytes,
        port.read_latency_cycles if read else port.write_lead_cycles,
        0 if read else port.write_latency_cycles)


def read_counters(model: RtlModel, program: Program, places: tuple[int, ...]) -> tuple:
    """(busy, memory stall, idle, token stall) of a program whose unit i is hardware unit
    `places[i]`."""
    numbers = [[model.counter(place, number) for number in range(3)] for place in places]
    busy, idle, stalled = (np.array([row[number] for row in numbers], np.int64)
                           for number in range(3))
    tokens = np.zeros((len(places), len(program.channels)), np.int64)
    for unit, place in enumerate(places):
        for bit, channel in enumerate(local_channels(program, unit)[0]):
            tokens[unit, channel] = model.counter(place, 3 + bit)
    return busy, stalled, idle, tokens


class TimedBench:
    """The test model, compiled once; `run` takes any program that fits its counts."""

    def __init__(self, counts: tuple[int, int, int] = (4, 4, 4), channels: int = 14,
                 cache: Path | None = None) -> None:
        self.counts = counts
        self.channels = channels
        top = TimedTop(counts, channels)
        self.model = RtlModel(build(top, top.ports, cache), top.ports)

    def fits(self, program: Program) -> bool:
        """Has the model enough units of each kind and enough channels?"""
        kinds = [unit.kind for unit in program.units]
        return (len(program.channels) <= self.channels
                and all(kinds.count(kind) <= self.counts[kind] for kind in UnitKind))

    def run(self, program: Program, memory: Memory, limit_cycles: int = 50_000_000) -> RtlRun:
        """Run a program that `fits` and is `buildable`; repeats are written out."""
        whole = flat(program)
        places = self._places(program.units)
        raw = np.frombuffer(encode(whole), np.uint8).reshape(-1, DESCRIPTOR_BYTES)
        self.model.reset(self._config(program, memory, places))
        unit_of = whole.operations[:, 0]
        rows = [np.flatnonzero(unit_of == unit) for unit in range(len(program.units))]
        for unit, place in enumerate(places):
            self.model.commands(place, raw[rows[unit]])
            if program.units[unit].kind is not UnitKind.COMPUTE:
                self.model.master(place, master_timing(program, memory, unit))
        if memory.model == "ddr3":
            Ddr3Bench(self.model, whole, memory, places)
        total = self.model.run(limit_cycles)
        start, end = (np.zeros(len(raw), np.int64) for _ in range(2))
        for unit, place in enumerate(places):
            start[rows[unit]] = self.model.starts[place]
            end[rows[unit]] = self.model.ends[place]
        return RtlRun(total, Trace(start, end), *read_counters(self.model, program, places))

    def _places(self, units: tuple[Unit, ...]) -> tuple[int, ...]:
        free = [sum(self.counts[:kind]) for kind in UnitKind]
        places = []
        for unit in units:
            places.append(free[unit.kind])
            free[unit.kind] += 1
        return tuple(places)

    def _config(self, program: Program, memory: Memory, places: tuple[int, ...]) -> dict[str, int]:
        config: dict[str, int] = {}
        for place, unit in zip(places, program.units, strict=True):
            if unit.kind is UnitKind.COMPUTE:
                continue
            width = memory.ports[unit.port].width_bytes
            numbers = {"setup": unit.setup_cycles, "tail": unit.tail_cycles,
                       "outstanding": unit.outstanding,
                       "burst_bytes": unit.max_burst_beats * width,
                       "width_log2": width.bit_length() - 1, "overlap": int(unit.overlap_runs),
                       "run_setup": unit.run_setup_cycles}
            config |= {f"u{place}_{name}": value for name, value in numbers.items()}
        # A route that no program channel uses must point at a bit that is always zero.
        unused = 16 * sum(self.counts)
        for number in range(self.channels):
            config[f"c{number}_source"] = config[f"c{number}_target"] = unused
        for number, channel in enumerate(program.channels):
            outgoing = local_channels(program, channel.source)[1]
            incoming = local_channels(program, channel.target)[0]
            config[f"c{number}_source"] = 16 * places[channel.source] + outgoing.index(number)
            config[f"c{number}_target"] = 16 * places[channel.target] + incoming.index(number)
            config[f"c{number}_initial"] = channel.initial
        return config
