"""How far is a search from the true best? Every sampler against a sub-space that is known whole.

It searches with the code of `cosim explore` (`studies.search.search`); only the answers come from
the table of an enumeration. `cosim study proof` runs it; `--quick` takes a small sub-space and two
seeds.

Regret and hypervolume are those of `published.score`. Evaluations: different designs that were
tried, infeasible ones included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np
from rich.console import Console

from arch_models.board import Board, load_board
from arch_models.overlay import Overlay, load_overlay
from studies.evaluation.batch import Figures
from studies.evaluation.evaluate import estimated_resources
from studies.evaluation.values import Evaluation
from studies.plain.files import check_writable, read_json
from studies.plain.machine import machine
from studies.plain.truth import CARRIED
from studies.plain.workers import forked
from studies.proof.enumeration import Codes, Enumerated, enumerate_space
from studies.proof.published import (
    BOARD,
    FOLDER,
    SPACE,
    WORKLOAD,
    Truth,
    open_benchmark,
    score,
    truth_of,
)
from studies.search.exploration import outcome
from studies.search.outcomes import Failure, Found, Objective, Outcome, Sampler, Settings
from studies.search.search import search
from studies.search.space import Choice
from studies.search.space_file import load_space
from studies.search.space_overlays import overlay_of
from workloads.graph import Graph
from workloads.library import load

QUICK = FOLDER / "search_proof_quick.toml"
#: Enumerations on a GPU, with their provenance.
RECORDED = CARRIED / "enumerate_wide_h100.json"
OBJECTIVES = (Objective.LATENCY, Objective.ENERGY)
#: What the default sampler must reach, and within how many evaluations.
EVALUATIONS, REGRET, RATIO = 1000, 0.01, 0.99
SEEDS = 10
#: The default search of `cosim explore`, and Optuna's samplers alone. None is given a design to
#: start with. A proposal of TPE or GP costs seconds when many designs are known: they get fewer.
CONTENDERS: dict[str, Settings] = {
    "default (nsga2 with neighbours)": Settings(),
    **{str(item.value): Settings(sampler=item, local=0.0)
       for item in (Sampler.NSGA2, Sampler.NSGA3, Sampler.RANDOM)},
    "tpe": Settings(sampler=Sampler.TPE, local=0.0, batch=8, attempts=200),
    "gp": Settings(sampler=Sampler.GP, local=0.0, batch=8, attempts=40, population=10),
}
FEWER_SEEDS = {"gp": 3}
DEFAULT = next(iter(CONTENDERS))


@dataclass
class Direct:
    """Answers a search by evaluating, as `cosim explore` does."""

    graph: Graph
    board: Board
    base: Overlay

    def __call__(self, choices: Sequence[Choice]) -> list[Outcome]:
        """Outcomes in the order of the choices."""
        return [self._answer(choice) for choice in choices]

    def _answer(self, choice: Choice) -> Outcome:
        return outcome(self.graph, self.board, self.base, choice)


@dataclass
class Replay(Direct):
    """Answers a search from the table. Why a design is infeasible is worked out anew."""

    enumerated: Enumerated
    codes: Codes

    def _answer(self, choice: Choice) -> Outcome:
        latency, energy = self.enumerated.figures(self.codes.code(choice))
        if np.isnan(latency):
            found = super()._answer(choice)
            assert isinstance(found, Failure), f"the table lacks {choice}"
            return found
        overlay = overlay_of(choice, self.base, self.board)
        cycles = round(latency * overlay.clock_hz / 1e3)
        # The search reads latency, energy and resources, and no more.
        return cast(Evaluation, Figures(cycles, latency, energy,
                                        estimated_resources(overlay, self.board)))


def curve(found: Found, truth: Truth, at: Sequence[int]) -> np.ndarray:
    """(len(at), 2): regret of latency and hypervolume ratio after so many evaluations."""
    points = found.objectives()
    rows = []
    for count in at:
        known = points[:count]
        rows.append(score(truth, known[~np.isnan(known[:, 0])]))
    return np.array(rows)


def points_of(evaluations: int) -> list[int]:
    """Where the curves are read: every ten evaluations at first, then every fifty."""
    return [*range(10, min(evaluations, 100) + 1, 10), *range(150, evaluations + 1, 50)]


def run_once(answer: Direct, truth: Truth, name: str, evaluations: int, seed: int) -> np.ndarray:
    """The curve of one contender with one seed."""
    settings = CONTENDERS[name]
    most = min(settings.attempts, evaluations)
    settings = replace(settings, designs=most, attempts=most, objectives=OBJECTIVES, rounds=0,
                       seed=seed)
    return curve(search(answer, truth.space, settings), truth, points_of(most))


def run_all(replay: Replay, truth: Truth, evaluations: int, seeds: int, workers: int,
            console: Console) -> dict[str, np.ndarray]:
    """(seeds, points, 2) curves by contender."""
    curves: dict[str, np.ndarray] = {}
    asked = {name: range(min(seeds, FEWER_SEEDS.get(name, seeds)))
             for name in CONTENDERS if name != "gp" or evaluations == EVALUATIONS}

    def once(job: tuple[str, int]) -> np.ndarray:
        name, seed = job
        return run_once(replay, truth, name, evaluations, seed)

    with forked(once, workers) as there:
        found = there.map([(name, seed) for name, each in asked.items() for seed in each])
        for name, each in asked.items():
            curves[name] = np.array(list(islice(found, len(each))))
            regret, ratio = np.median(curves[name][:, -1], axis=0)
            console.print(f"{name}: after {points_of(evaluations)[: curves[name].shape[1]][-1]} "
                          f"evaluations regret {regret:.3%}, hypervolume {ratio:.3%}",
                          highlight=False)
    return curves


def run_wide(answer: Direct, known: dict, seeds: int, workers: int, console: Console) -> WideRun:
    """The default search of a space that `studies.proof.enumerate_wide` met whole on a GPU.

    `known`: one of the runs recorded in `RECORDED`. Its designs are evaluated here, not looked up.
    Where its space or its best latency is another one now, nothing is searched: no regrets.
    """
    kept: WideRun = {
        "space": known["space"], "space_designs": known["space_designs"],
        "feasible": known["feasible"], "recurrences": known["recurrences"],
        "seconds": known["seconds"], "device": known["device"],
        "best_latency_ms": known["best_latency_ms"], "median_regret": None}
    space = load_space(FOLDER / known["space"], answer.board, answer.graph)
    best = answer([space.canonical(known["best_latency_choice"])])[0]
    if (space.size() != known["space_designs"] or isinstance(best, Failure)
            or best.latency_ms != known["best_latency_ms"]):
        console.print(f"{RECORDED.name}: {known['space']} was enumerated with other clocks, so it "
                      "is not searched; enumerate it again with `cosim study enumerate`")
        return kept
    truth = truth_of(space, np.array([[item["latency_ms"], item["energy_uj_per_pixel"]]
                                      for item in known["front"]]))
    with forked(partial(run_once, answer, truth, DEFAULT, EVALUATIONS), workers) as there:
        curves = np.array(list(there.map(range(seeds))))
    regret, ratio = np.median(curves[:, -1], axis=0)
    console.print(f"{DEFAULT} on {known['space_designs']:,} designs: regret {regret:.3%}, "
                  f"hypervolume {ratio:.3%}", highlight=False)
    kept["median_regret"], kept["worst_regret"] = float(regret), float(curves[:, -1, 0].max())
    kept["median_hypervolume_ratio"], kept["seeds"] = float(ratio), seeds
    return kept


#: A curve: points, and quantiles by name; None where a run had found nothing yet.
Curve = Mapping[str, Sequence[float | None] | int | None]


class WideRun(TypedDict):
    """A space that was enumerated elsewhere; no regrets where it was another one."""

    space: str
    space_designs: int
    feasible: int
    recurrences: int
    seconds: float
    device: str
    best_latency_ms: float
    median_regret: float | None
    worst_regret: NotRequired[float]
    median_hypervolume_ratio: NotRequired[float]
    seeds: NotRequired[int]


class SamplerProof(TypedDict):
    """What `cosim study proof --json` writes. Regrets and ratios: parts of one."""

    workload: str
    board: str
    designs_enumerated: int
    feasible: int
    seconds: float
    processor_seconds: float
    machine: str
    best_latency_ms: float
    front: Sequence[Sequence[float]]
    reference: Sequence[float]
    sampler: str
    evaluations: int
    seeds: int
    median_regret: float
    median_hypervolume_ratio: float
    evaluations_to_reach: int | None
    curves: Mapping[str, Curve]
    wide_check: NotRequired[Mapping[str, float | str]]
    wide: NotRequired[list[WideRun]]


def summary(truth: Truth, table: Enumerated, curves: dict[str, np.ndarray], evaluations: int
            ) -> SamplerProof:
    """What the study writes: the enumeration, the default's medians, every contender's curves."""
    default = curves[DEFAULT]
    regret, ratio = np.median(default[:, -1], axis=0)
    at = points_of(evaluations)
    return {
        "workload": WORKLOAD, "board": BOARD, "designs_enumerated": len(table.codes),
        "feasible": int(table.feasible.sum()), "seconds": table.seconds,
        "processor_seconds": table.processor_seconds, "machine": machine(),
        "best_latency_ms": truth.best_latency_ms, "front": truth.front.tolist(),
        "reference": truth.reference.tolist(), "sampler": DEFAULT, "evaluations": evaluations,
        "seeds": len(default), "median_regret": float(regret),
        "median_hypervolume_ratio": float(ratio),
        "evaluations_to_reach": _reached(default, at),
        "curves": {name: {
            "evaluations": at[: values.shape[1]], "evaluations_to_reach": _reached(values, at),
            **{f"{key}_{quantile}": _finite(np.quantile(values[:, :, column], share, axis=0))
               for column, key in enumerate(("regret", "hypervolume_ratio"))
               for quantile, share in (("low", 0.1), ("median", 0.5), ("high", 0.9))}}
            for name, values in curves.items()}}


def _reached(curves: np.ndarray, at: Sequence[int]) -> int | None:
    """After how many evaluations the medians are within `REGRET` and `RATIO`; None if never."""
    good = (regret <= REGRET and ratio >= RATIO for regret, ratio in np.median(curves, axis=0))
    return next((count for count, fine in zip(at, good, strict=False) if fine), None)


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def prove(quick: bool, table: Path, again: bool, workers: int, console: Console) -> SamplerProof:
    """Enumerate (or read the table of an earlier run), then let every contender search."""
    graph, board, base = load(WORKLOAD), load_board(BOARD), load_overlay("default")
    file = QUICK if quick else SPACE
    space = load_space(file, board, graph)
    if again or not table.exists():
        console.print(f"enumerating {space.size():,} designs on {workers} cores", highlight=False)
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            if done // 100_000 != (done + count) // 100_000:
                console.print(f"  {done + count:,}", highlight=False)
            done += count

        check_writable(table)
        enumerate_space(graph, board, base, space, workers, tell).save(table)
    game = open_benchmark(table, file)
    enumerated, truth = game.table, game.truth
    console.print(f"{len(enumerated.codes):,} designs, {int(enumerated.feasible.sum()):,} feasible,"
                  f" best latency {truth.best_latency_ms:.3f} ms, {enumerated.seconds:.0f} s",
                  highlight=False)
    evaluations, seeds = (200, 2) if quick else (EVALUATIONS, SEEDS)
    replay = Replay(graph, board, base, enumerated, Codes(space))
    found = summary(truth, enumerated, run_all(replay, truth, evaluations, seeds, workers, console),
                    evaluations)
    if not quick:
        recorded = read_json(RECORDED)
        found["wide_check"] = recorded["check"]
        found["wide"] = [run_wide(Direct(graph, board, base), run, seeds, workers, console)
                         for run in recorded["runs"]]
    return found
