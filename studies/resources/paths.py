"""Longest paths between registers of a netlist: logic from cell delays, nets from a model.

It places and routes nothing: every net is as long as its kind, its fan-out and the share of the
fabric used say. Beyond the ports of a part, registers are assumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from arch_models.nets import Net, NetModel
from studies.plain.errors import UserError
from studies.resources.cell_delays import Delay, Kind, delays
from studies.resources.netlist import Cell, Netlist

#: A register outside the part: clock to output, `xc7_delays.csv`, FDRE.
PORT_LAUNCH_NS = 0.456
Launch = tuple[float, str, str]  # clock to output in ns, the register's name, the cell's kind
Begins = Callable[[str], bool]
#: A LUT that only passes a signal on to the carry or the wide multiplexer of its slice.
PASSING_NS = 0.124


@dataclass(frozen=True)
class Hop:
    """A net and the cell that it leads through: both delays in ns.

    `cell`: its kind and the pin at which the path enters; `name`: of the net that leaves it.
    """

    cell: str
    logic_ns: float
    net: Net
    net_ns: float
    fan_out: int
    name: str
    source: str


@dataclass(frozen=True)
class TimingPath:
    """From a register (or a port) to one. The first hop launches and has no net before it."""

    start: str
    end: str
    hops: tuple[Hop, ...]
    uncertainty_ns: float

    @property
    def logic_ns(self) -> float:
        """Cells, with clock to output and setup."""
        return sum(hop.logic_ns for hop in self.hops)

    @property
    def nets_ns(self) -> float:
        """Nets between them."""
        return sum(hop.net_ns for hop in self.hops)

    @property
    def period_ns(self) -> float:
        """What the path asks of a clock."""
        return self.logic_ns + self.nets_ns + self.uncertainty_ns

    @property
    def mhz(self) -> float:
        """The fastest clock of it."""
        return 1000 / self.period_ns


@dataclass(frozen=True)
class _Arc:
    """From a net (its place) to another, or to a register: `end` names the pin."""

    start: int
    stop: int
    net: Net
    logic_ns: float
    cell: int
    pin: str


def _any(name: str) -> bool:
    return True


class Paths:
    """The timing graph of a netlist, under a net model."""

    def __init__(self, netlist: Netlist, model: NetModel, share: float = 0.0) -> None:
        self._netlist, self._model, self._share = netlist, model, share
        self._launches: dict[int, Launch] = {}
        self._arcs: list[_Arc] = []
        self._ends: list[_Arc] = []
        self._fan_out: dict[int, int] = {}
        self._drivers: dict[int, tuple[str, str]] = {}
        self._registers: dict[int, int] = {}
        self._carries: dict[int, int] = {}
        self._virtual = -1
        rules = [_rules(cell) for cell in netlist.cells]
        self._count(rules)
        for index, cell in enumerate(netlist.cells):
            self._add(index, cell, rules[index])
        for name, bits in netlist.inputs.items():
            for bit in bits:
                self._launches.setdefault(bit, (PORT_LAUNCH_NS, f"port {name}", "port"))
        self._ends += [_Arc(bit, -1, Net.GENERAL, 0.0, -1, f"port {name}")
                       for name, bits in netlist.outputs.items() for bit in bits if bit >= 0]

    def _count(self, rules: Sequence[list[Delay]]) -> None:
        """Drivers, fan-outs, and how many registers and carries a net meets."""
        for cell, known in zip(self._netlist.cells, rules, strict=True):
            outs = {port for rule in known for port, _ in rule.outs}
            for port, bits in cell.pins.items():
                drives = port in outs or (cell.kind == "BUFG" and port == "O")
                for bit in bits:
                    if bit < 0:
                        continue
                    if drives:
                        self._drivers[bit] = (cell.kind, port)
                        continue
                    self._fan_out[bit] = self._fan_out.get(bit, 0) + 1
                    if port == "D" and cell.kind.startswith("FD"):
                        self._registers[bit] = self._registers.get(bit, 0) + 1
                    if cell.kind == "CARRY4" and port == "S":
                        self._carries[bit] = self._carries.get(bit, 0) + 1

    def _add(self, index: int, cell: Cell, rules: list[Delay]) -> None:
        for rule in rules:
            ins, outs = _nets(cell, rule.pins), _nets(cell, rule.outs)
            if rule.kind is Kind.LAUNCH:
                for bit, _ in outs:
                    old = self._launches.get(bit, (-1.0, "", ""))
                    self._launches[bit] = max(old, (rule.ns, _register(cell, self._netlist, bit),
                                                    cell.kind))
            elif rule.kind is Kind.CAPTURE:
                self._ends += [_Arc(bit, -1, self._kind(bit, cell, port), rule.ns, index, port)
                               for bit, port in ins]
            elif len(ins) > 1 and len(outs) > 1:  # all to all: by way of a node in the middle
                self._virtual -= 1
                self._arcs += [_Arc(bit, self._virtual, self._kind(bit, cell, port), rule.ns,
                                    index, port) for bit, port in ins]
                self._arcs += [_Arc(self._virtual, bit, Net.CASCADE, 0.0, index, "")
                               for bit, _ in outs]
            else:
                self._arcs += [_Arc(bit, out, self._kind(bit, cell, port),
                                    rule.ns + self._passing_ns(bit, cell, port), index, port)
                               for bit, port in ins for out, _ in outs]

    def _kind(self, bit: int, cell: Cell, port: str) -> Net:
        """Of the hop from a net's driver to a pin."""
        kind, out = self._drivers.get(bit, ("", ""))
        pair = ("LUT" if kind == "INV" else kind[:3], out, cell.kind[:3], port)
        if ((pair[2] == "DSP" and port.endswith("CIN")) or pair == ("CAR", "CO", "CAR", "CI")
                or (pair[0] in ("LUT", "MUX") and pair[2] == "MUX" and port != "S")):
            return Net.CASCADE
        if pair[0] in ("LUT", "MUX", "CAR") and port == "D" and cell.kind.startswith("FD"):
            return Net.LOCAL if self._registers[bit] == 1 else Net.GENERAL
        if pair[0] == "LUT" and pair[2:] == ("CAR", "S"):
            return Net.LOCAL if self._carries[bit] == 1 else Net.GENERAL
        return Net.GENERAL

    def _passing_ns(self, bit: int, cell: Cell, port: str) -> float:
        """A LUT's delay where the slice is entered without one."""
        inside = ((cell.kind == "CARRY4" and port == "S")
                  or (cell.kind == "MUXF7" and port != "S"))
        from_lut = self._drivers.get(bit, ("", ""))[0][:3] in ("LUT", "INV")
        return PASSING_NS if inside and not from_lut else 0.0

    def _net_ns(self, arc: _Arc) -> float:
        return (0.0 if arc.start < -1 else
                self._model.delay_ns(arc.net, self._fan_out.get(arc.start, 1), self._share))

    def longest(self, count: int = 10, begins: Begins = _any, ends: Begins = _any
                ) -> list[TimingPath]:
        """The longest paths, one for each pair of registers (words, not bits).

        `begins`, `ends`: which registers or ports to look at, by name; a port's is `port ...`.
        """
        starts = {bit: found for bit, found in self._launches.items() if begins(found[1])}
        arrivals, last = self._arrivals(starts)
        reached = [(arrivals.get(arc.start, starts.get(arc.start, (-np.inf,))[0])
                    + self._net_ns(arc) + arc.logic_ns, index)
                   for index, arc in enumerate(self._ends) if ends(self._end_names[index])]
        found: dict[tuple[str, str], TimingPath] = {}
        for time, index in sorted(reached, reverse=True):
            if time == -np.inf or len(found) == count:
                break
            path = self._traced(index, last)
            found.setdefault((_word(path.start), _word(path.end)), path)
        return list(found.values())

    @cached_property
    def _end_names(self) -> list[str]:
        return [self._end_name(arc) for arc in self._ends]

    @cached_property
    def _graph(self) -> tuple[dict[int, int], np.ndarray, np.ndarray, np.ndarray,
                              list[np.ndarray]]:
        """Places of nets, starts and stops of arcs, what each costs, and arcs in order of depth."""
        places: dict[int, int] = {}
        for arc in self._arcs:
            places.setdefault(arc.start, len(places))
            places.setdefault(arc.stop, len(places))
        starts = np.array([places[arc.start] for arc in self._arcs], np.int64)
        stops = np.array([places[arc.stop] for arc in self._arcs], np.int64)
        cost = np.array([arc.logic_ns + self._net_ns(arc) for arc in self._arcs])
        return places, starts, stops, cost, list(_levels(starts, stops, len(places)))

    def _arrivals(self, launched: Mapping[int, Launch]) -> tuple[dict[int, float], dict[int, _Arc]]:
        """When a net's value is there, in ns after the clock, and by which arc it came last."""
        places, starts, stops, cost, levels = self._graph
        arrival = np.full(len(places), -np.inf)
        for node, found in launched.items():
            if node in places:
                arrival[places[node]] = found[0]
        last = np.full(len(places), -1, np.int64)
        for arcs in levels:
            reached = arrival[starts[arcs]] + cost[arcs]
            order = np.lexsort((reached, stops[arcs]))
            ends = stops[arcs][order]
            best = order[np.flatnonzero(np.r_[ends[1:] != ends[:-1], True])]
            chosen = arcs[best[reached[best] > arrival[stops[arcs][best]]]]
            arrival[stops[chosen]] = arrival[starts[chosen]] + cost[chosen]
            last[stops[chosen]] = chosen
        return ({node: float(arrival[place]) for node, place in places.items()},
                {node: self._arcs[last[place]] for node, place in places.items()
                 if last[place] >= 0})

    def _traced(self, index: int, last: Mapping[int, _Arc]) -> TimingPath:
        hops = []
        arc: _Arc | None = self._ends[index]
        while arc is not None:
            if arc.start >= 0 or arc.logic_ns:
                hops.append(self._hop(arc))
            bit = arc.start
            arc = last.get(bit)
        launched = self._launches.get(bit, (0.0, "constant", ""))
        hops.append(Hop(launched[2], launched[0], Net.LOCAL, 0.0, 0,
                        self._netlist.names.get(bit, ""), self._netlist.sources.get(bit, "")))
        return TimingPath(launched[1], self._end_names[index], tuple(reversed(hops)),
                    self._model.uncertainty_ns)

    def _hop(self, arc: _Arc) -> Hop:
        cell = self._netlist.cells[arc.cell] if arc.cell >= 0 else None
        names, sources = self._netlist.names, self._netlist.sources
        source = (cell.source if cell else "") or sources.get(arc.stop, "")
        return Hop(f"{cell.kind}.{arc.pin}" if cell else arc.pin, arc.logic_ns, arc.net,
                   self._net_ns(arc), self._fan_out.get(arc.start, 1),
                   names.get(arc.stop, "") if arc.stop >= 0 else "", source)

    def _end_name(self, arc: _Arc) -> str:
        if arc.cell < 0:
            return arc.pin
        cell = self._netlist.cells[arc.cell]
        out = next((bit for port in ("Q", "P", "DO", "O") for bit in cell.pins.get(port, ())
                    if bit in self._netlist.names), None)
        name = _register(cell, self._netlist, out) if out is not None else cell.name
        return name if arc.pin == "D" else f"{name} ({arc.pin})"


