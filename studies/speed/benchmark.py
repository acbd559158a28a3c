"""Measures how fast this program is on this machine: executors, evaluations, memory, a peer.

It predicts nothing about hardware. `cosim benchmark` runs it.
"""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from cosim.executors import des, fast
from studies.evaluation.evaluate import Run, evaluate, feasible, simulate_design
from studies.plain.files import check_writables, write_json
from studies.plain.machine import machine
from studies.plain.records import encode
from studies.plain.terminal import grid, terminal
from studies.search.exploration import outcome
from studies.search.space import Choice, default_space
from studies.search.space_overlays import choice_of
from studies.speed.peer import peer_cycles_per_s
from studies.speed.proofs import long_figures, short_figures
from workloads.library import load

WORKLOAD, BOARD = "agc-w64", "pynq-z1"


@dataclass(frozen=True)
class Measured:
    """One measured figure: the median of some runs, with the smallest and the largest."""

    name: str
    value: float
    unit: str
    runs: int
    min: float
    max: float


def measure(name: str, unit: str, runs: int, once: Callable[[], float]) -> Measured:
    """The median of `once()` over some runs."""
    values = [once() for _ in range(runs)]
    return Measured(name, statistics.median(values), unit, runs, min(values), max(values))


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def figures(runs: int, peer: bool, proofs: bool, console: Console) -> list[Measured]:
    """Every figure, one after another; the peer only when asked for (it needs the network), and
    whole proofs (they take an hour)."""
    graph, board, overlay = load(WORKLOAD), load_board(BOARD), default_overlay()
    found: list[Measured] = []

    def add(item: Measured) -> None:
        found.append(item)
        console.print(f"{item.name}: {item.value:.4g} {item.unit}", highlight=False)

    prepared: dict[str, Run] = {model: feasible(simulate_design(graph, overlay, board, model))
                                for model in ("flat", "ddr3")}
    for model, run in prepared.items():
        add(measure(f"fast_agc_{model}_s", "s", runs, lambda run=run: seconds(  # type: ignore[misc]
            lambda: fast.simulate(run.lowered.program, run.memory))))
    burst = prepared["ddr3"]
    add(replace(found[-1], name="fast_agc_burst_s"))
    bursts = int(burst.result.layer_bursts.sum())
    add(measure("bursts_per_s", "1/s", runs, lambda: bursts / seconds(
        lambda: fast.simulate(burst.lowered.program, burst.memory))))
    add(measure("fast_cycles_per_s", "1/s", runs, lambda: burst.result.total_cycles / seconds(
        lambda: fast.simulate(burst.lowered.program, burst.memory))))
    add(measure("des_agc_burst_s", "s", min(runs, 3), lambda: seconds(
        lambda: des.simulate(burst.lowered.program, burst.memory))))
    for model, count in (("flat", 200), ("ddr3", 30)):
        add(measure(f"designs_per_s_{model}", "1/s", min(runs, 3),
                    lambda model=model, count=count: _designs_per_s(model, count)))  # type: ignore[misc]
    flat = next(item for item in found if item.name == "designs_per_s_flat")
    add(replace(flat, name="designs_per_s"))
    add(_evaluation_split(graph, overlay, board, runs))
    for figure in (*short_figures(), *(long_figures() if proofs else ())):
        add(Measured(figure.name, figure.value, figure.unit, 1, figure.value, figure.value))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    add(Measured("peak_rss_mb", peak, "MiB", 1, peak, peak))
    if peer:
        rates = peer_cycles_per_s(console)
        value = statistics.median(rates)
        add(Measured("scalesim_cycles_per_s", value, "1/s", len(rates), min(rates), max(rates)))
        ours = next(item for item in found if item.name == "fast_cycles_per_s")
        add(Measured("ratio_to_scalesim", ours.value / value, "", 1, ours.min / max(rates),
                     ours.max / min(rates)))
    return found


def _designs_per_s(model: str, count: int) -> float:
    """Evaluated (feasible) designs a second, sampled near the default design, on one core."""
    graph, board, base = load(WORKLOAD), load_board(BOARD), default_overlay()
    space = default_space(board, graph)
    start = choice_of(base, space) or {}
    generator = random.Random(0)
    choices: list[Choice] = []
    while len(choices) < count:
        moved = dict(start)
        for name in generator.sample(sorted(start), 3):
            moved[name] = generator.choice(space.axis(name).values)
        for axis in space.axes:
            moved.setdefault(axis.name, axis.values[-1])
        choices.append(space.canonical(moved))
    began = time.perf_counter()
    done = sum(hasattr(outcome(graph, board, base, choice, model), "latency_cycles")
               for choice in choices)
    return done / (time.perf_counter() - began)


def _evaluation_split(graph, overlay, board, runs: int) -> Measured:  # type: ignore[no-untyped-def]
    """One evaluation of the default design with the flat memory, nothing remembered outside."""
    return measure("evaluate_default_flat_s", "s", runs,
                   lambda: seconds(lambda: evaluate(graph, overlay, board, "flat", frames=1)))


@dataclass(frozen=True)
class Figure(Measured):
    """A measured figure in a file, with the machine."""

    machine: str


Figures = Sequence[Figure]


def run_benchmark(runs: int, peer: bool, json: Path | None, proofs: bool = False) -> None:
    """Measure, print, and write the list of figures if a file is named."""
    check_writables(json)
    console = terminal()
    console.print(f"machine: {machine()}", highlight=False)
    found = figures(runs, peer, proofs, console)
    table = grid(f"Measured on {machine()}", ("name", "median", "min", "max", "unit", "runs"),
                 ("unit",))
    for item in found:
        table.add_row(item.name, f"{item.value:.4g}", f"{item.min:.4g}", f"{item.max:.4g}",
                      item.unit, str(item.runs))
    console.print(table)
    if json is not None:
        write_json(json, encode([Figure(**vars(item), machine=machine()) for item in found]))
