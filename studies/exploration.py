"""One whole exploration: search with the flat memory, re-evaluate the best with ddr3, choose.

It does not sample (`search`) nor evaluate by itself (`evaluate`); it puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Infeasible, Overlay
from studies.dask_workers import connected
from studies.evaluate import estimated_resources, evaluate
from studies.evaluation import Evaluation
from studies.identity import identity
from studies.pruning import bounder
from studies.search import (
    Evaluate,
    Failure,
    Found,
    Outcome,
    Progress,
    Record,
    Settings,
    search,
)
from studies.shared_study import open_study
from studies.space import Choice, Space, default_space, overlay_of, starting_choices
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
    """

    found: Found
    default: Evaluation | None
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The candidate with the smallest product of latency and energy, None without any."""
        return self.candidates[0] if self.candidates else None


def outcome(graph: Graph, board: Board, base: Overlay, choice: Choice,
            memory: str = SEARCH_MEMORY) -> Outcome:
    """Evaluate one choice for the search; what cannot be built or mapped becomes a Failure."""
    try:
        overlay = overlay_of(choice, base, board)
        found = evaluate(graph, overlay, board, memory, frames=1)
    except FieldError as error:  # not a size too large but a value that cannot be
        return Failure(str(error), 1.0)
    if isinstance(found, Infeasible):
        excess = found.gap / abs(found.bound) if found.bound else max(1.0, found.gap)
        return Failure(str(found), max(excess, 1e-6), estimated_resources(overlay, board))
    return found


def _outcomes(graph: Graph, board: Board, base: Overlay, memory: str,
              choices: Sequence[Choice]) -> list[Outcome]:
    return [outcome(graph, board, base, choice, memory) for choice in choices]


@contextmanager
def evaluator(graph: Graph, board: Board, base: Overlay, workers: int = 1,
              memory: str = SEARCH_MEMORY) -> Iterator[Evaluate]:
    """A batch evaluator for `search`, on this core or spread over processes; answers in order."""
    work = partial(_outcomes, graph, board, base, memory)
    if workers <= 1:
        yield work
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        pool.submit(int).result()  # forks now, before the caller opens anything that may not fork
        yield partial(_spread, pool, workers, work)


@contextmanager
def _dask_evaluators(graph: Graph, board: Board, base: Overlay,
                    scheduler: str) -> Iterator[tuple[Evaluate, Evaluate, int]]:
    """The same for the search and for its finalists, by the workers of a Dask scheduler.

    The last value is how many designs they evaluate at the same time.
    """
    with connected(scheduler) as workers:
        searching, finally_ = (
            partial(workers.map, _outcome_in, (graph, board, base, memory))
            for memory in (SEARCH_MEMORY, FINAL_MEMORY))
        yield searching, finally_, workers.width


def _outcome_in(context: tuple[Graph, Board, Overlay, str], choice: Choice) -> Outcome:
    graph, board, base, memory = context
    return outcome(graph, board, base, choice, memory)


@contextmanager
def _local_evaluators(graph: Graph, board: Board, base: Overlay,
                      workers: int) -> Iterator[tuple[Evaluate, Evaluate, int]]:
    with evaluator(graph, board, base, workers) as searching, \
            evaluator(graph, board, base, workers, FINAL_MEMORY) as finally_:
        yield searching, finally_, workers


def _spread(pool: Executor, workers: int, work: Evaluate,
            choices: Sequence[Choice]) -> Iterable[Outcome]:
    # Dealt round-robin: slow and fast designs come in runs, so contiguous shares are uneven.
    shares = [choices[start::workers] for start in range(workers)]
    answers = list(pool.map(work, shares))
    merged: list[Outcome | None] = [None] * len(choices)
    for start, answer in enumerate(answers):
        merged[start::workers] = list(answer)
    return [item for item in merged if item is not None]


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else \
        os.cpu_count() or 1


@dataclass(frozen=True)
class Place:
    """Where a search keeps its outcomes: a storage (see `studies.storage`), a study's name."""

    storage: str
    study: str

    def remembering(self, graph: Graph, board: Board, base: Overlay, space: Space,
                    settings: Settings, memory: str, work: Evaluate, width: int) -> Evaluate:
        """The evaluator that looks into the study of this memory model first."""
        name = self.study if memory == SEARCH_MEMORY else f"{self.study}-{memory}"
        known = {**identity(graph, board, base, space, settings), "memory model": memory}
        study = open_study(self.storage, name, space, settings.objectives, known)
        return study.remembering(work, width)


def explore(graph: Graph, board: Board, base: Overlay, settings: Settings,
            space: Space | None = None, workers: int = 1, finalists: int = 12,
            progress: Progress | None = None, place: Place | None = None,
            scheduler: str | None = None, prune: bool = True) -> Exploration:
    """Search, then evaluate the base and the most promising designs of the front with `ddr3`.

    `finalists`: how many are evaluated again, smallest product of latency and energy first. The
    result depends on the settings and the space only: not on `workers` or the Dask `scheduler`
    that takes their place, nor on what `place` already holds, nor on who else works there.
    `prune`: do not simulate designs whose lower bounds are dominated.
    """
    space = space or default_space(board)
    start = starting_choices(space, base, board)
    evaluators = (_local_evaluators(graph, board, base, workers) if scheduler is None
                  else _dask_evaluators(graph, board, base, scheduler))
    with evaluators as (answer, answer_finally, width):
        if place is not None:
            answer, answer_finally = (
                place.remembering(graph, board, base, space, settings, memory, work, width)
                for memory, work in ((SEARCH_MEMORY, answer), (FINAL_MEMORY, answer_finally)))
        found = search(answer, space, settings, start, progress,
                       bounder(graph, board, base) if prune else None)
        ranked = sorted((found.records[index] for index in found.front),
                        key=lambda record: (merit(record.evaluation), record.number))[:finalists]
        again = list(answer_finally([record.choice for record in ranked]))
    default = evaluate(graph, base, board, FINAL_MEMORY, frames=1)
    candidates = []
    for record, final in zip(ranked, again, strict=True):
        if not isinstance(final, Failure):
            overlay = overlay_of(record.choice, base, board, f"explored-{record.number}")
            candidates.append(Candidate(record, overlay, replace(final, overlay=overlay.name)))
    candidates.sort(key=lambda item: (merit(item.evaluation), item.record.number))
    return Exploration(found, None if isinstance(default, Infeasible) else default,
                       tuple(candidates))


def merit(item: Evaluation | None) -> float:
    """Latency times energy: small is good, and neither can be bought with the other alone."""
    assert item is not None
    return item.latency_ms * item.energy_uj_per_pixel


def named(overlay: Overlay, name: str) -> Overlay:
    """The same design under another name."""
    return replace(overlay, name=name)
