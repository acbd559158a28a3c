"""One whole exploration: search with the flat memory, re-evaluate the best with ddr3, choose.

It does not sample (`search`) nor evaluate by itself (`evaluate`); it puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Infeasible, Overlay
from arch_models.power.energy import Ratio, ratio
from studies.evaluation.evaluate import STEADY_FRAMES, estimated_resources, evaluate
from studies.evaluation.inputs import workload
from studies.evaluation.values import Evaluation
from studies.plain.quality_table import quality_db
from studies.search.dask_workers import connected
from studies.search.identity import digest, identity
from studies.search.pruning import bounder
from studies.search.search import (
    OBJECTIVES,
    Evaluate,
    Failure,
    Found,
    Objective,
    Outcome,
    Progress,
    Record,
    Settings,
    search,
)
from studies.search.shared_study import open_study
from studies.search.space import (
    WORKLOAD,
    Choice,
    Space,
    default_space,
    overlay_of,
    starting_choices,
)
from workloads.graph import Graph

SEARCH_MEMORY = "flat"
FINAL_MEMORY = "ddr3"


@dataclass(frozen=True)
class Candidate:
    """A design of the front, evaluated again with the final memory model."""

    record: Record
    overlay: Overlay
    evaluation: Evaluation


@dataclass(frozen=True)
class Exploration:
    """A search and its outcome. `candidates` is sorted best first; the chosen one is the first.

    `default`: the base design under the final memory model, None if it is not feasible.
    `energy_ratio`: the chosen design's energy over the default's, None without either.
    """

    found: Found
    default: Evaluation | None
    candidates: tuple[Candidate, ...]
    energy_ratio: Ratio | None = None

    @property
    def chosen(self) -> Candidate | None:
        """The candidate with the smallest product of latency and energy, None without any."""
        return self.candidates[0] if self.candidates else None


def outcome(graph: Graph, board: Board, base: Overlay, choice: Choice,
            memory: str = SEARCH_MEMORY, frames: int = 1,
            others: Mapping[str, Graph] | None = None) -> Outcome:
    """Evaluate one choice for the search; what cannot be built or mapped becomes a Failure.

    `others`: the networks that the axis `workload` may name in place of `graph`.
    """
    try:
        overlay = overlay_of(choice, base, board)
        run = others[str(choice[WORKLOAD])] if others and WORKLOAD in choice else graph
        found = evaluate(run, overlay, board, memory, frames)
    except FieldError as error:  # not a size too large but a value that cannot be
        return Failure(str(error), 1.0)
    if isinstance(found, Infeasible):
        excess = found.gap / abs(found.bound) if found.bound else max(1.0, found.gap)
        return Failure(str(found), max(excess, 1e-6), estimated_resources(overlay, board))
    return found


def _outcomes(one: Callable[..., Outcome], choices: Sequence[Choice]) -> list[Outcome]:
    return [one(choice=choice) for choice in choices]


@contextmanager
def evaluator(graph: Graph, board: Board, base: Overlay, workers: int = 1,
              memory: str = SEARCH_MEMORY, frames: int = 1,
              others: Mapping[str, Graph] | None = None) -> Iterator[Evaluate]:
    """A batch evaluator for `search`, on this core or spread over processes; answers in order."""
    work = partial(_outcomes, partial(outcome, graph, board, base, memory=memory, frames=frames,
                                      others=others))
    if workers <= 1:
        yield work
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        pool.submit(int).result()  # forks now, before the caller opens anything that may not fork
        yield partial(_spread, pool, workers, work)


@dataclass(frozen=True)
class Question:
    """What is asked of every design. `others`: networks that an axis may name in place of it."""

    graph: Graph
    board: Board
    base: Overlay
    frames: int
    others: Mapping[str, Graph]

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The networks that are run."""
        return tuple(self.others.values()) or (self.graph,)

    def bounded(self, settings: Settings) -> bool:
        """Are there lower bounds of these objectives? Only for one network, and not for all."""
        return not self.others and set(settings.objectives) <= set(OBJECTIVES)

    def outcome(self, choice: Choice, memory: str) -> Outcome:
        """The answer for one design."""
        return outcome(self.graph, self.board, self.base, choice, memory, self.frames, self.others)

    @contextmanager
    def on_cores(self, workers: int) -> Iterator[tuple[Evaluate, Evaluate, int]]:
        """Evaluators for the search and its finalists, and how many designs they do at a time."""
        given = (self.graph, self.board, self.base, workers)
        with evaluator(*given, SEARCH_MEMORY, self.frames, self.others) as searching, \
                evaluator(*given, FINAL_MEMORY, self.frames, self.others) as finally_:
            yield searching, finally_, workers

    @contextmanager
    def on_dask(self, scheduler: str) -> Iterator[tuple[Evaluate, Evaluate, int]]:
        """The same by the workers of a Dask scheduler."""
        with connected(scheduler) as workers:
            searching, finally_ = (partial(workers.map, _answer, (self, memory))
                                   for memory in (SEARCH_MEMORY, FINAL_MEMORY))
            yield searching, finally_, workers.width


