"""Runs a whole program, data and all, on the compiled RTL of its overlay.

It judges nothing; callers compare the memory image and the cycles with what they expect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from arch_models.memory import Memory
from arch_models.overlay import Overlay
from cosim.program.result import Trace
from cosim.program.table import (
    ARGUMENTS,
    Channel,
    Column,
    Opcode,
    Program,
    Unit,
    UnitKind,
    flat,
)
from hw.interface.descriptors import DESCRIPTOR_BYTES, encode
from hw.rtl.overlay_top import OverlayTop
from hw.rtl.ports import Ports
from hw.rtl_sim.ddr3 import Ddr3Bench
from hw.rtl_sim.model import RtlModel, build
from hw.rtl_sim.timed import RtlRun, master_timing, read_counters


@lru_cache(maxsize=4)
def _compiled(units: tuple[Unit, ...], channels: tuple[Channel, ...], overlay: Overlay,
              cache: Path | None) -> tuple[Path, Ports]:
    """The library of an overlay and its ports; equal values are generated once."""
    top = OverlayTop(units, channels, overlay)
    return build(top, top.ports, cache), top.ports


def with_descriptors(program: Program, image: np.ndarray) -> np.ndarray:
    """The image and, behind it, the descriptors that the program's fetches read; uint8.

    The test bench feeds the units itself, so these bytes are moved and counted, never obeyed.
    """
    fetched = program.operations[:, Column.KIND] != Opcode.FETCH
    if fetched.all():
        return image
    table = np.frombuffer(encode(program), np.uint8).reshape(-1, DESCRIPTOR_BYTES)
    return np.concatenate([image, table[fetched].ravel()])


class OverlayBench:
    """The compiled RTL of an overlay; `run` takes any program with the same units and channels."""

    def __init__(self, program: Program, overlay: Overlay, cache: Path | None = None) -> None:
        self._wiring = (program.units, program.channels)
        self.model = RtlModel(*_compiled(*self._wiring, overlay, cache))

    def run(self, program: Program, memory: Memory, image: np.ndarray,
            host: Callable[[int, np.ndarray], None] | None = None,
            limit_cycles: int = 2_000_000_000) -> RtlRun:
        """Run a program on a memory image (uint8, changed in place).

        `host(layer, image)` does the data of a HOST operation when it starts; its duration is
        the program's. Raises ValueError for a program with other units or channels.
        """
        if (program.units, program.channels) != self._wiring:
            raise ValueError("program: units or channels are not those of the compiled overlay")
        whole = flat(program)
        raw = np.frombuffer(encode(whole), np.uint8).reshape(-1, DESCRIPTOR_BYTES)
        self.model.reset()
        self.model.memory(image)
        unit_of = whole.operations[:, Column.UNIT]
        rows = [np.flatnonzero(unit_of == unit) for unit in range(len(program.units))]
        waiting: list[tuple[int, list[int]]] = []
        for unit in range(len(program.units)):
            layers = self._host_layers(whole, rows[unit])
            self.model.commands(unit, raw[rows[unit]], bool(layers) and host is not None)
            if layers:
                waiting.append((unit, layers))
            if program.units[unit].kind is not UnitKind.COMPUTE:
                self.model.master(unit, master_timing(program, memory, unit))
        if memory.model == "ddr3":
            Ddr3Bench(self.model, whole, memory, tuple(range(len(program.units))))
        ran = dict.fromkeys((unit for unit, _ in waiting), 0)

        def paused(cycle: int) -> None:
            for unit, layers in waiting:
                started = int((self.model.starts[unit] >= 0).sum())
                while ran[unit] < started:
                    assert host is not None
                    host(layers[ran[unit]], image)
                    ran[unit] += 1

        total = self.model.run(limit_cycles, paused)
        start, end = (np.zeros(len(raw), np.int64) for _ in range(2))
        for unit, mine in enumerate(rows):
            start[mine], end[mine] = self.model.starts[unit], self.model.ends[unit]
        places = tuple(range(len(program.units)))
        return RtlRun(total, Trace(start, end), *read_counters(self.model, program, places))

    @staticmethod
    def _host_layers(program: Program, rows: np.ndarray) -> list[int]:
        if not len(rows) or (program.operations[rows, Column.KIND] != Opcode.HOST).any():
            return []
        place = ARGUMENTS[Opcode.HOST].index("layer")
        return program.arguments[rows, place].tolist()
