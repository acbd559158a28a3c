"""Names the critical path of a design and the single changes that shorten it, each re-simulated.

It does not search for several changes at once; see `search`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Infeasible, Overlay
from arch_models.power.energy import Energy, widest
from cosim.program.table import Column, flat
from studies.evaluation.evaluate import Run, evaluate, simulate_design
from studies.evaluation.values import Displaced, Evaluation
from studies.plain.records import encode
from studies.search.space import Choice, Space, Value, default_space
from studies.search.space_overlays import moved, values_of
from studies.why.critical import Link, Share, by_layer, by_unit, chain, shares, shares_of
from workloads.graph import Graph, Phase


@dataclass(frozen=True)
class Change:
    """One axis moved to another value, simulated again with the same memory model.

    `predicted_ms`: what the closed form of the mapping says it saves, before simulating;
    `saved_ms`: what the simulation says. `relieved`: the unit whose share of the critical path
    fell most. `displaced`: layers that the change puts on the host.
    """

    axis: str
    old: str
    new: str
    latency_ms: float
    predicted_ms: float
    saved_ms: float
    energy_uj_per_pixel: float
    relieved: str
    displaced: tuple[Displaced, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Where a design's latency lies, and what would shorten it.

    `chain`: the critical path, gapless from cycle 0 to the latency; `path`: the same by layer and
    unit. `tried`: single changes simulated; `infeasible`: changes that did not fit or map.
    `widths`: coefficients by their part of the variance of the energy, the most first.
    """

    evaluation: Evaluation
    chain: tuple[Link, ...]
    path: tuple[Share, ...]
    changes: tuple[Change, ...]
    tried: int
    infeasible: int
    widths: tuple[tuple[str, float], ...] = ()


class ExplanationFile(TypedDict):
    """What `cosim explain --json` writes. Cycles of the critical path stand by unit, and by layer;
    `energy_variance_by_coefficient`: parts of one."""

    predicted: bool
    memory_model: str
    board: str
    unchecked: Sequence[str]
    latency_ms: float
    latency_cycles: int
    path_cycles_by_unit: Mapping[str, int]
    path_cycles_by_layer: Mapping[str, int]
    chain: Sequence[Link]
    changes: Sequence[Change]
    tried: int
    infeasible: int
    energy: Energy
    energy_variance_by_coefficient: Mapping[str, float]


def document(found: Explanation, board: Board) -> ExplanationFile:
    """An explanation as JSON values."""
    item = found.evaluation
    return {"predicted": True, "memory_model": item.memory_model, "board": board.name,
            "unchecked": list(board.unchecked), "latency_ms": item.latency_ms,
            "latency_cycles": item.latency_cycles, "path_cycles_by_unit": by_unit(found.path),
            "path_cycles_by_layer": by_layer(found.path), "chain": encode(found.chain),
            "changes": encode(found.changes), "tried": found.tried,
            "infeasible": found.infeasible, "energy": encode(item.energy),
            "energy_variance_by_coefficient": dict(found.widths)}


def closed_form_ms(graph: Graph, run: Run, clock_hz: int) -> float:
    """Milliseconds of a frame by the mapping's costs and the host's, nothing overlapping.

    No simulation: it knows no queue, no port that two masters share and no layer that waits.
    """
    cycles = 0.0
    for layer in run.lowered.mapping.layers:
        cycles += layer.cost_cycles * (graph.steps if layer.phase is Phase.STEP else 1)
    program = run.lowered.program
    host = [index for index, unit in enumerate(program.units) if unit.name == "host"]
    if host:
        rows = flat(program).operations
        rows = rows[rows[:, Column.UNIT] == host[0]]
        cycles += float((rows[:, Column.FILL] + rows[:, Column.INTERVAL] * rows[:, Column.TRIPS]
                         + rows[:, Column.DRAIN]).sum())
    return cycles / clock_hz * 1e3


#: An axis and the value it moves to.
Move = tuple[str, Value]


def moves(space: Space, choice: Choice) -> Iterator[Move]:
    """Every single-axis change of a design that the axis exists in, one `cosim what-if` each."""
    for axis in space.axes:
        if space.active(axis, choice):
            for value in axis.values:
                if value != choice.get(axis.name):
                    yield axis.name, value


def explain(graph: Graph, overlay: Overlay, board: Board, memory: str = "ddr3",
            top: int = 3) -> Explanation | Infeasible:
    """Walk the critical path, then simulate every single-axis change of the design space.

    Changes are ranked with the `flat` memory (fast); the best are simulated again with `memory`,
    and only those that shorten the latency there are returned, at most one an axis.
    """
    item = evaluate(graph, overlay, board, memory, frames=1)
    run = simulate_design(graph, overlay, board, memory, trace=True)
    if isinstance(item, Infeasible):
        return item
    if isinstance(run, Infeasible):
        return run
    links = chain(run.lowered.program, run.result)
    path = shares_of(links)
    choice = values_of(overlay)
    ranked: list[tuple[float, int, Move, Overlay]] = []
    tried = infeasible = 0
    for move in moves(default_space(board, graph), choice):
        tried += 1
        try:
            candidate = moved(overlay, board, *move)
            found = evaluate(graph, candidate, board, "flat", frames=1)
        except FieldError:
            infeasible += 1
            continue
        if isinstance(found, Infeasible):
            infeasible += 1
        else:
            ranked.append((found.latency_ms, len(ranked), move, candidate))
    ranked.sort(key=lambda row: row[:2])
    base = _Base(graph, board, memory, item, closed_form_ms(graph, run, item.clock_hz), path,
                 choice)
    changes: list[Change] = []
    for _, _, move, candidate in ranked[: 4 * top]:
        change = _verified(base, candidate, move)
        if change is not None:
            changes.append(change)
    changes.sort(key=lambda change: -change.saved_ms)
    best = {change.axis: change for change in reversed(changes)}
    kept = [change for change in changes if best[change.axis] is change]
    return Explanation(item, links, path, tuple(kept[:top]), tried, infeasible,
                       tuple(widest(item.energy, board)))


@dataclass(frozen=True)
class _Base:
    """What every change is held against."""

    graph: Graph
    board: Board
    memory: str
    item: Evaluation
    closed_form_ms: float
    path: tuple[Share, ...]
    choice: Choice


def _verified(base: _Base, candidate: Overlay, move: Move) -> Change | None:
    found = evaluate(base.graph, candidate, base.board, base.memory, frames=1)
    run = simulate_design(base.graph, candidate, base.board, base.memory, trace=True)
    if isinstance(found, Infeasible) or isinstance(run, Infeasible):
        return None
    saved = base.item.latency_ms - found.latency_ms
    if saved <= 0:
        return None
    before = by_unit(base.path)
    after = by_unit(shares(run.lowered.program, run.result))
    fell = {unit: cycles / base.item.clock_hz - after.get(unit, 0) / found.clock_hz
            for unit, cycles in before.items()}
    axis, new = move
    predicted = base.closed_form_ms - closed_form_ms(base.graph, run, found.clock_hz)
    return Change(axis, str(base.choice.get(axis, "none")), str(new), found.latency_ms,
                  predicted, saved, found.energy_uj_per_pixel,
                  max(fell, key=lambda unit: fell[unit]), found.newly_displaced(base.item))
