"""Designs to begin a search with, found by a search of lower bounds in place of simulations.

A bound takes a fraction of a simulation's time, and a design is rarely good whose bounds are not.
It simulates nothing; what it hands on is judged like any other design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import cast

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Overlay
from cosim.build import Builder
from studies.evaluation.bounds import bounds_of
from studies.evaluation.values import Evaluation, Scored
from studies.search.outcomes import (
    Bound,
    Failure,
    Found,
    Objective,
    Outcome,
    Record,
    Sampler,
    Settings,
)
from studies.search.search import search
from studies.search.space import Choice, Space, Value
from studies.search.space_overlays import overlay_of
from workloads.graph import Graph

#: What tells one array from another; the best by its bounds of so many arrays are handed on.
ARRAY, ARRAYS = ("tm", "tn", "columns"), 8
BANKS = ("input_banks", "weight_banks", "output_banks")
#: Buffers of which some layers need much to have a tile at all; and what then is small.
ROOMS = ("input_words", "output_words")
SMALL = ("weight_words", "accumulator_words", "input_banks", "output_banks")
#: How axes begin that say what engines absorb, and which engines there are.
FUSED, FABRIC = "fuse_", "fabric_"
#: Axes to which bounds are nearly blind, while a simulation is not: what is least by its bounds
#: has little of them, and stalls.
UNSEEN = (*BANKS, "read_outstanding", "write_outstanding")
#: Less often than in a search of simulations: what bounds do best is to tell arrays apart.
STRETCH = 100
#: Bounds at most for each design of the search that follows: whoever asks for few waits for few.
BOUNDS_A_DESIGN = 4
AIMS = (Objective.LATENCY, Objective.ENERGY)


def bounder(graph: Graph, board: Board, base: Overlay) -> Callable[[Choice], Scored | None]:
    """Bounds by choice, for `search`; it keeps tile searches between calls."""
    builder = Builder(graph, board)

    def bound(choice: Choice) -> Scored | None:
        try:
            return bounds_of(builder, overlay_of(choice, base, board))
        except FieldError:
            return None

    return bound


def screened(space: Space, settings: Settings, start: Sequence[Choice], bound: Bound) -> Found:
    """A search of `settings.screened` designs that knows of each its lower bounds alone.

    The figures in it are bounds, so it is no answer; `promising` takes what it is good for. Of a
    small space it meets a quarter at most, and four for each design of the search that follows.
    """
    def answer(choices: Sequence[Choice]) -> Iterator[Outcome]:
        for choice in choices:
            least = bound(choice)
            # The search reads latency, energy and resources, and no more.
            yield cast(Evaluation, least) if least else Failure("cannot be built or mapped", 1.0)

    count = min(settings.screened, BOUNDS_A_DESIGN * settings.designs, space.size() // 4)
    quick = replace(settings, designs=count, attempts=4 * count, sampler=Sampler.NSGA2,
                    objectives=AIMS, stretch=STRETCH)
    return search(answer, space, quick, [space.nearest(choice) for choice in start])


def seen(space: Space) -> Space:
    """The space with the last value alone of the axes `UNSEEN`: as much as there may be."""
    return replace(space, axes=tuple(
        replace(axis, values=axis.values[-1:]) if axis.name in UNSEEN else axis
        for axis in space.axes))


def roomy(space: Space, found: Found, bound: Bound) -> list[Choice]:
    """Designs whose bounds are lower than all in `found`, with some room in INPUT and OUTPUT beside
    the smallest other buffers; of each of the best arrays of `found` the best one with fusions as
    they are, and the best one without any.

    A layer that has a tile in large buffers alone is the processor's elsewhere, and so is one
    whose engine is not there because another absorbs what it can. Single steps of a search do not
    lead from there to a design that has the engine, the room, and an array beside which both fit.
    """
    axes = {axis.name: axis.values for axis in space.axes}
    small = {name: axes[name][0] for name in SMALL if name in axes}
    small |= {name: axes[name][-1] for name in UNSEEN if name in axes and name not in SMALL}
    arrays = _by_array(found)[:ARRAYS]
    best: dict[tuple[int, bool], tuple[float, Choice]] = {}
    for number, (_, record) in enumerate(arrays):
        apart = {name: value for name, value in record.choice.items()
                 if not name.startswith((FUSED, FABRIC))}
        apart |= {name: False for name in axes if name.startswith(FUSED)}
        for choice, sizes in product((record.choice, apart),
                                     product(*(axes.get(room, ()) for room in ROOMS))):
            tried = space.nearest({**choice, **small, **dict(zip(ROOMS, sizes, strict=True))})
            least, key = bound(tried), (number, choice is apart)
            if least is not None and _merit(least) < best.get(key, arrays[0])[0]:
                best[key] = _merit(least), tried
    return [choice for _, choice in sorted(best.values(), key=lambda item: item[0])]


def promising(found: Found) -> list[Choice]:
    """Of the arrays whose least product of latency and energy is lowest the design that has it,
    then the front of latency and energy; each once."""
    first = _by_array(found)[:ARRAYS]
    chosen = dict.fromkeys([*(record.number for _, record in first), *found.front])
    return [found.records[number].choice for number in chosen]


def _by_array(found: Found) -> list[tuple[float, Record]]:
    """Of each array the design of the least product of latency and energy; the lowest first."""
    best: dict[tuple[Value | None, ...], tuple[float, Record]] = {}
    for record in found.records:
        if record.evaluation is not None:
            array, merit = tuple(map(record.choice.get, ARRAY)), _merit(record.evaluation)
            if array not in best or merit < best[array][0]:
                best[array] = merit, record
    return sorted(best.values(), key=lambda item: item[0])


def _merit(scored: Scored) -> float:
    return prod(aim.of(scored) for aim in AIMS)
