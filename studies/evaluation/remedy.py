"""Finds the nearest design that holds a network which a design does not hold.

It judges neither speed nor energy: a search does that. Only sizes of buffers and of the array move.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from arch_models.board import Board
from arch_models.clock import clocked
from arch_models.fields import FieldError
from arch_models.overlay import Infeasible, Overlay
from arch_models.resources import check
from cosim.build import Builder
from studies.evaluation.evaluate import T
from studies.plain.errors import UserError
from workloads.graph import Graph

#: Designs tried at most; each maps the network once.
MOST_TRIED = 24
#: Fields that hold a layer, and those that may give sites back.
BUFFERS = ("input_words", "weight_words", "output_words", "accumulator_words",
           "parameter_entries", "vector_entries", "table_bytes")
ARRAY = ("tm", "tn", "columns")
#: What a network whose padding stands for a zero point asks of a design.
SWITCH = "zero_points"


def held(value: T | Infeasible, graph: Graph, overlay: Overlay, board: Board) -> T:
    """The value itself, or `UserError` with the reason and which fields to change to what."""
    if not isinstance(value, Infeasible):
        return value
    raise UserError(" ".join(filter(None, (
        f"the design does not work out: {value}.", remedy(graph, overlay, board)))))


def remedy(graph: Graph, overlay: Overlay, board: Board) -> str:
    """Which fields of a design that does not hold a network to change to what; "" where no
    design near it holds the network."""
    found = nearest_design(graph, overlay, board)
    if found is None:
        return ""
    return "Nearest design that holds the network: " + ", ".join(
        f"{name} = {getattr(found, name)} (now {getattr(overlay, name)})".lower()
        for name in (*BUFFERS, *ARRAY, SWITCH)
        if getattr(found, name) != getattr(overlay, name)) + "."


def nearest_design(graph: Graph, overlay: Overlay, board: Board) -> Overlay | None:
    """The design with the fewest changed fields, then the fewest doublings and halvings, that fits
    the board and holds every layer; None where none is found.

    From each design that fails, only fields that its reason names as levers are moved, so designs
    far away are never tried.
    """
    builder, number = Builder(graph, board), itertools.count()
    left: list[tuple[int, float, int, Overlay]] = [(0, 0.0, next(number), overlay)]
    seen = {overlay}
    for _ in range(MOST_TRIED):
        if not left:
            return None
        _, _, _, design = heapq.heappop(left)
        try:
            timed = clocked(design, board)
            refused = check(timed, board)
            mapped = refused or builder.mapping(timed)
        except FieldError:
            continue
        if not isinstance(mapped, Infeasible):
            return design
        for near in _moved(design, mapped):
            if near not in seen:
                seen.add(near)
                heapq.heappush(left, (*_distance(overlay, near), next(number), near))
    return None


def _moved(design: Overlay, refused: Infeasible) -> Iterator[Overlay]:
    """Designs a step away that may lift a refusal: the field that is too small made as large as
    it must be, in powers of two; other levers halved."""
    if refused.field == SWITCH and not design.zero_points:
        yield replace(design, zero_points=True)
        return
    short = refused.field if refused.field in BUFFERS else ""
    for name in dict.fromkeys((*([short] if short else []), *refused.levers)):
        if name not in (*BUFFERS, *ARRAY):
            continue
        wanted: dict[str, Any] = {name: getattr(design, name) // 2}
        if name == short:
            wanted[name] = 1 << math.ceil(math.log2(refused.demand))
        try:
            yield replace(design, **wanted)
        except FieldError:  # no array has this size
            continue


def _distance(start: Overlay, design: Overlay) -> tuple[int, float]:
    """How many fields differ, and by how many doublings together."""
    ratios = [abs(math.log2(getattr(design, name) / getattr(start, name)))
              for name in (*BUFFERS, *ARRAY)]
    switched = start.zero_points != design.zero_points
    return sum(ratio > 0 for ratio in ratios) + switched, sum(ratios)
