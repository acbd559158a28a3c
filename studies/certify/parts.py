"""What the designs of a box need of a board at the least, and the clock they reach at the most.

It has no numbers of its own: sites and periods are those of `arch_models`, part by part. A part
depends on few axes (`DEPENDS`), so the least of it over a box is the least over their values; a sum
is at least the sum of the least parts. A part with too many combinations counts as nothing.

The clock: of each part a set of rows is known that holds the row of every design. The period is the
longest of several paths, so each path gives a bound. A path inside a part takes no less than in its
fastest row. A path over several parts is gone, in each kind of part, through the one that is
slowest in an empty fabric: so through one that is no faster there than the fastest rows of all; of
such rows the bound takes the one that is fastest at the share of the fabric that is used. A larger
share makes no path shorter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

from arch_models.board import Board
from arch_models.channels import FED
from arch_models.clock import LEAST_SPEED, LEGS, rows_of
from arch_models.engines import Resources
from arch_models.nets import Options, Row, Way, every_row, fastest_ns, read_clock_data
from arch_models.overlay import NOMINAL_CLOCK_HZ, Overlay, Rate, Role
from arch_models.power.energy import Sites
from arch_models.power.fabric import speed_ratio
from arch_models.resources import ENTRY_BITS, UNPACK, block_design, part_sites
from arch_models.units import ROUNDING
from studies.certify.boxes import Box, Sides, fewest_masters
from studies.search.space import CLOCK, MOVABLE, OWN_AXES, Choice, Value
from studies.search.space_overlays import overlay_of, width_axis

T = TypeVar("T")
#: Names and values of some axes.
Chosen = tuple[tuple[str, Value], ...]
#: More combinations than this are not looked at.
MOST = 128
#: The same for parts that do not depend on the array, so that many boxes share them.
MOST_SHARED = 4096
#: Shares of the LUTs that a ceiling of the clock is worked out at, in steps of one part of so many.
SHARES = 512
ENGINES = tuple(f"fabric_{engine.value}" for engine in MOVABLE)
#: Axes that engines bring with them.
BROUGHT = tuple(name for axes in OWN_AXES.values() for name in axes)
PORTS = ("input_port", "input_port_2", "weight_port", "output_port", "fetch_port")
MASTERS = ("input_masters", "fetch")
_ARRAY = ("tm", "tn", "columns")
_FUSED = ("fuse_pool", "fuse_upsample")  # they say which engines exist
#: Axes that say which engines a design has; those of engines that the weight master feeds.
SETS = (*ENGINES, *_FUSED)
FED_AXES = frozenset({f"fabric_{engine.value}" for engine in FED})
ROLES = {"input_port": Role.INPUT, "input_port_2": Role.INPUT, "weight_port": Role.WEIGHT,
         "output_port": Role.OUTPUT, "fetch_port": Role.FETCH}
#: Axes on which the sites of a part, and its row in the grid of the clock, depend; the axis of a
#: port stands for the width of the master there, of parts in `BY_BEATS` for the beats it moves.
DEPENDS: Mapping[str, tuple[str, ...]] = {
    "convolution": (*_ARRAY, "dsp_packing", "requantize_cycles", "narrow_weights", "fuse_add",
                    *MASTERS),
    "engine": ("tm", "tn", "vector_entries", "parameter_entries", *MASTERS),
    **{engine.value: ("tm", "tn", "vector_entries", "parameter_entries", *axes, *MASTERS)
       for engine, axes in OWN_AXES.items() if axes},
    "unpack": ("tm", "tn", "dsp_packing", "narrow_weights"),
    "zero points": ("tn", "columns", "zero_points", *ENGINES),
    "buffer input": ("tn", "columns", "input_words", "input_banks", "input_masters",
                     "input_port", "input_port_2"),
    "buffer output": ("tm", "output_words", "output_banks", "output_port"),
    "buffer skip": ("fuse_add", "tm", "output_words", "output_banks", "input_port"),
    "buffer weight": ("tm", "tn", "weight_words", "weight_banks", "weight_port"),
    "buffer accumulator": ("tm", "columns", "accumulator_words"),
    "buffer parameters": ("tm", "columns", "requantize_cycles", "parameter_entries",
                          "weight_port"),
    "buffer": ("vector_entries", "table_bytes", *BROUGHT, *ENGINES, *_FUSED, "weight_port"),
    "buffer tensors": ("tensor_memory_kib", *PORTS),
    **{f"master {port.replace('_port', '')}": (*ENGINES, *_FUSED, *MASTERS, port)
       for port in PORTS},
    "reader row": (*ENGINES, *_FUSED, *MASTERS, "input_port"),
    "writer row": (*ENGINES, *_FUSED, *MASTERS, "output_port"),
    "control row": (*ENGINES, *_FUSED, *MASTERS, *PORTS),
    "places row": (*_ARRAY, "requantize_cycles", *ENGINES, *_FUSED, *MASTERS, *PORTS),
    "control": ("tm", "tn", "fuse_add", *ENGINES, *_FUSED, *MASTERS, "weight_port"),
    "memory input": ("tn", "input_words", "input_banks", "input_masters", *PORTS),
    "memory output": ("tm", "output_words", "output_banks", *PORTS),
    "memory weight": ("tm", "tn", "weight_words", "weight_banks", *PORTS),
    "memory accumulator": ("tm", "accumulator_words"),
}
#: Parts that depend on how many beats a master moves in a cycle, one at least.
BY_BEATS = frozenset({name for name in DEPENDS if name.startswith(("buffer", "memory"))}
                     | {"control"})
#: Parts that depend on how many engines a design has, and how many of them the weight master feeds,
#: not on which.
BY_COUNT = frozenset({"control", "control row", "places row", "reader row", "writer row",
                      *(name for name in DEPENDS if name.startswith("master"))})
#: Parts that depend on the widest master alone.
BY_WIDEST = frozenset({"control row", "places row"})
#: As in `clock.memory_rows`.
MEMORIES = ("memory input", "memory output", "memory weight", "memory accumulator")
#: The parts that these are in the grid.
GRID = {"reader row": "read_master", "writer row": "write_master", "control row": "control",
        "places row": "places", **dict.fromkeys(MEMORIES, "buffer")}
#: Parts that every design has.
ALWAYS = ("convolution", "buffer input", "buffer output", "buffer weight", "buffer accumulator",
          "buffer parameters", "master input", "master weight", "master output", "control")


@cache
def _kind(part: str) -> str:
    """Under which name a part is in `DEPENDS`."""
    return next(name for name in (part, part.split()[0], "engine") if name in DEPENDS)


def depends(part: str) -> tuple[str, ...]:
    """The axes on which a part of `resources.estimate` depends."""
    return DEPENDS[_kind(part)]


@cache
def _split(part: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same axes: those that set no port, and those that do."""
    names = depends(part)
    return tuple(name for name in names if name not in PORTS), tuple(
        name for name in names if name in PORTS)


