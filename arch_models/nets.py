"""How long nets take, and the longest paths of the RTL's parts, as data (`timing_grid.csv`).

It knows no netlist and no cell, and no overlay: `studies.resources.paths` asks it for every hop of
a path, `clock` for the rows of its parts.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache, cached_property
from math import hypot, log2
from pathlib import Path

from arch_models.fields import build
from arch_models.files import read_toml

GRID_FILE = Path(__file__).parent / "data" / "timing_grid.csv"
CLOCK_FILE = Path(__file__).parent / "data" / "clock.toml"
#: Columns of the grid that tell the rows of a part apart, with `form`.
NUMBERS = ("tm", "tn", "columns", "dsp_packing", "requantize_cycles", "depth", "lanes", "width",
           "channels", "engines", "inputs", "outputs")


class Net(Enum):
    """What a hop is made of."""

    GENERAL = "general"  # switch boxes and wires
    LOCAL = "local"  # within a slice: a LUT's output to its flip-flop or its carry
    CASCADE = "cascade"  # dedicated wires: carry chains, wide multiplexers, DSP columns


@dataclass(frozen=True)
class NetModel:
    """Delay of a hop in ns: `(base + doubling * log2(fan-out)) * (1 + share_factor * share)`.

    `base_ns`, `doubling_ns`: in an empty fabric. `share_factor`: how much longer at a full one.
    `uncertainty_ns`: what jitter and skew take from a period.
    """

    base_ns: float
    doubling_ns: float
    share_factor: float
    uncertainty_ns: float

    def delay_ns(self, net: Net, fan_out: int, share: float) -> float:
        """A hop with so many sinks, at a share (0 to 1) of the fabric's LUTs used."""
        if net is not Net.GENERAL:
            return 0.0
        found = self.base_ns + self.doubling_ns * log2(max(1, fan_out))
        return found * (1 + self.share_factor * share)


@dataclass(frozen=True)
class ClockErrors:
    """Natural logarithms of routed over predicted clocks: their mean, and standard deviations.

    `public`: of public designs analysed as netlists; `grid`: of a netlist against the grid's rows.
    """

    public_mean: float
    public_spread: float
    grid_spread: float

    @property
    def spread(self) -> float:
        """Both together, as if independent."""
        return hypot(self.public_spread, self.grid_spread)


@dataclass(frozen=True)
class ClockData:
    """The shipped figures."""

    net: NetModel
    errors: ClockErrors


@cache
def read_clock_data(path: Path = CLOCK_FILE) -> ClockData:
    """The figures of a file; `FieldError` for one that is none."""
    return build(ClockData, read_toml(path), "", [])


def read_net_model() -> NetModel:
    """The shipped net model."""
    return read_clock_data().net


class Way(StrEnum):
    """Where a path runs: between registers of a part, or over its boundary.

    A way over a boundary is gone by units, by the places between, and by memories in turn.
    """

    INSIDE = "inside"
    TOKENS_OUT = "tokens out"  # between units and the control, seen from the part
    TOKENS_IN = "tokens in"
    COMMANDS_OUT = "commands out"
    COMMANDS_IN = "commands in"
    COUNTS_OUT = "counts out"
    COUNTS_IN = "counts in"
    REQUESTS_OUT = "requests out"
    REQUESTS_IN = "requests in"
    BURSTS_OUT = "bursts out"
    BURSTS_IN = "bursts in"
    LENGTHS_OUT = "lengths out"
    LENGTHS_IN = "lengths in"
    READS_OUT = "reads out"  # beats that a bus brings
    READS_IN = "reads in"
    WORDS_OUT = "words out"  # what a bus is given,
    WORDS_IN = "words in"
    BEATS_OUT = "beats out"  # and who is ready
    BEATS_IN = "beats in"
    READ_ADDRESS = "read address"  # an engine asks a memory
    READ_DATA = "read data"  # and takes its answer
    WRITE = "write"  # an engine writes
    LOAD = "load"  # a master that reads DRAM writes
    STORE = "store"  # a master that writes DRAM asks
    STORE_DATA = "store data"  # and takes the answer
    ENTERS = "enters"  # what comes from an engine ends between units and memories
    ARRIVES = "arrives"  # what comes from a master does
    ASKS = "asks"  # what is there asks a memory
    FILLS = "fills"  # or writes one
    TAKES = "takes"  # what a memory answers ends there
    HANDS = "hands"  # and goes on to a unit


@dataclass(frozen=True)
class PartPath:
    """The longest path of a part in one way.

    `logic_ns`: cells; `hops`: nets of the general kind; `doublings`: the sum of log2 of their
    fan-outs. A net over the boundary counts where it enters. `start`, `end`: registers or ports.
    """

    part: str
    way: Way
    logic_ns: float
    hops: int
    doublings: float
    start: str
    end: str

    def nets_ns(self, model: NetModel, share: float) -> float:
        """Nets at a share (0 to 1) of the fabric used."""
        return ((model.base_ns * self.hops + model.doubling_ns * self.doublings)
                * (1 + model.share_factor * share))

    def ns(self, model: NetModel, share: float) -> float:
        """Cells and nets."""
        return self.logic_ns + self.nets_ns(model, share)


@dataclass(frozen=True, eq=False)
class Row:
    """Parameters of a part and its longest paths. Numbers that a part does not have are 0.

    A row is equal to itself alone, so that what follows from rows is quickly found again.
    """

    part: str
    numbers: tuple[tuple[str, int], ...]
    form: str
    paths: tuple[PartPath, ...]

    @cached_property
    def _by_way(self) -> dict[Way, PartPath]:
        return {item.way: item for item in reversed(self.paths)}

    def path(self, way: Way) -> PartPath | None:
        """The longest in one way, None if there is none."""
        return self._by_way.get(way)


#: The rows that a part may have, None if it may not be there.
Options = Sequence[Row | None]


@cache
def read_grid(path: Path = GRID_FILE) -> tuple[Row, ...]:
    """The rows of the grid: lines of a file that have the same parameters are one."""
    found: dict[tuple, list[PartPath]] = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            numbers = tuple((name, int(line[name])) for name in line if name in NUMBERS)
            found.setdefault((line["part"], numbers, line["form"]), []).append(PartPath(
                line["part"], Way(line["way"]), float(line["logic_ns"]), int(line["hops"]),
                float(line["doublings"]), line["start"], line["end"]))
    return tuple(Row(part, numbers, form, tuple(paths))
                 for (part, numbers, form), paths in found.items())


def every_row(part: str) -> Options:
    """All rows of a part: what it has in any overlay is one of them."""
    return [row for row in read_grid() if row.part == part]


def fastest_ns(kind: tuple[Options, ...], way: Way, share: float,
               model: NetModel) -> float | None:
    """The least that the way through a kind of parts takes; None where it may not exist."""
    least, pieces = -1.0, []
    for options in kind:
        found = [row.path(way) if row else None for row in options]
        pieces += [item for item in found if item]
        if options and all(found):
            least = max(least, min(item.ns(model, 0.0) for item in found if item))
    if least < 0:
        return None
    return min(item.ns(model, share) for item in pieces if item.ns(model, 0.0) >= least)
