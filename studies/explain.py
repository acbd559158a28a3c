"""Names the critical path of a design and the single changes that shorten it, each simulated.

It does not search for several changes at once; see `search`.
"""

from __future__ import annotations

from dataclasses import dataclass

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Infeasible, Overlay
from studies.critical import Share, by_unit, shares
from studies.evaluate import evaluate, simulate_design
from studies.evaluation import Evaluation
from studies.space import Choice, Space, choice_of, default_space, overlay_of
from workloads.graph import Graph


@dataclass(frozen=True)
class Change:
    """One axis moved to another value, simulated. Latencies by the same memory model."""

    axis: str
    old: str
    new: str
    latency_ms: float
    saved_ms: float
    energy_uj_per_pixel: float
    relieved: str  # the unit whose share of the critical path fell most


@dataclass(frozen=True)
class Explanation:
    """Where a design's latency lies, and what would shorten it.

    `tried`: single changes simulated; `infeasible`: changes that did not fit or map.
    """

    evaluation: Evaluation
    path: tuple[Share, ...]
    changes: tuple[Change, ...]
    tried: int
    infeasible: int


def explain(graph: Graph, overlay: Overlay, board: Board, memory: str = "ddr3",
            top: int = 3) -> Explanation | Infeasible:
    """Walk the critical path, then simulate every single-axis change of the design space.

    Changes are ranked with the `flat` memory (fast); the best are simulated again with `memory`,
    and only those that shorten the latency there are returned.
    """
    item = evaluate(graph, overlay, board, memory, frames=1)
    run = simulate_design(graph, overlay, board, memory, trace=True)
    if isinstance(item, Infeasible):
        return item
    if isinstance(run, Infeasible):
        return run
    path = shares(run.lowered.program, run.result)
    space = default_space(board)
    choice = choice_of(overlay, space) or _nearest_choice(overlay, space)
    ranked: list[tuple[int, float, str, Overlay]] = []
    tried = infeasible = 0
    for axis, changed in space.neighbours(choice):
        try:
            candidate = overlay_of(changed, overlay, board, overlay.name)
        except FieldError:
            infeasible += 1
            continue
        found = evaluate(graph, candidate, board, "flat", frames=1)
        tried += 1
        if isinstance(found, Infeasible):
            infeasible += 1
        else:
            ranked.append((len(ranked), found.latency_ms, axis, candidate))
    ranked.sort(key=lambda row: (row[1], row[0]))
    changes: list[Change] = []
    for _, _, axis, candidate in ranked[: 4 * top]:
        change = _verified(graph, candidate, board, memory, item, path, axis,
                           choice, space)
        if change is not None and axis not in [known.axis for known in changes]:
            changes.append(change)
    changes.sort(key=lambda change: -change.saved_ms)
    return Explanation(item, path, tuple(changes[:top]), tried, infeasible)


def _nearest_choice(overlay: Overlay, space: Space) -> Choice:
    """The closest design inside the space to one that lies outside it."""
    full: Choice = {}
    for axis in space.axes:
        value = getattr(overlay, axis.name, axis.values[0])
        if isinstance(value, int) and not isinstance(value, bool):
            numbers = [item for item in axis.values if isinstance(item, int)]
            full[axis.name] = min(numbers, key=lambda legal: abs(legal - value))
        else:
            full[axis.name] = value if value in axis.values else axis.values[-1]
    return space.canonical(full)


def _verified(graph: Graph, candidate: Overlay, board: Board, memory: str, base: Evaluation,
              path: tuple[Share, ...], axis: str, choice: Choice, space: Space) -> Change | None:
    found = evaluate(graph, candidate, board, memory, frames=1)
    run = simulate_design(graph, candidate, board, memory, trace=True)
    if isinstance(found, Infeasible) or isinstance(run, Infeasible):
        return None
    saved = base.latency_ms - found.latency_ms
    if saved <= 0:
        return None
    before = by_unit(path)
    after = by_unit(shares(run.lowered.program, run.result))
    fell = {unit: cycles / base.clock_hz - after.get(unit, 0) / found.clock_hz
            for unit, cycles in before.items()}
    new = choice_of(candidate, space) or {}
    return Change(axis, str(choice[axis]), str(new.get(axis, "?")), found.latency_ms, saved,
                  found.energy_uj_per_pixel, max(fell, key=lambda unit: fell[unit]))