def _grain(part: str, bits: int) -> int:
    """What a part depends on of a master's width."""
    return max(1, bits // ENTRY_BITS) if _kind(part) in BY_BEATS else bits


def _widths(names: Sequence[str], axes: Container[str]) -> list[str]:
    """Of the axes of a space those that set the widths of masters at these ports."""
    return list(dict.fromkeys(width_axis(ROLES[name], axes) for name in names))


class Parts:
    """Sites and clocks of the designs around a base on a board; keeps what it worked out."""

    def __init__(self, board: Board, base: Overlay) -> None:
        self.board, self.base = board, base
        self._plain = replace(base, rate=Rate.FIXED, clock_hz=NOMINAL_CLOCK_HZ)
        self._sites: dict[Hashable, Resources] = {}
        self._least: dict[Hashable, Resources] = {}
        self._totals: dict[Sides, Resources] = {}
        self._ceilings: dict[Hashable, float] = {}
        self._widths: dict[Hashable, int] = {}
        #: By what is asked, the part and the axes that combine: by their values.
        self._asked: dict[Hashable, dict[Hashable, Any]] = {}
        self._counts: dict[Hashable, list[Chosen]] = {}
        self._row_of: dict[Hashable, Row] = {}
        self._rows: dict[Hashable, Options] = {}

    def overlay(self, choice: Choice) -> Overlay:
        """The overlay of a choice at the nominal clock: no clock is predicted."""
        return overlay_of({name: value for name, value in choice.items() if name != CLOCK},
                          self._plain, self.board)

    def least(self, box: Box) -> Resources:
        """Sites that every design of the box needs."""
        if box.sides not in self._totals:
            self._totals[box.sides] = sum(
                (self.part(box, part) for part in self._there(box)), self.around(box))
        return self._totals[box.sides]

    def sites(self, box: Box) -> Sites:
        """The same part by part, without the block design, for those that every design has."""
        return tuple((part, self.part(box, part)) for part in self._there(box))

    def rate(self, box: Box, role: Role) -> float:
        """Bytes a cycle that the masters of a role move at the most."""
        base = self.base.masters_of(role)
        names = [name for name in PORTS if ROLES[name] is role and box.may_have_named(name)]
        wanted = (box.values(width_axis(role, box.names))
                  or tuple({master.width_bits for master in base}))
        ports = ({str(port) for name in names for port in box.values(name)}
                 or {master.port for master in base})
        count = max(map(int, box.values("input_masters") or (len(base),))) if (
            role is Role.INPUT) else len(base)
        return count / 8 * max(self.board.port(port).nearest_width(int(bits))
                               for port in ports for bits in wanted)

    def keeps(self, box: Box) -> bool:
        """May any design of the box keep tensors on chip?"""
        return any(box.values("tensor_memory_kib") or (self.base.tensor_memory_kib,))

    def around(self, box: Box) -> Resources:
        """The block design, with the fewest masters of the box."""
        key = ("around", box.values("input_masters"), box.values("fetch"))
        if key not in self._least:
            self._least[key] = block_design(self.overlay(box.design(fewest_masters(box))))
        return self._least[key]

    def part(self, box: Box, part: str) -> Resources:
        """The least sites of one part that every design of the box has."""
        key = self.said(box, part)
        known = self._least.get(key)
        if known is None:
            found = list(self._each(box, part, self._sites_of))
            known = self._least[key] = Resources(*(
                min((getattr(item, kind) for item in found), default=0)
                for kind in ("dsp", "bram36", "lut", "ff")))
        return known

    def _there(self, box: Box) -> Iterator[str]:
        yield from ALWAYS
        if set(box.values("input_masters")) == {2}:
            yield "master input_2"
        if box.values("fuse_add") in ((True,), ()):
            yield "buffer skip"
        if (box.values("narrow_weights") or (self.base.narrow_weights,)) == (True,):
            yield UNPACK
        if all(box.values("tensor_memory_kib") or (self.base.tensor_memory_kib,)):
            yield "buffer tensors"
        yield from self._sure(box)

    @staticmethod
    def _sure(box: Box) -> Iterator[str]:
        """Engines that every design of the box has, besides the convolution."""
        for name in ENGINES:
            if box.values(name) == (True,) and box.must_have(box.root.axis(name)):
                yield name.removeprefix("fabric_")

    def _sites_of(self, part: str, choice: Choice) -> Resources:
        key = self._key(part, choice)
        found = self._sites.get(key)
        if found is None:
            found = self._sites[key] = part_sites(self.overlay(choice), part)
        return found

    def _key(self, part: str, choice: Choice) -> Hashable:
        plain, named = _split(part)
        ports = [(name in choice, self.width(choice, name)) for name in named]
        bits = ((max((mine for chosen, mine in ports if chosen), default=0),
                 *(mine for chosen, mine in ports if not chosen)) if part in BY_WIDEST
                else [_grain(part, mine) for _, mine in ports])
        return part, *map(choice.get, plain), *bits

    @staticmethod
    def said(box: Box, part: str) -> Hashable:
        """All that a box says of what a part depends on."""
        return part, *map(box.values, depends(part)), *map(
            box.values, _widths(_split(part)[1], box.names))

    def width(self, choice: Choice, port: str) -> int:
        """Bits of the master whose port this axis names."""
        role = ROLES[port]
        key = (port, choice.get(port), choice.get(width_axis(role, choice)))
        if key not in self._widths:
            masters = self.base.masters_of(role) or self.base.masters
            known, (_, name, bits) = masters[-1 if port == "input_port_2" else 0], key
            self._widths[key] = self.board.port(str(name or known.port)).nearest_width(
                known.width_bits if bits is None else int(bits))
        return self._widths[key]

    def by_width(self, box: Box, name: str) -> list[Box]:
        """Parts of a box by how wide the master is whose port an axis names."""
        widths: dict[int | None, list] = {}
        for port in box.values(name):
            widths.setdefault(self.width(box.design({name: port}), name), []).append(port)
        return [box.narrowed(**{name: tuple(ports)}) for ports in widths.values()]

    def _ports(self, box: Box, part: str) -> dict[str, tuple[Value, ...]]:
        """Of the axes of ports on which a part depends, and of those of widths there, values of
        which others are no different to it."""
        sides: dict[str, tuple[Value, ...]] = {}
        for name in _split(part)[1]:
            axis = width_axis(ROLES[name], box.names)
            wanted = box.values(axis)
            kinds: dict[tuple[int, ...], Value] = {}
            for value in box.values(name) if box.may_have_named(name) else box.values(name)[:1]:
                port = self.board.port(str(value))
                widths = [port.nearest_width(int(bits)) for bits in wanted] or port.widths_bits
                kinds.setdefault(tuple(_grain(part, bits) for bits in widths), value)
            if kinds:
                sides[name] = tuple(kinds.values())
            if wanted and axis not in sides:
                sides[axis] = wanted[:1]
            if not kinds or any(len(set(widths)) > 1 for widths in kinds):
                sides |= {axis: wanted} if wanted else {}
        return sides

    def _each(self, box: Box, part: str, asked: Callable[[str, Choice], T]) -> Iterator[T]:
        """What is asked of a part, for each combination of the values of the axes on which it
        depends; nothing if there are too many.

        Of ports that have the same widths one is enough.
        """
        names = depends(part)
        sides = {name: box.values(name) for name in names if box.values(name)}
        sides |= self._ports(box, part)
        if math.prod(map(len, sides.values())) > (MOST if "tm" in names else MOST_SHARED):
            return
        engines: list[Chosen] = [()]
        if _kind(part) in BY_COUNT:
            engines = self._counted(box)
            sides = {name: values for name, values in sides.items() if name not in SETS}
        known = self._asked.setdefault((asked.__name__, part, tuple(sides)), {})
        for mine, values in itertools.product(engines, itertools.product(*sides.values())):
            if (mine, values) not in known:
                known[mine, values] = asked(part, box.design(
                    {**dict(mine), **dict(zip(sides, values, strict=True))}))
            yield known[mine, values]

    def _counted(self, box: Box) -> list[Chosen]:
        """Values of the axes that say which engines there are, in each of all sets of engines in
        the box that differ to the parts `BY_COUNT`."""
        sides = {name: box.values(name) for name in SETS if box.values(name)}
        key = tuple(sides.items())
        if key not in self._counts:
            found: dict[tuple[int, int], Chosen] = {}
            for values in itertools.product(*sides.values()):
                choice = box.design(dict(zip(sides, values, strict=True)))
                there = [name for name in ENGINES if choice.get(name)]
                found.setdefault((len(there), len(FED_AXES.intersection(there))),
                                 tuple(zip(sides, values, strict=True)))
            self._counts[key] = list(found.values())
        return self._counts[key]

    def ceiling_hz(self, box: Box, least: Resources) -> int:
        """No design of the box has a faster clock. `least`: sites of the box."""
        if self.base.rate is Rate.FIXED and not box.values(CLOCK):
            return self.base.clock_hz
        if box.values(CLOCK):
            return max(self.board.clocks.rates_hz)
        share = min(1.0, (least.lut - self.around(box).lut) / self.board.part.lut)
        share = math.floor(share * SHARES) / SHARES  # so that many boxes have one
        control, places, *memories = (self._options(box, part) for part in (
            "control row", "places row", *MEMORIES))
        units = [self._options(box, part) for part in (
            "convolution", *self._sure(box), "reader row", "writer row")]
        key = (share, control, places, *memories, *units)
        if key not in self._ceilings:
            self._ceilings[key] = ceiling_mhz(RowSets(
                (*units, *self._others()), tuple(memories), (control,), (places,)), share,
                self.board)
        return self.board.clocks.fastest_hz(self._ceilings[key] * 1e6)

    def _options(self, box: Box, part: str) -> Options:
        """The rows that a part of the grid of the clock may have in a box: an engine, the first
        master that reads or writes, the control, a memory, or what lies between."""
        key = self.said(box, part)
        if key not in self._rows:
            self._rows[key] = (tuple(dict.fromkeys(self._each(box, part, self._row)))
                               or tuple(every_row(GRID.get(part, part))))
        return self._rows[key]

    def _row(self, part: str, choice: Choice) -> Row:
        key = self._key(part, choice)
        if key not in self._row_of:
            rows = rows_of(self.overlay(choice))
            units = {row.part: row for row in reversed(rows.units)}  # of masters the first
            found = {**units, "reader row": units["read_master"],
                     "writer row": units["write_master"], "control row": rows.control[0],
                     "places row": rows.places[0],
                     **dict(zip(MEMORIES, rows.memories, strict=True))}
            for name, row in found.items():
                self._row_of[self._key(name, choice)] = row
        return self._row_of[key]

    @staticmethod
    def _others() -> list[list[Row | None]]:
        """Every other unit, which may or may not be there."""
        return [[None, *every_row(part)] for part in (
            *(name.removeprefix("fabric_") for name in ENGINES), "read_master", "write_master")]


class RowSets(NamedTuple):
    """Of each part the rows that it may have, None if it may not be there; fields as in
    `clock.Rows`."""

    units: tuple[Options, ...]
    memories: tuple[Options, ...]
    control: tuple[Options, ...]
    places: tuple[Options, ...]


def ceiling_mhz(rows: RowSets, share: float, board: Board) -> float:
    """No overlay whose rows are among these, and which uses at least this share of the board's
    LUTs, is predicted to be faster."""
    model = read_clock_data().net
    longest = 0.0
    for kind in rows:
        for options in kind:
            inside = [row.path(Way.INSIDE) if row else None for row in options]
            if all(inside):
                longest = max(longest, min(item.ns(model, share) for item in inside if item))
    for leg in LEGS:
        pieces = [fastest_ns(getattr(rows, kind), way, share, model) for kind, way in leg]
        if all(piece is not None for piece in pieces):
            longest = max(longest, sum(piece for piece in pieces if piece is not None))
    period = (longest + model.uncertainty_ns) * board.part.fabric_delay
    ratio = max(speed_ratio(board.power.vccint_ratio), LEAST_SPEED)
    return 1000 / period * ratio * (1 + ROUNDING)
