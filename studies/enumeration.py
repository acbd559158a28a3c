"""Evaluates every design of a space with `flat`, on all cores, and keeps the objectives.

It chooses nothing. Designs that share a lowered program are evaluated together (see `batch`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

import numpy as np

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Master, Overlay
from studies.batch import Batch
from studies.errors import UserError
from studies.evaluation import MICROJOULES, MILLISECONDS
from studies.files import write_whole
from studies.space import MEGAHERTZ, Choice, Space, Value, designs, overlay_of
from workloads.graph import Graph

#: Axes that change masters but no row of a program, and those that such masters depend on.
PORTS = frozenset({"input_port", "input_port_2", "weight_port", "output_port", "fetch_port",
                   "read_outstanding", "write_outstanding"})
MASTERS_FOLLOW = ("input_masters", "port_width_bits", "fetch")
#: Axes within a `Grid` of designs besides the masters.
WITHIN = frozenset({"clock_mhz", "dsp_packing"})
#: Axes that change no row of a program; they are walked innermost.
UNTIMED = PORTS | WITHIN
#: Lowered programs a worker takes at once.
SHARE = 64


class Codes:
    """Numbers designs: mixed radix over the axes' values, absent axes at their first value."""

    def __init__(self, space: Space) -> None:
        self.places: dict[str, dict[Value, int]] = {}
        step = 1
        for axis in space.axes:
            self.places[axis.name] = {value: index * step
                                      for index, value in enumerate(axis.values)}
            step *= len(axis.values)

    def of(self, name: str) -> np.ndarray:
        """int64 (values): what each value of an axis adds to a code."""
        return np.array(list(self.places[name].values()), np.int64)

    def code(self, choice: Mapping[str, Value]) -> int:
        """The number of a canonical choice; KeyError for a value the space does not have."""
        return sum(self.places[name][value] for name, value in choice.items())


@dataclass(frozen=True)
class Enumerated:
    """Every design of a space: its code (ascending) and its figures; NaN where infeasible.

    `seconds`, `processor_seconds`: what the enumeration took, by the clock and of all cores.
    """

    codes: np.ndarray
    latency_ms: np.ndarray
    energy_uj_per_pixel: np.ndarray
    seconds: float
    processor_seconds: float

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
            energy_uj_per_pixel=self.energy_uj_per_pixel,
            cost=np.array([self.seconds, self.processor_seconds])))


def load_enumerated(path: Path) -> Enumerated:
    """Read what `Enumerated.save` wrote; `UserError` for anything else."""
    try:
        with np.load(path) as table:
            return Enumerated(table["codes"], table["latency_ms"], table["energy_uj_per_pixel"],
                              *table["cost"].tolist())
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no table of an enumeration ({error})") from None


@dataclass
class _Part:
    """What a process needs to evaluate a share; it goes to the process with every share."""

    graph: Graph
    board: Board
    base: Overlay
    space: Space

    def table(self, choices: list[Choice]) -> np.ndarray:
        """(designs, 3): code, latency in ms, energy in uJ a pixel of all ways to go on."""
        batch, codes = Batch(self.graph, self.board), Codes(self.space)
        packings = self.space.axis("dsp_packing").values
        clocks = self.space.axis("clock_mhz").values
        hertz = np.array([int(value) * MEGAHERTZ for value in clocks])
        grid_codes = (codes.of("dsp_packing")[:, None, None] + codes.of("clock_mhz")[:, None])
        known: dict[tuple, tuple[list[Choice], list[tuple[Master, ...]]]] = {}
        parts = []
        for choice in choices:
            key = tuple(choice[name] for name in MASTERS_FOLLOW)
            if key not in known:
                known[key] = self._masters(choice)
            ways, masters = known[key]
            offsets = np.array([codes.code(way) for way in ways])
            table = np.full((len(packings), len(clocks), len(ways), 3), np.nan)
            table[..., 0] = codes.code(choice) + grid_codes + offsets
            overlay = self._overlay(choice | ways[0])
            if overlay is not None:
                found = batch.grid(overlay, [bool(item) for item in packings], hertz.tolist(),
                                   masters)
                seconds = found.latency_cycles / hertz[:, None]
                table[..., 2] = found.energy_j / batch.pixels * MICROJOULES
                table[..., 1] = np.where(np.isnan(found.energy_j), np.nan,
                                         seconds * MILLISECONDS)
            parts.append(table.reshape(-1, 3))
        return np.concatenate(parts)

    def _masters(self, choice: Choice) -> tuple[list[Choice], list[tuple[Master, ...]]]:
        """The ways to choose ports and limits, and the masters of each."""
        axes = [axis for axis in self.space.axes if axis.name in PORTS]
        ways = [{name: way[name] for name in way if name in PORTS}
                for way in designs(self.space, axes, choice)]
        overlays = [self._overlay(choice | way) for way in ways]
        return ways, [overlay.masters for overlay in overlays if overlay is not None]

    def _overlay(self, choice: Choice) -> Overlay | None:
        whole = {axis.name: axis.values[0] for axis in self.space.axes if axis.name in WITHIN}
        try:
            return overlay_of(whole | choice, self.base, self.board)
        except FieldError:
            return None


def enumerate_space(graph: Graph, board: Board, base: Overlay, space: Space, workers: int = 1,
                    progress: Callable[[int], None] | None = None) -> Enumerated:
    """Evaluate all designs; `progress` is told how many more are done."""
    began, used = time.perf_counter(), _processor_seconds()
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
    return Enumerated(whole[:, 0].astype(np.int64), whole[:, 1], whole[:, 2],
                      time.perf_counter() - began, _processor_seconds() - used)


def _processor_seconds() -> float:
    """Of this process and those that it started and that have ended."""
    return sum(getrusage(who).ru_utime + getrusage(who).ru_stime
               for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
