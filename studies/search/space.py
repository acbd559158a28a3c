"""The design space as data: axes with legal values, conditions and constraints between axes.

It does not sample or evaluate; see `search`, and `space_overlays` for what a choice stands for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import combinations

from arch_models.board import Board
from arch_models.engines import MODELS
from arch_models.overlay import (
    Engine,
    Fetch,
    Fusion,
    Layout,
    Role,
    Start,
)
from cosim.mapping.choose import engines_for
from cosim.mapping.words import asks_for_zero_points
from studies.plain.errors import UserError
from workloads.graph import Graph

Value = bool | int | str
Choice = dict[str, Value]

#: Engines whose place, fabric or ARM, is a choice. Convolution stays in fabric: on the ARM one
#: frame would take most of a minute, at the host costs of the board file.
MOVABLE = tuple(engine for engine in Engine if engine is not Engine.CONVOLUTION)
MEGAHERTZ = 1_000_000
#: An axis that a space file may add: a rate in MHz for all designs, whatever they reach.
CLOCK = "clock_mhz"
#: The axis that says which network is run.
WORKLOAD = "workload"
#: Axes that set the field of the overlay with the same name.
SIZES = ("tm", "tn", "columns", "requantize_cycles", "input_words", "weight_words",
         "output_words", "accumulator_words", "input_banks", "weight_banks", "output_banks",
         "parameter_entries", "vector_entries", "table_bytes", "tensor_memory_kib",
         *(name for model in MODELS for name in model.axes))
#: Axes of an engine's own, which exist while it is in fabric.
OWN_AXES = {model.engine: model.axes for model in MODELS}
#: Roles whose width may be an axis of its own, in place of one for all.
WIDTH_ROLES = (Role.INPUT, Role.WEIGHT, Role.OUTPUT)
#: The array's three extents share the DSPs, the buffers the block RAM.
COUPLINGS = (("tm", "tn", "columns"),
             ("input_words", "weight_words", "output_words", "accumulator_words", "input_banks",
              "weight_banks", "output_banks"))


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
            if axis.name in seen:
                raise UserError(f"axis {axis.name!r} is there twice")
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
        return self._named[name]

    @cached_property
    def _named(self) -> dict[str, Axis]:
        return {axis.name: axis for axis in self.axes}

    def active(self, axis: Axis, choice: Mapping[str, Value]) -> bool:
        """Does this axis exist, given what was chosen so far?"""
        return axis.when is None or choice.get(axis.when.axis) in axis.when.values

    def canonical(self, choice: Mapping[str, Value]) -> Choice:
        """The choice without axes that do not exist in it; equal designs become equal.

        Raises `UserError` when a value is missing or not legal.
        """
        kept: Choice = {}
        for name, values, parent, wanted in self._rows:
            if parent and kept.get(parent) not in wanted:
                continue
            value = choice.get(name)
            if value not in values:
                raise UserError(f"axis {name!r}: {value!r}, must be one of {values}")
            kept[name] = value  # type: ignore[assignment]
        return kept

    @cached_property
    def _rows(self) -> tuple[tuple[str, tuple[Value, ...], str, tuple[Value, ...]], ...]:
        """Of each axis its name and values, and those of its condition."""
        return tuple((axis.name, axis.values, *((axis.when.axis, axis.when.values) if axis.when
                                                else ("", ()))) for axis in self.axes)

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
        return [(axis.name, other) for axis in self.axes for other in self.along(axis, choice)]

    def along(self, axis: Axis, choice: Mapping[str, Value]) -> list[Choice]:
        """Every choice that differs in this axis; none if the choice does not have it."""
        return [self._moved(choice, {axis.name: value}) for value in axis.values
                if axis.name in choice and value != choice[axis.name]]

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
    """All the axes, with the ports that the board has. The clock is none: it follows.

    `graph`: leaves out engines that it has no work for, which no design then has.
    """
    movable = [engine for engine in MOVABLE if graph is None or engine in engines_for(graph)]
    ports = tuple(port.name for port in board.ports)
    switch = (False, True)
    axes = [
        Axis("tm", (8, 16, 24, 32, 40, 48, 64)),
        Axis("tn", (8, 16, 24, 32)),
        Axis("columns", (1, 2, 3, 4)),
        Axis("dsp_packing", switch),
        Axis("requantize_cycles", (4, 8, 16)),
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
        axes += [Axis(name, values, Condition(f"fabric_{engine.value}", (True,)))
                 for name, values in OWN_AXES[engine].items()]
    if graph is not None and any(asks_for_zero_points(layer) for layer in graph.layers):
        axes.append(Axis("zero_points", (True,)))
    return Space(tuple(axes), COUPLINGS)