def _answer(asked: tuple[Question, str], choice: Choice) -> Outcome:
    question, memory = asked
    return question.outcome(choice, memory)


def _spread(pool: Executor, workers: int, work: Evaluate,
            choices: Sequence[Choice]) -> Iterable[Outcome]:
    # Dealt round-robin: slow and fast designs come in runs, so contiguous shares are uneven.
    shares = [choices[start::workers] for start in range(workers)]
    answers = list(pool.map(work, shares))
    merged: list[Outcome | None] = [None] * len(choices)
    for start, answer in enumerate(answers):
        merged[start::workers] = list(answer)
    return [item for item in merged if item is not None]


@dataclass(frozen=True)
class Place:
    """Where a search keeps its outcomes: storage (see `studies.search.storage`), study name."""

    storage: str
    study: str

    def remembering(self, space: Space, settings: Settings, known: Mapping[str, Any], memory: str,
                    work: Evaluate, width: int) -> Evaluate:
        """The evaluator that looks into the study of this memory model first.

        `known`: what two commands that share the study must agree in.
        """
        name = self.study if memory == SEARCH_MEMORY else f"{self.study}-{memory}"
        study = open_study(self.storage, name, space, settings.objectives,
                           {**known, "memory model": memory})
        return study.remembering(work, width)


def explore(graph: Graph, board: Board, base: Overlay, settings: Settings,
            space: Space | None = None, workers: int = 1, finalists: int = 12,
            progress: Progress | None = None, place: Place | None = None,
            scheduler: str | None = None, prune: bool = True,
            earlier: Sequence[Choice] = ()) -> Exploration:
    """Search, then evaluate the base and the most promising designs of the front with `ddr3`.

    `finalists`: how many are evaluated again, smallest product of latency and energy first. The
    result depends on the settings and the space only: not on `workers` or the Dask `scheduler`
    that takes their place, nor on what `place` already holds, nor on who else works there.
    `prune`: do not simulate designs whose lower bounds are dominated. `earlier`: designs to try
    behind the first ones, for example the front of an earlier study (`warm_start`).
    """
    space = space or default_space(board, graph)
    start = starting_choices(space, base, board)
    start += [choice for choice in earlier if choice not in start]
    asked = Question(graph, board, base,
                     STEADY_FRAMES if Objective.PERIOD in settings.objectives else 1,
                     {str(name): workload(str(name)) for axis in space.axes
                      if axis.name == WORKLOAD for name in axis.values})
    if Objective.QUALITY in settings.objectives:
        for item in asked.graphs:
            quality_db(item.name)  # refuses now what was never measured
    evaluators = asked.on_cores(workers) if scheduler is None else asked.on_dask(scheduler)
    with evaluators as (answer, answer_finally, width):
        if place is not None:
            known = {**identity(asked.graphs, board, base, space, settings),
                     "start": digest(start), "prune": prune}
            answer, answer_finally = (
                place.remembering(space, settings, known, memory, work, width)
                for memory, work in ((SEARCH_MEMORY, answer), (FINAL_MEMORY, answer_finally)))
        found = search(answer, space, settings, start, progress,
                       bounder(graph, board, base) if prune and asked.bounded(settings) else None)
        ranked = sorted((found.records[index] for index in found.front),
                        key=lambda record: (merit(record.evaluation), record.number))[:finalists]
        again = list(answer_finally([record.choice for record in ranked]))
    default = evaluate(graph, base, board, FINAL_MEMORY, asked.frames)
    candidates = []
    for record, final in zip(ranked, again, strict=True):
        if not isinstance(final, Failure):
            overlay = overlay_of(record.choice, base, board, f"explored-{record.number}")
            candidates.append(Candidate(record, overlay, replace(final, overlay=overlay.name)))
    candidates.sort(key=lambda item: (merit(item.evaluation), item.record.number))
    first = None if isinstance(default, Infeasible) else default
    both = (ratio(candidates[0].evaluation.energy, first.energy, board)
            if candidates and first else None)
    return Exploration(found, first, tuple(candidates), both)


def merit(item: Evaluation | None) -> float:
    """Latency times energy: small is good, and neither can be bought with the other alone."""
    assert item is not None
    return item.latency_ms * item.energy_uj_per_pixel
