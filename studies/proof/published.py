"""A benchmark for optimizers: the figures of every design of a space, and the score of a search.

It searches nothing. The table is `studies/data/agc_w16_designs.npz`; `cosim study proof --again`
makes it. Its format: arrays `codes` (int64, ascending), `latency_ms` and `energy_uj_per_pixel`
(float64, NaN where a design cannot be built or mapped), all of one length. The code of a design is
its place in a mixed radix over the axes of `search_proof.toml`, the first axis counting by one; an
axis that a design does not have counts as its first value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arch_models.board import load_board
from studies.plain.errors import UserError
from studies.plain.truth import CARRIED
from studies.proof.enumeration import Codes, Enumerated, load_enumerated
from studies.search.front import hypervolume, pareto_mask
from studies.search.space import Axis, Space, Value
from studies.search.space_file import load_space
from workloads.library import load

WORKLOAD, BOARD = "agc-w16", "pynq-z1"
FOLDER = Path(__file__).parent
SPACE = FOLDER / "search_proof.toml"
TABLE = CARRIED / "agc_w16_designs.npz"
#: The reference point of the hypervolume: so many times the worst of each on the true front.
REFERENCE = 1.1


@dataclass(frozen=True)
class Truth:
    """A space that is known whole, and what a search of it can be measured by."""

    space: Space
    front: np.ndarray
    reference: np.ndarray

    @property
    def best_latency_ms(self) -> float:
        """The smallest latency of all designs."""
        return float(self.front[:, 0].min())

    @property
    def hypervolume(self) -> float:
        """Area that the true front dominates."""
        return hypervolume(self.front, self.reference)


def truth_of(space: Space, points: np.ndarray) -> Truth:
    """The front of points (n, 2) and the reference point that follows from it."""
    front = points[pareto_mask(points)]
    return Truth(space, front, REFERENCE * front.max(axis=0))


class Figures(NamedTuple):
    """Of a design that is feasible (predicted, one frame, the memory `flat`)."""

    latency_ms: float
    energy_uj_per_pixel: float


class Score(NamedTuple):
    """`regret`: best latency over the true best, minus one; infinite without a feasible design.
    `hypervolume`: area that the found front dominates over that of the true front."""

    regret: float
    hypervolume: float


@dataclass(frozen=True)
class Benchmark:
    """A space and its table."""

    space: Space
    table: Enumerated

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Names and values; an axis with `when` exists only while another has certain values."""
        return self.space.axes

    @cached_property
    def truth(self) -> Truth:
        """The best there is."""
        return truth_of(self.space, self.table.points)

    @cached_property
    def _codes(self) -> Codes:
        return Codes(self.space)

    def figures(self, choice: Mapping[str, Value]) -> Figures | None:
        """Of a design, None if it is infeasible. An axis that it does not have is left aside;
        `UserError` for one that is missing, or a value that the axis does not have."""
        found = Figures(*self.table.figures(self._codes.code(self.space.canonical(choice))))
        return None if np.isnan(found.latency_ms) else found

    def score(self, tried: Iterable[Mapping[str, Value]]) -> Score:
        """Of the designs that a search has tried."""
        return score(self.truth, np.array([found for choice in tried
                                           if (found := self.figures(choice))]))


def score(truth: Truth, points: np.ndarray) -> Score:
    """Of the feasible designs' latencies and energies (n, 2)."""
    if not len(points):
        return Score(np.inf, 0.0)
    return Score(float(points[:, 0].min()) / truth.best_latency_ms - 1,
                 hypervolume(points, truth.reference) / truth.hypervolume)


def open_benchmark(table: Path = TABLE, space: Path = SPACE) -> Benchmark:
    """The space that ships and its table; `UserError` if the file is not that space's."""
    board, graph = load_board(BOARD), load(WORKLOAD)
    axes, known = load_space(space, board, graph), load_enumerated(table)
    if len(known.codes) != axes.size():
        raise UserError(f"{table}: holds {len(known.codes)} designs, the space {axes.size()}; "
                        "run `cosim study proof --again`")
    return Benchmark(axes, known)
