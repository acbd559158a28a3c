"""Makes the grid of longest paths that the clock model reads, from netlists of parts of the RTL.

It fits and predicts nothing: `cosim study timing` writes `arch_models/data/timing_grid.csv`, whole
or some parts of it anew.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import log2
from pathlib import Path

from amaranth.hdl import UnusedElaboratable

from arch_models.channels import channels
from arch_models.clock import MEETINGS
from arch_models.nets import GRID_FILE, NUMBERS, Net, PartPath, Way, read_net_model
from studies.plain.errors import UserError, unknown
from studies.resources.netlist import synthesized
from studies.resources.paths import Paths, TimingPath
from studies.resources.resource_grid import ENGINES, PARTS, Sites, sized, top_of

#: A half-full fabric: the longest path is looked for there, and stays the longest nearby.
SHARE = 0.5
COLUMNS = ("part", *NUMBERS, "form", "way", "logic_ns", "hops", "doublings", "start", "end")
#: Pins of a unit that go to the control, by kind and by how their names begin.
CONTROL_PINS = {
    "commands": ("command",),
    "tokens": ("go", "available", "take", "give", "done", "ends"),
    "counts": ("busy_cycles", "idle_cycles", "memory_cycles", "stall_cycles"),
    "requests": ("request", "address", "length"), "bursts": ("comes",),
    "lengths": ("coming",),
    "reads": ("r_valid", "r_data", "r_last"), "words": ("w_data", "w_strobe"),
    "beats": ("w_valid", "w_ready", "b_valid")}
#: Fewer rows than the resource model's grid has: a path grows little with an array.
MASTERS = ((32, 7), (64, 3), (64, 12), (128, 7))
CONTROLS = ((1, 1, 1, 64), (4, 1, 1, 64), (8, 1, 1, 64), (4, 2, 2, 64))
PLACED = ((8, 8, 1, 8, 1, 1, 1, 64), (8, 8, 1, 8, 8, 1, 1, 64), (16, 8, 1, 8, 7, 1, 1, 64),
          (24, 24, 1, 8, 7, 1, 1, 64), (8, 16, 3, 8, 8, 1, 1, 64), (16, 16, 1, 8, 4, 2, 2, 64),
          (16, 16, 1, 8, 7, 1, 1, 128))
BUFFERS = (("plain", 1, 512), ("plain", 2, 4096), ("plain", 8, 1024), ("plain", 1, 16384),
           ("bytes", 8, 64), ("bytes", 16, 1024), ("pair", 2, 1024), ("pair_bytes", 8, 1024),
           ("pairs_read", 2, 4096), ("two", 2, 2048), ("two", 1, 8192))


def points() -> Iterator[Sites]:
    """The parts of the grid, without counts."""
    for part, model in ENGINES.items():
        yield from (sized(part, row) for row in model.grid.paths)
        for form, rows in model.grid.forms.items():
            yield from (replace(sized(part, row), form=form) for row in rows)
    for part in ("read_master", "write_master"):
        for width, waits in MASTERS:
            yield Sites(part, width=width, channels=waits)
    for engines, inputs, outputs, width in CONTROLS:
        yield _counted(Sites("control", engines=engines, inputs=inputs, outputs=outputs,
                             width=width))
    for tm, tn, columns, cycles, engines, inputs, outputs, width in PLACED:
        yield _counted(Sites("places", tm, tn, columns, requantize_cycles=cycles, engines=engines,
                             inputs=inputs, outputs=outputs, width=width))
    for form, lanes, depth in BUFFERS:
        yield Sites("buffer", form=form, lanes=lanes, depth=depth)


def _counted(row: Sites) -> Sites:
    return replace(row, channels=channels(row.overlay))


#: From where to where each way of a part runs: registers, or groups of its ports.
CONTROL = ((Way.INSIDE, "register", "register"), *(
    way for out, into in MEETINGS for kind in (out.value.removesuffix(" out"),)
    for way in ((out, "register", kind), (into, kind, "register"))))
ENGINE = (*CONTROL, (Way.READ_ADDRESS, "register", "read"), (Way.WRITE, "register", "write"),
          (Way.READ_DATA, "read", "register"))
WAYS: dict[str, tuple[tuple[Way, str, str], ...]] = {
    "read_master": (*CONTROL, (Way.LOAD, "register", "master")),
    "write_master": (*CONTROL, (Way.STORE, "register", "master"),
                     (Way.STORE_DATA, "master", "register")),
    "control": CONTROL,
    "places": ((Way.INSIDE, "register", "register"), (Way.READ_ADDRESS, "read", "memory asked"),
               (Way.WRITE, "write", "memory written"), (Way.LOAD, "master", "memory written"),
               (Way.STORE, "master", "memory asked"), (Way.READ_DATA, "memory gives", "read"),
               (Way.STORE_DATA, "memory gives", "master"),
               (Way.ENTERS, "engine", "register"), (Way.ARRIVES, "master", "register"),
               (Way.ASKS, "register", "memory asked"),
               (Way.FILLS, "register", "memory written"),
               (Way.TAKES, "memory gives", "register"), (Way.HANDS, "register", "unit")),
    "buffer": ((Way.INSIDE, "register", "register"),
               (Way.READ_ADDRESS, "memory asked", "register"),
               (Way.WRITE, "memory written", "register"),
               (Way.READ_DATA, "register", "memory gives")),
}
#: Groups that are several.
SEVERAL = {"unit": ("read", "write", "master"), "engine": ("read", "write")}
RESETS = ("clk", "rst", "ap_clk", "ap_rst_n")
#: Pins of an engine at memories, by how their names begin.
READ_PINS = ("running", "in_", "weight_", "parameter_", "skip_", "table_", "partial_read")
WRITE_PINS = ("out_", "partial_write")
#: What the pins of a memory are for.
MEMORY_PINS = {"address": "memory asked", "write": "memory written", "data": "memory gives"}


def paths_of(row: Sites) -> Iterator[PartPath]:
    """Synthesize a part and find its longest path in every way that it has."""
    found = Paths(synthesized(*top_of(row)), read_net_model(), SHARE)
    for way, begin, end in WAYS.get(row.part, ENGINE):
        for path in found.longest(1, partial(_is, row.part, begin), partial(_is, row.part, end)):
            yield part_path(row.part, way, path)


def _is(part: str, group: str, name: str) -> bool:
    found = group_of(part, name)
    return found in SEVERAL.get(group, (group,))


def group_of(part: str, name: str) -> str:
    """Where the end of a path lies: a `register`, or a port of a group; "" for no data.

    Between units and memories (`places`) a master's pins to the control are no ends.
    """
    if not name.startswith("port "):
        return "register"
    pin = name.removeprefix("port ")
    if pin in RESETS or "axi" in pin:
        return ""
    if part in ("buffer", "places"):
        # A memory with several writers numbers their ports.
        met = re.search(r"_(read|write|next)[\d_]*_(address|lanes|data)(\$\d+)?$", pin)
        if met and not pin.startswith("partial_"):
            return MEMORY_PINS["write" if met[1] == "write" else met[2]]
    else:
        for kind, begins in CONTROL_PINS.items():
            if pin.startswith(begins):
                return kind
        if part == "control":
            return ""
    if pin.startswith(READ_PINS):
        return "read"
    if pin.startswith(WRITE_PINS):
        return "write"
    return "master"


def part_path(part: str, way: Way, path: TimingPath) -> PartPath:
    """A path as the grid has it: no register and no net beyond the part's own."""
    hops = path.hops[1:] if path.start.startswith("port ") else path.hops
    nets = [hop for hop in hops if hop.net is Net.GENERAL and not hop.cell.startswith("port ")]
    return PartPath(part, way, round(sum(hop.logic_ns for hop in hops), 3), len(nets),
                    round(sum(log2(max(1, hop.fan_out)) for hop in nets), 2),
                    path.start.removeprefix("port "), path.end.removeprefix("port "))


