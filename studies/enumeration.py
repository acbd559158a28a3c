"""Evaluates every design of a space with `flat`, on all cores, and keeps the objectives.

It chooses nothing. Designs that share a lowered program are evaluated together (see `batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Overlay
from studies.batch import Batch, Figures
from studies.errors import UserError
from studies.files import write_whole
from studies.space import Axis, Choice, Space, Value, overlay_of
from workloads.graph import Graph

#: Axes that change no row of a program; they are walked innermost.
UNTIMED = frozenset({"clock_mhz", "dsp_packing", "input_port", "input_port_2", "weight_port",
                     "output_port", "fetch_port", "read_outstanding", "write_outstanding"})
#: Lowered programs a worker takes at once.
SHARE = 64


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


class Codes:
    """Numbers designs: mixed radix over the axes' values, absent axes at their first value."""

    def __init__(self, space: Space) -> None:
        self.places: dict[str, dict[Value, int]] = {}
        step = 1
        for axis in space.axes:
            self.places[axis.name] = {value: index * step
                                      for index, value in enumerate(axis.values)}
            step *= len(axis.values)

    def code(self, choice: Mapping[str, Value]) -> int:
        """The number of a canonical choice; KeyError for a value the space does not have."""
        return sum(self.places[name][value] for name, value in choice.items())


@dataclass(frozen=True)
class Enumerated:
    """Every design of a space: its code (ascending) and its figures; NaN where infeasible."""

    codes: np.ndarray
    latency_ms: np.ndarray
    energy_uj_per_pixel: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        """Which designs can be built and mapped."""
        return ~np.isnan(self.latency_ms)

    @property
    def points(self) -> np.ndarray:
        """(feasible designs, 2): latency in ms and energy in uJ a pixel."""
        return np.column_stack([self.latency_ms, self.energy_uj_per_pixel])[self.feasible]

    def figures(self, code: int) -> tuple[float, float]:
        """Latency and energy of one design; KeyError for an unknown code."""
        place = int(np.searchsorted(self.codes, code))
        if place == len(self.codes) or self.codes[place] != code:
            raise KeyError(code)
        return float(self.latency_ms[place]), float(self.energy_uj_per_pixel[place])

    def save(self, path: Path) -> None:
        """Write a compressed `.npz`."""
        write_whole(path, lambda file: np.savez_compressed(
            file, codes=self.codes, latency_ms=self.latency_ms,
            energy_uj_per_pixel=self.energy_uj_per_pixel))


def load_enumerated(path: Path) -> Enumerated:
    """Read what `Enumerated.save` wrote; `UserError` for anything else."""
    try:
        with np.load(path) as table:
            return Enumerated(table["codes"], table["latency_ms"], table["energy_uj_per_pixel"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no table of an enumeration ({error})") from None


@dataclass(frozen=True)
class _Part:
    """What a process needs to evaluate a share; it goes to the process with every share."""

    graph: Graph
    board: Board
    base: Overlay
    space: Space

    def table(self, choices: list[Choice]) -> np.ndarray:
        """(designs, 3): code, latency, energy of all ways to go on from the choices."""
        inner = [axis for axis in self.space.axes if axis.name in UNTIMED]
        batch, codes = Batch(self.graph, self.board), Codes(self.space)
        rows: list[tuple[float, float, float]] = []
        for choice in choices:
            whole = list(designs(self.space, inner, choice))
            built = [self._overlay(item) for item in whole]
            known = iter(batch.evaluate([item for item in built if item is not None]))
            for item, overlay in zip(whole, built, strict=True):
                found = None if overlay is None else next(known)
                rows.append((codes.code(item), found.latency_ms, found.energy_uj_per_pixel)
                            if isinstance(found, Figures) else (codes.code(item), np.nan, np.nan))
        return np.array(rows, float)

    def _overlay(self, choice: Choice) -> Overlay | None:
        try:
            return overlay_of(choice, self.base, self.board)
        except FieldError:
            return None


def enumerate_space(graph: Graph, board: Board, base: Overlay, space: Space, workers: int = 1,
                    progress: Callable[[int], None] | None = None) -> Enumerated:
    """Evaluate all designs; `progress` is told how many more are done."""
    outer = [axis for axis in space.axes if axis.name not in UNTIMED]
    choices = list(designs(space, outer))
    shares = [choices[start : start + SHARE] for start in range(0, len(choices), SHARE)]
    part = _Part(graph, board, base, space)
    parts = []
    with ExitStack() as stack:
        run = map
        if workers > 1:
            run = stack.enter_context(  # type: ignore[assignment]
                ProcessPoolExecutor(workers, mp_context=get_context("fork"))).map
        for table in run(part.table, shares):
            parts.append(table)
            if progress:
                progress(len(table))
    whole = np.concatenate(parts)
    whole = whole[np.argsort(whole[:, 0])]
    return Enumerated(whole[:, 0].astype(np.int64), whole[:, 1], whole[:, 2])
