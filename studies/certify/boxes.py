"""Boxes of a space: products of some values of every axis.

It knows no bound. A box is the space with fewer values; its parts by one axis are disjoint and
together it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from arch_models.overlay import Start
from studies.search.space import Axis, Choice, Space, Value

#: Cycles in which results leave the array: fewer only make it faster and larger.
PACE = "requantize_cycles"
Sides = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class Box:
    """The designs of `root` whose values lie in `sides` (axes that are not named: any).

    `sides` is in the order of the axes, so that equal boxes are equal.
    """

    root: Space
    sides: Sides = ()
    _values: Mapping[str, tuple[Value, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_values", {axis.name: axis.values for axis in self.root.axes}
                           | dict(self.sides))

    def values(self, name: str) -> tuple[Value, ...]:
        """Values of an axis in the box; none for an axis that the space lacks."""
        return self._values.get(name, ())

    @property
    def names(self) -> Container[str]:
        """Axes of the space."""
        return self._values.keys()

    def narrowed(self, **chosen: tuple[Value, ...]) -> Box:
        """The part of the box with these values alone."""
        sides = {**self._values, **chosen}
        return Box(self.root, tuple((axis.name, sides[axis.name]) for axis in self.root.axes
                                    if axis.name in sides and sides[axis.name] != axis.values))

    def parts(self, name: str) -> list[Box]:
        """One box for each value of an axis."""
        return [self.narrowed(**{name: (value,)}) for value in self.values(name)]

    def may_have(self, axis: Axis) -> bool:
        """Has any design of the box this axis?"""
        return axis.when is None or (self.may_have_named(axis.when.axis) and bool(
            set(self.values(axis.when.axis)) & set(axis.when.values)))

    def may_have_named(self, name: str) -> bool:
        """The same by name; no design has an axis that the space lacks."""
        return bool(self.values(name)) and self.may_have(self.root.axis(name))

    def must_have(self, axis: Axis) -> bool:
        """Has every design of the box this axis?"""
        return axis.when is None or (
            self.must_have(self.root.axis(axis.when.axis))
            and set(self.values(axis.when.axis)) <= set(axis.when.values))

    @cached_property
    def open(self) -> tuple[str, ...]:
        """Axes that leave a choice."""
        return tuple(axis.name for axis in self.root.axes
                     if len(self.values(axis.name)) > 1 and self.may_have(axis))

    @property
    def space(self) -> Space:
        """The box as a space of its own."""
        return replace(self.root, axes=tuple(replace(axis, values=self.values(axis.name))
                                             for axis in self.root.axes))

    @cached_property
    def designs(self) -> int:
        """How many different designs it holds."""
        return self.space.size()

    def design(self, chosen: Mapping[str, Value] | None = None) -> Choice:
        """A design of the box: the first value of every axis that `chosen` does not name."""
        return self.root.canonical({**self._first, **(chosen or {})})

    @cached_property
    def _first(self) -> Choice:
        return {name: values[0] for name, values in self._values.items()}


def fewest_starts(box: Box) -> dict[str, Value]:
    """What starts the accelerator least often in a box."""
    return {"start": Start.FRAME.value} if Start.FRAME.value in box.values("start") else {}


def quickest(box: Box) -> dict[str, Value]:
    """The same, and what has results leave the array soonest."""
    paces = [int(value) for value in box.values(PACE)]
    return {**fewest_starts(box), **({PACE: min(paces)} if paces else {})}


def fewest_masters(box: Box) -> dict[str, Value]:
    """What has the fewest masters."""
    found: dict[str, Value] = {}
    if box.values("input_masters"):
        found["input_masters"] = min(box.values("input_masters"))
    if "on_chip" in box.values("fetch"):
        found["fetch"] = "on_chip"
    return found