def _rules(cell: Cell) -> list[Delay]:
    return delays(cell.kind, cell.parameters,
                  tuple((port, len(bits)) for port, bits in cell.pins.items()))


def _nets(cell: Cell, pins: tuple[tuple[str, int], ...]) -> list[tuple[int, str]]:
    """Nets and ports of pins, constants left out."""
    return [(cell.pins[port][index], port) for port, index in pins
            if index < len(cell.pins[port]) and cell.pins[port][index] >= 0]


def _register(cell: Cell, netlist: Netlist, bit: int) -> str:
    """What a register is called: a flip-flop by its net, a block by its own name."""
    return netlist.names.get(bit, cell.name) if cell.kind.startswith("FD") else cell.name


def _word(name: str) -> str:
    """A register without its bit."""
    return re.sub(r"\[\d+\]|\.\d+\.\d+(?= \(|$)", "", name)


def _levels(starts: np.ndarray, stops: np.ndarray, nodes: int) -> Iterator[np.ndarray]:
    """Arcs by the depth of their stop, so that a start is settled first; `UserError` on a loop."""
    waiting = np.bincount(stops, minlength=nodes)
    order = np.argsort(starts, kind="stable")
    first = np.searchsorted(starts[order], np.arange(nodes + 1))
    into = np.argsort(stops, kind="stable")
    first_into = np.searchsorted(stops[into], np.arange(nodes + 1))
    ready = np.flatnonzero(waiting == 0)
    settled = 0
    while len(ready):
        settled += len(ready)
        if len(arriving := _slices(into, first_into, ready)):
            yield arriving
        leaving = _slices(order, first, ready)
        met, times = np.unique(stops[leaving], return_counts=True)
        waiting[met] -= times
        ready = met[waiting[met] == 0]
    if settled < nodes:
        raise UserError(f"{nodes - settled} nets lie on or behind a combinational loop")


def _slices(values: np.ndarray, first: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The rows of `chosen`, joined: row i is `values[first[i]:first[i + 1]]`."""
    counts = first[chosen + 1] - first[chosen]
    ends = np.cumsum(counts)
    offsets = np.repeat(first[chosen] - (ends - counts), counts)
    return values[offsets + np.arange(ends[-1] if len(ends) else 0)]
