"""The DDR3 memory of the executors, driven by the requests of the RTL, cycle by cycle.

It has no rules of its own: ports and controller are those of `cosim.executors.des_memory`.

A read's beats move in the cycles just before it is done; a write's in those that the port's
rule gives.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from arch_models.memory import Memory
from cosim.executors.des_memory import DdrChannel, DdrController, Request, Transfer
from cosim.memory.bursts import FAR, burst_bytes
from cosim.program.table import Column, Program, UnitKind, runs
from hw.rtl_sim.model import RtlModel


class _Clock:
    """A time line that the hardware's cycles move."""

    def __init__(self) -> None:
        self.now = 0
        self._queue: list[tuple[int, int, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, cycle: int, priority: int, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (cycle, priority, next(self._numbers), call))

    def run(self, cycle: int) -> int:
        """Everything asked for up to the end of a cycle; the next cycle that has something."""
        self.now = cycle
        while self._queue and self._queue[0][0] <= cycle:
            heapq.heappop(self._queue)[-1]()
        return self._queue[0][0] if self._queue else int(FAR)


@dataclass
class _Accepted:
    """Passes an acceptance on to the hardware, with the beats of a write."""

    model: RtlModel
    unit: int
    channel: DdrChannel
    beats: int

    def __call__(self, cycle: int) -> None:
        if self.channel.write:
            self.model.write_from(self.unit, int(self.channel.data_free) - self.beats)
        self.model.grant(self.unit, int(cycle))


@dataclass
class _Bursts(Transfer):
    """All bursts of one unit, in order."""

    model: RtlModel | None = None
    place: int = 0
    asked: int = field(default=0)
    sizes: Iterator[int] = field(default_factory=lambda: iter(()))

    def finished(self, cycle: int) -> None:
        self.done.append(cycle)
        assert self.model is not None
        self.model.done(self.place, int(cycle))


class Ddr3Bench:
    """Serves the masters of one run of a program without repeats.

    `places[i]`: the hardware's number of the program's unit i. A burst's address and beats are
    the hardware's; its bytes, which AXI does not say for reads, follow from the program.
    """

    def __init__(self, model: RtlModel, program: Program, memory: Memory,
                 places: tuple[int, ...]) -> None:
        self._clock = _Clock()
        self._model = model
        controller = DdrController(self._clock, program, memory)
        ports = {(index, kind): DdrChannel(controller, port, kind is UnitKind.WRITE)
                 for index, port in enumerate(memory.ports)
                 for kind in (UnitKind.READ, UnitKind.WRITE)}
        masters = [(index, unit) for index, unit in enumerate(program.units)
                   if unit.kind is not UnitKind.COMPUTE]
        self._unit = {places[index]: index for index, _ in masters}
        self._channels = {index: ports[unit.port, unit.kind] for index, unit in masters}
        self._bursts = {index: _Bursts(model=model, place=places[index],
                                       sizes=_burst_sizes(program, memory, index))
                        for index, _ in masters}
        model.external(self.cycle)

    def cycle(self, number: int, requests: list[tuple[int, int, int]]) -> int:
        """The memory's part of a cycle: decide requests, then let the controller act."""
        self._clock.now = number
        for place, address, beats in requests:
            unit = self._unit[place]
            bursts, channel = self._bursts[unit], self._channels[unit]
            accepted = _Accepted(self._model, place, channel, beats)
            size = next(bursts.sizes, 0)
            channel.present(Request(number, unit, bursts.asked, address, size, beats,
                                    bursts, accepted, -1))
            bursts.asked += 1
        return self._clock.run(number)


def _burst_sizes(program: Program, memory: Memory, unit: int) -> Iterator[int]:
    """Bytes of each burst that a unit asks memory for, in order."""
    master = program.units[unit]
    width = memory.ports[master.port].width_bytes
    mine = ((program.operations[:, Column.UNIT] == unit)
            & (program.operations[:, Column.TRIPS] == 0))
    for line in program.operations[mine].tolist():
        for address in runs(line, line[Column.ADDRESS]):
            left = line[Column.ROW_BYTES]
            while left:
                size = burst_bytes(address, left, width, master.max_burst_beats)
                yield size
                address, left = address + size, left - size
