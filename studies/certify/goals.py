"""What a proof makes small, and which boxes cannot hold anything that matters any more.

It bounds nothing itself. A *bar* is a set of rows of figures: a design, or a box by its bounds,
clears the bar if some row is nowhere above it. With one objective a bar is one number; with several
it stands below a front.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any, NamedTuple

import numpy as np

from studies.evaluation.values import Scored
from studies.plain.errors import UserError, unknown
from studies.search.outcomes import Objective
from studies.search.space import Value

#: A bound that open boxes gave is a quotient of floats; the claim gives way by so much.
SLACK = 1e-12


class Aim(StrEnum):
    """A figure that a proof has bounds of."""

    LATENCY = "latency"
    ENERGY = "energy"
    RESOURCES = "resources"
    PRODUCT = "product"

    @property
    def label(self) -> str:
        """Name and unit of its figure."""
        if self is Aim.PRODUCT:
            return "latency times energy (ms uJ/pixel)"
        return Objective(self.value).label

    def of(self, point: Point) -> Any:
        """Its figure; an array where the point has some."""
        if self is Aim.PRODUCT:
            return point.ms * point.uj
        return {Aim.LATENCY: point.ms, Aim.ENERGY: point.uj, Aim.RESOURCES: point.share}[self]


#: Aims whose bounds need those of energy.
POWERED = frozenset({Aim.ENERGY, Aim.PRODUCT})


class Point(NamedTuple):
    """Latency in ms, energy in uJ a pixel, the largest share of the fabric: of a design, or at
    least of a box; arrays of equal shape, too. Energy is 0 where nobody asks for it."""

    ms: Any
    uj: Any = 0.0
    share: Any = 0.0

    def raised(self, other: Point) -> Point:
        """Two bounds of one box: what is at least both."""
        return Point(*map(max, self, other))


NEVER = Point(inf, inf, inf)


def point_of(found: Scored) -> Point:
    """The figures of a design that was simulated."""
    return Point(*(item.of(found) for item in (
        Objective.LATENCY, Objective.ENERGY, Objective.RESOURCES)))


def aims_of(text: str) -> tuple[Aim, ...]:
    """The aims that a list of names with commas stands for; `UserError` for any other."""
    names = [item.strip() for item in text.split(",")]
    for name in names:
        if name not in set(Aim):
            raise unknown("objective of a proof", name, tuple(Aim))
    if len(set(names)) < len(names) or (Aim.PRODUCT.value in names and len(names) > 1):
        raise UserError(f"--objectives {text!r}: name each once, and the product alone")
    return tuple(map(Aim, names))


@dataclass(frozen=True)
class Bar:
    """Rows of figures, one each an aim. Without rows only what cannot be built clears it."""

    aims: tuple[Aim, ...]
    rows: tuple[tuple[float, ...], ...] = ()

    def cleared(self, point: Point) -> Any:
        """Is some row nowhere above the point? An array where the point has some."""
        figures = [aim.of(point) for aim in self.aims]
        found = np.isinf(point.ms)
        for row in self.rows:
            found = found | np.logical_and.reduce(
                [figure >= value for figure, value in zip(figures, row, strict=True)])
        return found

    def as_strict(self, other: Bar) -> bool:
        """Does all that clears the other bar clear this one?"""
        return all(any(all(mine <= theirs for mine, theirs in zip(row, wanted, strict=True))
                       for row in self.rows) for wanted in other.rows)


class Member(NamedTuple):
    """A design that was simulated, with its figures by aim."""

    figures: tuple[float, ...]
    choice: Mapping[str, Value]

    @property
    def order(self) -> tuple[tuple[float, ...], str]:
        """Of equally good designs the first in this order is kept."""
        return self.figures, json.dumps(dict(self.choice), sort_keys=True)

    def beats(self, other: Member) -> bool:
        """Is it nowhere worse, and of equal ones the first?"""
        return (all(mine <= theirs for mine, theirs in zip(
            self.figures, other.figures, strict=True)) and self.order <= other.order)


@dataclass(frozen=True)
class Front:
    """The best designs so far: none beats another. With one aim it is one design."""

    aims: tuple[Aim, ...]
    members: tuple[Member, ...] = ()

    def met(self, found: Iterable[Member]) -> Front:
        """With more designs."""
        members = list(self.members)
        for new in found:
            if any(known.beats(new) for known in members):
                continue
            members = [known for known in members if not new.beats(known)] + [new]
        return Front(self.aims, tuple(sorted(members, key=lambda item: item.order)))

    def bar(self, factor: float) -> Bar:
        """This part of the members' figures: what clears it need not be looked at."""
        return Bar(self.aims, tuple(tuple(figure * factor for figure in item.figures)
                                    for item in self.members))

    def reach(self, left: Iterable[Point], most: float) -> float:
        """The largest factor, `most` at the most, whose bar all the points that are left clear."""
        bar, least = self.bar(most), most
        for point in left:
            if not bar.cleared(point):
                figures = [aim.of(point) for aim in self.aims]
                least = min(least, max(
                    (min(figure / mine for figure, mine in zip(figures, item.figures, strict=True))
                     for item in self.members), default=0.0) * (1 - SLACK))
        return least
