"""The design space as data: axes with legal values, conditions between axes, and the overlay a
choice stands for. It does not sample or evaluate; see `search`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, islice

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import (
    Engine,
    Fetch,
    Fusion,
    Layout,
    Master,
    Overlay,
    Role,
    Start,
)
from arch_models.resources import check
from cosim.mapping.choose import engines_for
from studies.plain.errors import UserError
from workloads.graph import Graph

Value = bool | int | str
Choice = dict[str, Value]

#: Engines whose place, fabric or ARM, is a choice. Convolution stays in fabric: on the ARM one
#: frame would take most of a minute, at the host costs of the board file.
MOVABLE = (Engine.ELEMENTWISE, Engine.LOOKUP, Engine.POOL, Engine.UPSAMPLE, Engine.SOFTMAX,
           Engine.GRID_SAMPLE, Engine.NORM)
MEGAHERTZ = 1_000_000
#: The axis that says which network is run.
WORKLOAD = "workload"
#: Axes that set the field of the overlay with the same name.
SIZES = ("tm", "tn", "columns", "requantize_cycles", "input_words", "weight_words",
         "output_words", "accumulator_words", "input_banks", "weight_banks", "output_banks",
         "parameter_entries", "vector_entries", "table_bytes")
#: Roles whose width may be an axis of its own, in place of one for all.
WIDTH_ROLES = (Role.INPUT, Role.WEIGHT, Role.OUTPUT)
#: The array's three extents share the DSPs.
COUPLINGS = (("tm", "tn", "columns"),)


@dataclass(frozen=True, slots=True)
class Condition:
    """An axis exists only while another axis has one of these values."""

    axis: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """One decision and its legal values, in order."""

    name: str
    values: tuple[Value, ...]
    when: Condition | None = None


class Combine(StrEnum):
    """How a constraint takes the values of its axes together."""

    PRODUCT = "product"
    SUM = "sum"


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on the product or the sum of axes, e.g. weight_words * tm * tn <= 2**20.

    An axis that does not exist in a choice is left out.
    """

    how: Combine
    axes: tuple[str, ...]
    at_most: int | None = None
    at_least: int | None = None

    def value(self, choice: Mapping[str, Value]) -> int:
        """The product or the sum in one choice."""
        numbers = [int(choice[name]) for name in self.axes if name in choice]
        return math.prod(numbers) if self.how is Combine.PRODUCT else sum(numbers)

    def excess(self, choice: Mapping[str, Value]) -> float:
        """By which part of the bound the choice breaks it; 0 if it does not."""
        value, over = self.value(choice), 0.0
        if self.at_most is not None and value > self.at_most:
            over = (value - self.at_most) / max(1, abs(self.at_most))
        if self.at_least is not None and value < self.at_least:
            over = (self.at_least - value) / max(1, abs(self.at_least))
        return over

    def __str__(self) -> str:
        sign = " * " if self.how is Combine.PRODUCT else " + "
        bounds = [f"{word} {bound}" for word, bound in
                  (("at most", self.at_most), ("at least", self.at_least)) if bound is not None]
        return f"{sign.join(self.axes)} must be {' and '.join(bounds)}"


