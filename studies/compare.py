"""Explains the difference of two designs layer by layer and unit by unit until it adds up.

It does not say which is better for a user; it says where the time went.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from arch_models.board import Board
from arch_models.overlay import Infeasible, Overlay
from studies.critical import Share, shares
from studies.evaluate import Run, evaluate, simulate_design
from studies.evaluation import Evaluation, energy_parts
from workloads.graph import Graph


@dataclass(frozen=True)
class Difference:
    """Milliseconds of critical path in A and in B under one name."""

    name: str
    a_ms: float
    b_ms: float

    @property
    def delta_ms(self) -> float:
        """B minus A."""
        return self.b_ms - self.a_ms


@dataclass(frozen=True)
class Comparison:
    """Two evaluations and where their latencies differ.

    `layers`, `units` and `cells` (layer / unit) each sum to the two latencies exactly, because
    each splits the critical path. `energy`: mJ a frame by part.
    """

    a: Evaluation
    b: Evaluation
    layers: tuple[Difference, ...]
    units: tuple[Difference, ...]
    cells: tuple[Difference, ...]
    energy_mj: Mapping[str, tuple[float, float]]


def compare(graph: Graph, a: Overlay, b: Overlay, board_a: Board, board_b: Board,
            memory: str = "ddr3") -> Comparison | Infeasible:
    """Evaluate both designs and split the difference. A layer that one design fuses into another
    counts there under the layer that absorbed it."""
    sides: list[tuple[Evaluation, Run]] = []
    for overlay, board in ((a, board_a), (b, board_b)):
        item = evaluate(graph, overlay, board, memory, frames=1)
        if isinstance(item, Infeasible):
            return item
        run = simulate_design(graph, overlay, board, memory, trace=True)
        if isinstance(run, Infeasible):
            return run
        sides.append((item, run))
    split = [_milliseconds(shares(run.lowered.program, run.result), item.clock_hz)
             for item, run in sides]
    (first, _), (second, _) = sides
    parts = [energy_parts(item.energy) for item, _ in sides]
    names = [*parts[0], *(name for name in parts[1] if name not in parts[0])]
    energy = {name: (parts[0].get(name, 0.0) * 1e3, parts[1].get(name, 0.0) * 1e3)
              for name in names}
    return Comparison(first, second,
                      _differences(split, lambda key: key[0]),
                      _differences(split, lambda key: key[1]),
                      _differences(split, lambda key: f"{key[0]} / {key[1]}"), energy)


def _milliseconds(found: tuple[Share, ...], clock_hz: int) -> dict[tuple[str, str], float]:
    return {(share.layer, share.unit): share.cycles / clock_hz * 1e3 for share in found}


def _differences(split, name_of) -> tuple[Difference, ...]:  # type: ignore[no-untyped-def]
    totals: dict[str, list[float]] = {}
    for side, table in enumerate(split):
        for key, value in table.items():
            totals.setdefault(name_of(key), [0.0, 0.0])[side] += value
    rows = [Difference(name, a_ms, b_ms) for name, (a_ms, b_ms) in totals.items()]
    return tuple(sorted(rows, key=lambda row: -abs(row.delta_ms)))