def lines_of(row: Sites) -> Iterator[list[object]]:
    """The lines of the grid that a part makes."""
    for item in paths_of(row):
        yield [row.part, *(getattr(row, name) for name in NUMBERS), row.form, item.way.value,
               item.logic_ns, item.hops, item.doublings, item.start, item.end]


def write_lines(lines: Iterable[Sequence[object]], path: Path) -> None:
    """Write the grid as CSV, whole or not at all; until then it grows in a `.part` beside it."""
    growing = path.with_suffix(".part")
    with growing.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for line in lines:
            writer.writerow(line)
            file.flush()
    growing.replace(path)


def remade(parts: Sequence[str], path: Path) -> Iterator[Sequence[object]]:
    """Every line of the grid: of these parts anew, of the others as the file has them."""
    kept: list[list[str]] = []
    if path.exists() and set(parts) < set(PARTS):
        with path.open(newline="") as file:
            kept = list(csv.reader(file))[1:]
    for part in dict.fromkeys(row.part for row in points()):
        if part in parts:
            for row in points():
                if row.part == part:
                    yield from lines_of(row)
        else:
            yield from (line for line in kept if line[0] == part)


def remake(parts: Sequence[str], path: Path = GRID_FILE) -> None:
    """Synthesize these parts anew (none named: all) and write the grid; `UserError` if it can't."""
    known = list(dict.fromkeys(row.part for row in points()))
    for name in parts:
        if name not in known:
            raise unknown("part", name, known)
    warnings.simplefilter("ignore", UnusedElaboratable)  # parts of units that are holes
    try:
        write_lines(remade(parts or known, path), path)
    except RuntimeError as error:
        raise UserError(str(error)) from error