@dataclass(frozen=True)
class Space:
    """Axes in order; a condition may only name an axis that stands before it.

    `couplings`: groups of axes that share a resource, so that the way from one good design to the
    next changes two at once (an array of 24 x 8 and one of 8 x 24 take the same DSPs).
    """

    axes: tuple[Axis, ...]
    couplings: tuple[tuple[str, ...], ...] = ()
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, Axis] = {}
        for axis in self.axes:
            if not axis.values or len(set(axis.values)) != len(axis.values):
                raise UserError(f"axis {axis.name!r}: {axis.values}, must be different values, "
                                "at least one")
            if axis.when and axis.when.axis not in seen:
                raise UserError(f"axis {axis.name!r}: its condition names {axis.when.axis!r}, "
                                "which must stand before it")
            seen[axis.name] = axis

    def broken(self, choice: Mapping[str, Value]) -> Constraint | None:
        """The constraint that a choice breaks by most, None if it keeps them all."""
        worst = max(self.constraints, key=lambda item: item.excess(choice), default=None)
        return worst if worst is not None and worst.excess(choice) > 0 else None

    def axis(self, name: str) -> Axis:
        """The axis of that name; KeyError if there is none."""
        return next(axis for axis in self.axes if axis.name == name)

    def active(self, axis: Axis, choice: Mapping[str, Value]) -> bool:
        """Does this axis exist, given what was chosen so far?"""
        return axis.when is None or choice.get(axis.when.axis) in axis.when.values

    def canonical(self, choice: Mapping[str, Value]) -> Choice:
        """The choice without axes that do not exist in it; equal designs become equal.

        Raises `UserError` when a value is missing or not legal.
        """
        kept: Choice = {}
        for axis in self.axes:
            if not self.active(axis, kept):
                continue
            if axis.name not in choice or choice[axis.name] not in axis.values:
                raise UserError(f"axis {axis.name!r}: {choice.get(axis.name)!r}, must be one of "
                                f"{axis.values}")
            kept[axis.name] = choice[axis.name]
        return kept

    def nearest(self, choice: Mapping[str, Value]) -> Choice:
        """The choice with legal values: where one is not, the nearest number, else the last value.

        Axes that `choice` lacks take their last value too.
        """
        moved: Choice = {}
        for axis in self.axes:
            value = choice.get(axis.name, axis.values[-1])
            moved[axis.name] = value if value in axis.values else _nearest_value(axis, value)
        return self.canonical(moved)

    def size(self) -> int:
        """How many different designs there are (conditions counted, infeasible ones included)."""
        def ways(axis: Axis) -> int:
            children = [(child, child.when) for child in self.axes
                        if child.when is not None and child.when.axis == axis.name]
            return sum(math.prod(ways(child) for child, when in children if value in when.values)
                       for value in axis.values)

        return math.prod(ways(axis) for axis in self.axes if axis.when is None)

    def neighbours(self, choice: Mapping[str, Value]) -> list[tuple[str, Choice]]:
        """Every choice that differs in one axis, with that axis' name.

        Axes that come into being by the change take their last value.
        """
        found = []
        for axis in self.axes:
            if axis.name not in choice:
                continue
            for value in axis.values:
                if value != choice[axis.name]:
                    found.append((axis.name, self._moved(choice, {axis.name: value})))
        return found

    def coupled(self, choice: Mapping[str, Value]) -> list[Choice]:
        """Every choice that differs in two axes of a coupling, see `neighbours`."""
        found = []
        for names in self.couplings:
            for first, second in combinations([name for name in names if name in choice], 2):
                found += [self._moved(choice, {first: one, second: other})
                          for one in self.axis(first).values if one != choice[first]
                          for other in self.axis(second).values if other != choice[second]]
        return found

    def _moved(self, choice: Mapping[str, Value], changes: Mapping[str, Value]) -> Choice:
        last = {axis.name: axis.values[-1] for axis in self.axes}
        return self.canonical({**last, **choice, **changes})

    def sample(self, generator: random.Random) -> Choice:
        """One choice, each existing axis drawn alike."""
        choice: Choice = {}
        for axis in self.axes:
            if self.active(axis, choice):
                choice[axis.name] = generator.choice(axis.values)
        return choice


def _nearest_value(axis: Axis, wanted: Value) -> Value:
    numbers = [item for item in (wanted, *axis.values)
               if isinstance(item, int) and not isinstance(item, bool)]
    if len(numbers) <= len(axis.values):
        return axis.values[-1]
    return min(numbers[1:], key=lambda legal: abs(legal - numbers[0]))


def designs(space: Space, axes: Iterable[Axis] | None = None,
            given: Mapping[str, Value] | None = None) -> Iterator[Choice]:
    """Every design of a space, or every way to go on from a choice with some of its axes."""
    found: list[Choice] = [dict(given or {})]
    order = list(space.axes if axes is None else axes)
    if not order:
        yield from found
        return
    first, rest = order[0], order[1:]
    if not space.active(first, found[0]):
        yield from designs(space, rest, found[0])
        return
    for value in first.values:
        yield from designs(space, rest, {**found[0], first.name: value})


