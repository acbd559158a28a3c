"""A board without a board: the registers, memory and interrupt that the driver sees.

It executes nothing itself; a fabric does, the C simulation (`hw.rtl_sim.board` is the RTL). Its
times are no measurement of hardware, and its measurements say so (`source`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cosim.program.table import Segment
from hw.board.driver import DONE, START
from hw.csim.fabric import Fabric
from hw.interface.plan import Start
from hw.interface.registers import CONTROL, register_map

IDLE = 4


class Buffer(np.ndarray):
    """A uint8 array with what the board's contiguous buffers have besides."""

    physical_address = 0

    def flush(self) -> None:
        """Caches are not modelled."""

    def invalidate(self) -> None:
        """Caches are not modelled."""

    def freebuffer(self) -> None:
        """Freed with the object."""


class Runner(Protocol):
    """What executes one start: `source` names it in measurements."""

    source: str

    def start(self, descriptors: np.ndarray, start: Start, initialize: bool,
              memory: np.ndarray) -> dict[int, int]:
        """Run a stretch on the memory; counters by register offset."""


class CSimRunner:
    """Runs starts in the C simulation, which counts no cycles."""

    source = "c simulation"

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    def start(self, descriptors: np.ndarray, start: Start, initialize: bool,
              memory: np.ndarray) -> dict[int, int]:
        """See `Runner`."""
        if initialize:
            self._fabric.reset()
        part = Segment(start.first, start.first + start.count, start.repeats)
        self._fabric.run(descriptors, (part,), memory, fabric_only=True,
                         repeat_first=start.repeat_first)
        return {}


class StandIn:
    """One overlay behind its register map. `late`: never end a start."""

    def __init__(self, runner: Runner, ports: tuple[str, ...], late: bool = False) -> None:
        self._runner = runner
        self.source = runner.source
        self._names = {offset: name
                       for name, offset in register_map(("descriptors", *ports)).items()}
        self._ports = ports
        self._late = late
        self._buffers: dict[int, Buffer] = {}
        self.values = dict.fromkeys(self._names.values(), 0)
        self.counters: dict[int, int] = {}
        self.downloaded = ""
        self.stopped = False
        self.starts = 0

    def download(self, bitstream: str) -> None:
        """Remember which bitstream; the fabric is there already."""
        self.downloaded, self.stopped = bitstream, False

    def read(self, offset: int) -> int:
        """A register or half a counter."""
        if offset in self.counters:
            return self.counters[offset]
        return self.values[self._names[offset]]

    def write(self, offset: int, value: int) -> None:
        """Write a register; a start runs to its end before this returns."""
        if self.stopped or not self.downloaded:
            raise RuntimeError("the stand-in is stopped or has no bitstream")
        self.values[self._names[offset]] = value
        if offset == CONTROL and value & START and not self._late:
            self._start()

    def allocate(self, size: int) -> Buffer:
        """Memory with an address of its own."""
        buffer = np.zeros(size, np.uint8).view(Buffer)
        buffer.physical_address = 0x10000000 * (len(self._buffers) + 1)
        self._buffers[buffer.physical_address] = buffer
        return buffer

    def _start(self) -> None:
        values = self.values
        bases = {values[f"base_{port}"] for port in self._ports}
        if len(bases) != 1:
            raise RuntimeError(f"the masters have different base addresses: {sorted(bases)}")
        start = Start(values["first"], values["count"], values["repeats"], values["repeat_first"])
        self.counters.update(self._runner.start(
            self._buffers[values["base_descriptors"]].view(np.ndarray), start,
            bool(values["initialize"]), self._buffers[bases.pop()].view(np.ndarray)))
        self.starts += 1
        values["control"] = DONE | IDLE
        values["interrupt_status"] = 1

    def wait_interrupt(self, timeout_s: float) -> bool:
        """Is an interrupt pending and let through? Nothing more can happen while waiting."""
        armed = self.values["global_interrupt"] and self.values["interrupt_enable"]
        return bool(armed and self.values["interrupt_status"])

    def stop(self) -> None:
        """From now on every write is an error, until the next download."""
        self.stopped = True
