"""Explains the difference of two designs layer by layer and stall by stall until it adds up.

It does not say which is better for a user; it says where the time and the energy went.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from arch_models.overlay import Infeasible
from arch_models.power.energy import Ratio, ratio
from studies.evaluation.evaluate import Run, at_clock, evaluate, simulate_design
from studies.evaluation.inputs import Subject
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.why.account import Cell, account
from studies.why.critical import by_unit, shares


@dataclass(frozen=True)
class Difference:
    """Cycles under one name in A and in B, with their clocks; exact."""

    name: str
    a_cycles: int
    b_cycles: int
    a_hz: int
    b_hz: int

    @property
    def delta_s(self) -> Fraction:
        """B minus A in seconds."""
        return Fraction(self.b_cycles, self.b_hz) - Fraction(self.a_cycles, self.a_hz)

    @property
    def a_ms(self) -> float:
        """Milliseconds in A."""
        return self.a_cycles / self.a_hz * 1e3

    @property
    def b_ms(self) -> float:
        """Milliseconds in B."""
        return self.b_cycles / self.b_hz * 1e3

    @property
    def delta_ms(self) -> float:
        """B minus A in milliseconds."""
        return float(self.delta_s * 1000)


@dataclass(frozen=True)
class Part:
    """Joules of one part of a frame's energy in A and in B."""

    name: str
    a_j: float
    b_j: float


@dataclass(frozen=True)
class Comparison:
    """Two evaluations and where their latencies and energies differ; largest difference first.

    `cells` (layer: state of its engine, see `account`), `layers`, `states` and `units` (of the
    critical path) each hold every cycle of the two latencies once, so each sums to both exactly.
    `energy` sums to the two energies of a frame. `energy_ratio`: B over A, None on two boards.
    `at_one_clock`: both at the lower of their clocks, the faster one's being assumed; None on two
    boards, or where the faster design cannot be so slow.
    """

    a: Evaluation
    b: Evaluation
    layers: tuple[Difference, ...]
    states: tuple[Difference, ...]
    cells: tuple[Difference, ...]
    units: tuple[Difference, ...]
    energy: tuple[Part, ...]
    energy_ratio: Ratio | None
    at_one_clock: tuple[Evaluation, Evaluation] | None = None


@dataclass(frozen=True)
class Refused:
    """The side that does not work out, and why; `reason` names it where it says where."""

    side: Subject
    reason: Infeasible


def compare(a: Subject, b: Subject) -> Comparison | Refused:
    """Simulate both designs and split the difference.

    A layer that one design fuses into another counts there under the layer that absorbed it.
    Raises `UserError` if they run different networks.
    """
    if a.graph.name != b.graph.name:
        raise UserError(f"{a.name} runs {a.graph.name!r} and {b.name} runs {b.graph.name!r}; "
                        "compare two designs for one network, for example with --workload.")
    items: list[Evaluation] = []
    runs: list[Run] = []
    for side in (a, b):
        item = evaluate(side.graph, side.overlay, side.board, side.memory, frames=1,
                        detail=True)
        run = (item if isinstance(item, Infeasible) else
               simulate_design(side.graph, side.overlay, side.board, side.memory, trace=True))
        if isinstance(item, Infeasible) or isinstance(run, Infeasible):
            reason = item if isinstance(item, Infeasible) else run
            assert isinstance(reason, Infeasible)
            where = " ".join(filter(None, (side.name, reason.where)))
            return Refused(side, replace(reason, where=where))
        items.append(replace(item, network=side.network))
        runs.append(run)
    hertz = (items[0].clock_hz, items[1].clock_hz)
    cells = [account(run.lowered.program, run.result) for run in runs]
    paths = [by_unit(shares(run.lowered.program, run.result)) for run in runs]

    def split(name: Callable[[Cell], str]) -> tuple[Difference, ...]:
        return _differences([((name(cell), cell.cycles) for cell in side) for side in cells],
                            hertz)

    parts = [item.energy.parts for item in items]
    names = list(dict.fromkeys([*parts[0], *parts[1]]))
    energy = [Part(name, parts[0].get(name, 0.0), parts[1].get(name, 0.0)) for name in names]
    energy.sort(key=lambda part: -abs(part.b_j - part.a_j))
    same_board = a.board == b.board
    return Comparison(
        items[0], items[1], split(lambda cell: cell.layer), split(lambda cell: cell.state),
        split(lambda cell: f"{cell.layer}: {cell.unit} {cell.state}"),
        _differences([path.items() for path in paths], hertz), tuple(energy),
        ratio(items[1].energy, items[0].energy, a.board) if same_board else None,
        _at_one_clock((a, b), (items[0], items[1])) if same_board else None)


def _at_one_clock(sides: tuple[Subject, Subject], items: tuple[Evaluation, Evaluation]
                  ) -> tuple[Evaluation, Evaluation] | None:
    slow = min(item.clock_hz for item in items)
    again = [item if item.clock_hz == slow else
             evaluate(side.graph, at_clock(side.overlay, slow), side.board, side.memory, frames=1)
             for side, item in zip(sides, items, strict=True)]
    first, second = again
    return (None if isinstance(first, Infeasible) or isinstance(second, Infeasible)
            else (first, second))


def _differences(sides: list[Iterable[tuple[str, int]]], hertz: tuple[int, int]
                 ) -> tuple[Difference, ...]:
    totals: dict[str, list[int]] = {}
    for place, rows in enumerate(sides):
        for name, cycles in rows:
            totals.setdefault(name, [0, 0])[place] += cycles
    found = [Difference(name, a, b, *hertz) for name, (a, b) in totals.items()]
    return tuple(sorted(found, key=lambda row: -abs(row.delta_s)))