def default_space(board: Board, graph: Graph | None = None) -> Space:
    """All the axes, with the ports and clocks that the board has.

    `graph`: leaves out engines that it has no work for, which no design then has.
    """
    movable = [engine for engine in MOVABLE if graph is None or engine in engines_for(graph)]
    ports = tuple(port.name for port in board.ports)
    clocks = tuple(mhz for mhz in (100, 111, 125, 142, 150, 166, 187, 200)
                   if board.clocks.minimum_hz <= mhz * MEGAHERTZ <= board.clocks.usual_max_hz)
    switch = (False, True)
    axes = [
        Axis("tm", (8, 16, 24, 32, 40, 48, 64)),
        Axis("tn", (8, 16, 24, 32)),
        Axis("columns", (1, 2, 3, 4)),
        Axis("dsp_packing", switch),
        Axis("requantize_cycles", (4, 8, 16)),
        Axis("clock_mhz", clocks),
        Axis("input_words", (1024, 2048, 4096, 8192, 16384)),
        Axis("weight_words", (128, 256, 512, 1024, 2048)),
        Axis("output_words", (512, 1024, 2048, 4096, 8192)),
        Axis("accumulator_words", (256, 512, 1024, 2048, 4096)),
        Axis("input_banks", (1, 2)),
        Axis("weight_banks", (1, 2)),
        Axis("output_banks", (1, 2)),
        Axis("input_masters", (1, 2)),
        Axis("input_port", ports),
        Axis("input_port_2", ports, Condition("input_masters", (2,))),
        Axis("weight_port", ports),
        Axis("output_port", ports),
        Axis("port_width_bits", (32, 64)),
        Axis("read_outstanding", (1, 2, 4, 8, 12)),
        Axis("write_outstanding", (1, 2, 4, 8)),
        Axis("fetch", tuple(str(item.value) for item in Fetch)),
        Axis("fetch_port", ports, Condition("fetch", (Fetch.DRAM.value,))),
        Axis("start", tuple(str(item.value) for item in Start)),
        Axis("layout", tuple(str(item.value) for item in Layout)),
        *(Axis(f"fuse_{item.value}", switch) for item in Fusion),
    ]
    # With a fusion on, the convolution absorbs every pool or upsample it can, so the engine of
    # its own would stand idle; its place is a question only without the fusion.
    absorbed = {Engine.POOL: "fuse_pool", Engine.UPSAMPLE: "fuse_upsample"}
    for engine in movable:
        when = Condition(absorbed[engine], (False,)) if engine in absorbed else None
        axes.append(Axis(f"fabric_{engine.value}", switch, when))
    return Space(tuple(axes), COUPLINGS)


def overlay_of(choice: Mapping[str, Value], base: Overlay, board: Board,
               name: str = "explored") -> Overlay:
    """The overlay a choice stands for; what no axis names comes from `base`.

    A port that lacks the chosen width gets the nearest one it has. Raises `FieldError` when the
    choice describes no hardware at all.
    """
    engines = {Engine.CONVOLUTION}
    for engine in MOVABLE:
        # Without its axis an engine has no work: the operator is absorbed, or not in the graph.
        if choice.get(f"fabric_{engine.value}", False):
            engines.add(engine)
    fusions = {item for item in Fusion
               if choice.get(f"fuse_{item.value}", item in base.fusions)}
    direct = {key: int(choice[key]) for key in SIZES if key in choice}
    mhz = choice.get("clock_mhz")
    return replace(
        base, name=name, clock_hz=base.clock_hz if mhz is None else int(mhz) * MEGAHERTZ,
        dsp_packing=bool(choice.get("dsp_packing", base.dsp_packing)),
        engines=frozenset(engines), fusions=frozenset(fusions),
        masters=_masters(choice, base, board),
        fetch=Fetch(str(choice.get("fetch", base.fetch.value))),
        layout=Layout(str(choice.get("layout", base.layout.value))),
        control=replace(base.control, start=Start(str(choice.get(
            "start", base.control.start.value)))),
        **direct,  # type: ignore[arg-type]
    )


def _masters(choice: Mapping[str, Value], base: Overlay, board: Board) -> tuple[Master, ...]:
    """One master a role (two for input if asked), with the base's pipeline figures."""
    wanted = [(Role.INPUT, "input", "input_port", "read_outstanding")]
    if choice.get("input_masters", len(base.masters_of(Role.INPUT))) == 2:
        wanted.append((Role.INPUT, "input_2", "input_port_2", "read_outstanding"))
    wanted += [(Role.WEIGHT, "weight", "weight_port", "read_outstanding"),
               (Role.OUTPUT, "output", "output_port", "write_outstanding")]
    if choice.get("fetch", base.fetch.value) == Fetch.DRAM.value:
        wanted.append((Role.FETCH, "fetch", "fetch_port", "read_outstanding"))
    masters = []
    for role, name, port_axis, outstanding in wanted:
        known = (base.masters_of(role) or base.masters)[0]
        port = str(choice.get(port_axis, known.port))
        width = int(choice.get(f"{role.value}_width_bits",
                               choice.get("port_width_bits", known.width_bits)))
        masters.append(replace(
            known, name=name, role=role, port=port,
            width_bits=_nearest(width, board.port(port).widths_bits),
            outstanding=int(choice.get(outstanding, known.outstanding)),
            max_burst_beats=int(choice.get("max_burst_beats", known.max_burst_beats))))
    return tuple(masters)


