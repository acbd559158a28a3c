"""Evaluates every design of a space with `flat`, on all cores, and keeps the objectives.

It chooses nothing. Designs that share a lowered program are evaluated together (see `batch`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.clock import clocked
from arch_models.fields import FieldError
from arch_models.files import read_arrays
from arch_models.overlay import Master, Overlay
from cosim.recurrence.cuda import CudaTimer
from studies.evaluation.batch import Batch
from studies.evaluation.values import MICROJOULES, MILLISECONDS
from studies.plain.errors import UserError
from studies.plain.files import write_whole
from studies.plain.machine import processor_seconds
from studies.plain.workers import forked
from studies.search.space import CLOCK, Choice, Space, Value, designs
from studies.search.space_overlays import overlay_of, rate_hz
from workloads.graph import Graph

#: Axes that change masters but no row of a program, and those that such masters depend on.
PORTS = frozenset({"input_port", "input_port_2", "weight_port", "output_port", "fetch_port",
                   "read_outstanding", "write_outstanding", "max_burst_beats"})
MASTERS_FOLLOW = ("input_masters", "port_width_bits", "fetch")
#: Axes within a `Grid` of designs besides the masters.
WITHIN = frozenset({CLOCK, "dsp_packing"})
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

    def choice(self, code: int) -> Choice:
        """The values of a code; axes that are absent there have their first one."""
        found: Choice = {}
        for name, places in self.places.items():
            values = list(places)
            code, digit = divmod(code, len(values))
            found[name] = values[digit]
        return found


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
        table = read_arrays(path)
        wall, processor = (float(value) for value in table["cost"])
        found = Enumerated(table["codes"], table["latency_ms"], table["energy_uj_per_pixel"],
                           wall, processor)
    except (FieldError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no table of an enumeration ({error})") from None
    if found.codes.ndim != 1 or found.codes.dtype != np.int64 or np.any(
            np.diff(found.codes) <= 0) or not (
            found.codes.shape == found.latency_ms.shape == found.energy_uj_per_pixel.shape):
        raise UserError(f"{path}: no table of an enumeration (codes must ascend, with two figures "
                        "each)")
    return found


class Piece(NamedTuple):
    """All designs that go on from one choice: packing P, clock C, ports and limits M.

    `codes`, `cycles`: int64 (P, C, M); `latency_ms`, `energy_uj_per_pixel`: (P, C, M), NaN where
    infeasible, and `cycles` mean nothing there. `timed`: recurrences that were evaluated.
    """

    codes: np.ndarray
    cycles: np.ndarray
    latency_ms: np.ndarray
    energy_uj_per_pixel: np.ndarray
    timed: int


@dataclass
class Part:
    """What a process needs to evaluate a share; it goes to the process with every share."""

    graph: Graph
    board: Board
    base: Overlay
    space: Space

    def table(self, choices: list[Choice]) -> np.ndarray:
        """(designs, 3): code, latency in ms, energy in uJ a pixel of all ways to go on."""
        return np.concatenate([
            np.stack([piece.codes, piece.latency_ms, piece.energy_uj_per_pixel], -1).reshape(-1, 3)
            for piece in Walker(self).walk(choices)])

    def outer(self) -> list[Choice]:
        """The choices to go on from."""
        axes = [axis for axis in self.space.axes if axis.name not in UNTIMED]
        return list(designs(self.space, axes))

    def overlay(self, choice: Choice) -> Overlay | None:
        """The overlay of a choice, axes within a grid at their first value; None if there is no
        such hardware."""
        whole = {axis.name: axis.values[0] for axis in self.space.axes if axis.name in WITHIN}
        try:
            return overlay_of(whole | choice, self.base, self.board)
        except FieldError:
            return None


class Walker:
    """Evaluates all ways to go on from choices, and keeps what they share. `gpu`: see `Batch`."""

    def __init__(self, part: Part, gpu: CudaTimer | None = None) -> None:
        self.part, self.codes = part, Codes(part.space)
        self.batch = Batch(part.graph, part.board, gpu=gpu)
        self.packings = [bool(item) for item in part.space.axis("dsp_packing").values]
        self.free_clock = CLOCK in self.codes.places
        clocks = self.codes.of(CLOCK) if self.free_clock else np.zeros(1, np.int64)
        self.within = self.codes.of("dsp_packing")[:, None, None] + clocks[:, None]
        self.known: dict[tuple, tuple[Choice, np.ndarray, list[tuple[Master, ...]]]] = {}

    def walk(self, choices: Iterable[Choice]) -> Iterator[Piece]:
        """One piece a choice, in order."""
        for choice in choices:
            key = tuple(choice[name] for name in MASTERS_FOLLOW)
            if key not in self.known:
                self.known[key] = self._masters(choice)
            first, offsets, masters = self.known[key]
            codes = self.codes.code(choice) + self.within + offsets
            overlay = self.part.overlay(choice | first)
            if overlay is None:
                nothing = np.full(codes.shape, np.nan)
                yield Piece(codes, np.full(codes.shape, -1), nothing, nothing, 0)
                continue
            cycles = np.full(codes.shape, -1, np.int64)
            latency, energy = (np.full(codes.shape, np.nan) for _ in range(2))
            timed = 0
            for hertz, packings in self._clocks(overlay):
                found = self.batch.grid(overlay, [self.packings[item] for item in packings],
                                        hertz, masters)
                good = ~np.isnan(found.energy_j)
                timed += int(good.any(axis=0).sum())
                cycles[packings] = found.latency_cycles
                latency[packings] = np.where(good, found.latency_cycles / np.array(
                    hertz)[:, None] * MILLISECONDS, np.nan)
                energy[packings] = found.energy_j / self.batch.pixels * MICROJOULES
            yield Piece(codes, cycles, latency, energy, timed)

    def _clocks(self, overlay: Overlay) -> list[tuple[list[int], list[int]]]:
        """Rates in Hz, and the packings that are evaluated at them: all at all rates of the axis,
        or each at the rate that is predicted for it."""
        every = list(range(len(self.packings)))
        if self.free_clock:
            return [([rate_hz(int(value), self.part.board)
                      for value in self.part.space.axis(CLOCK).values], every)]
        found: dict[int, list[int]] = {}
        for item in every:
            one = clocked(replace(overlay, dsp_packing=self.packings[item]), self.part.board)
            found.setdefault(one.clock_hz, []).append(item)
        return [([rate], packings) for rate, packings in found.items()]

    def _masters(self, choice: Choice) -> tuple[Choice, np.ndarray, list[tuple[Master, ...]]]:
        """A way to choose ports and limits; the codes and the masters of every way."""
        axes = [axis for axis in self.part.space.axes if axis.name in PORTS]
        ways = [{name: way[name] for name in way if name in PORTS}
                for way in designs(self.part.space, axes, choice)]
        overlays = [self.part.overlay(choice | way) for way in ways]
        return (ways[0], np.array([self.codes.code(way) for way in ways]),
                [overlay.masters for overlay in overlays if overlay is not None])


def enumerate_space(graph: Graph, board: Board, base: Overlay, space: Space, workers: int = 1,
                    progress: Callable[[int], None] | None = None) -> Enumerated:
    """Evaluate all designs; `progress` is told how many more are done."""
    began, used = time.perf_counter(), processor_seconds()
    part = Part(graph, board, base, space)
    choices = part.outer()
    shares = [choices[start : start + SHARE] for start in range(0, len(choices), SHARE)]
    parts = []
    with ExitStack() as stack:
        tables: Iterable[np.ndarray] = map(part.table, shares)
        if workers > 1:
            tables = stack.enter_context(forked(part.table, workers)).map(shares)
        for table in tables:
            parts.append(table)
            if progress:
                progress(len(table))
    whole = np.concatenate(parts)
    whole = whole[np.argsort(whole[:, 0])]
    return Enumerated(whole[:, 0].astype(np.int64), whole[:, 1], whole[:, 2],
                      time.perf_counter() - began, processor_seconds() - used)