def _nearest(wanted: int, legal: tuple[int, ...]) -> int:
    return min(legal, key=lambda value: abs(value - wanted))


def starting_choices(space: Space, base: Overlay, board: Board, count: int = 6) -> list[Choice]:
    """Designs to start a search from: the base, then the largest arrays that fit the board.

    Twice `count` of them: with the base's engines, and with every movable operator on the ARM,
    which leaves DSPs to the array. Each takes the base's other values, the fastest clock, packed
    DSPs, and the largest of the base's buffers, halves or quarters that still fits.
    """
    first = choice_of(base, space)
    if first is None:
        return []
    arrays = sorted(((int(tm) * int(tn) * int(columns), tm, tn, columns)
                     for tm in space.axis("tm").values for tn in space.axis("tn").values
                     for columns in space.axis("columns").values), reverse=True)
    on_arm = {name: False for name in first if name.startswith("fabric_")}
    found = [first]
    for engines in ({}, on_arm):
        fitting = (_largest_fitting(space, base, board, {
            **first, **engines, "tm": tm, "tn": tn, "columns": columns,
            "clock_mhz": max(space.axis("clock_mhz").values),
            "dsp_packing": max(space.axis("dsp_packing").values)})
            for _, tm, tn, columns in arrays)
        found += [choice for choice in islice((item for item in fitting if item), count)
                  if choice not in found]
    return found


def _largest_fitting(space: Space, base: Overlay, board: Board, wanted: Choice) -> Choice | None:
    for divisor in (1, 2, 4):
        moved = {**wanted, **{name: int(wanted[name]) // divisor
                              for name in ("input_words", "weight_words", "output_words")}}
        try:
            choice = space.canonical(moved)
            if check(overlay_of(choice, base, board), board) is None:
                return choice
        except (UserError, FieldError):
            continue
    return None


def choice_of(overlay: Overlay, space: Space) -> Choice | None:
    """The choice that stands for an overlay, or None when it lies outside the space.

    Used to start a search from designs made by hand.
    """
    try:
        return space.canonical(_values_of(overlay, space))
    except UserError:
        return None


def nearest_choice(overlay: Overlay, space: Space) -> Choice:
    """The design of the space that is nearest to an overlay (see `Space.nearest`)."""
    return space.nearest(_values_of(overlay, space))


def _values_of(overlay: Overlay, space: Space) -> Choice:
    """What an overlay has on every axis there can be, legal in the space or not."""
    inputs = overlay.masters_of(Role.INPUT)
    weight, output = overlay.masters_of(Role.WEIGHT)[0], overlay.masters_of(Role.OUTPUT)[0]
    fetch = overlay.masters_of(Role.FETCH)
    choice: Choice = {
        "tm": overlay.tm, "tn": overlay.tn, "columns": overlay.columns,
        "dsp_packing": overlay.dsp_packing,
        "requantize_cycles": overlay.requantize_cycles, "clock_mhz": overlay.clock_hz // MEGAHERTZ,
        "input_words": overlay.input_words, "weight_words": overlay.weight_words,
        "output_words": overlay.output_words, "accumulator_words": overlay.accumulator_words,
        "input_banks": overlay.input_banks, "weight_banks": overlay.weight_banks,
        "output_banks": overlay.output_banks, "input_masters": len(inputs),
        "input_port": inputs[0].port, "weight_port": weight.port, "output_port": output.port,
        "port_width_bits": min(master.width_bits for master in overlay.masters),
        "read_outstanding": weight.outstanding,
        "write_outstanding": output.outstanding, "fetch": overlay.fetch.value,
        "start": overlay.control.start.value, "layout": overlay.layout.value,
    }
    choice |= {name: getattr(overlay, name)
               for name in ("parameter_entries", "vector_entries", "table_bytes")}
    choice |= {f"{role.value}_width_bits": overlay.masters_of(role)[0].width_bits
               for role in WIDTH_ROLES}
    choice["max_burst_beats"] = min(master.max_burst_beats for master in overlay.masters)
    choice |= {axis.name: axis.values[0] for axis in space.axes if axis.name == WORKLOAD}
    if len(inputs) > 1:
        choice["input_port_2"] = inputs[1].port
    if fetch:
        choice["fetch_port"] = fetch[0].port
    choice |= {f"fuse_{item.value}": item in overlay.fusions for item in Fusion}
    choice |= {f"fabric_{engine.value}": engine in overlay.engines for engine in MOVABLE}
    return choice
