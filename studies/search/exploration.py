"""One whole exploration: search with the flat memory, re-evaluate the best with ddr3, choose.

It does not sample (`search`) nor evaluate by itself (`evaluate`); it puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Infeasible, Overlay
from arch_models.power.energy import Ratio, ratio
from studies.evaluation.evaluate import (
    STEADY_FRAMES,
    at_clock,
    estimated_resources,
    evaluate,
)
from studies.evaluation.inputs import workload
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.quality_table import comparable
from studies.plain.stopping import Stopped, taken
from studies.plain.workers import forked
from studies.search.dask_workers import connected
from studies.search.identity import digest, identity
from studies.search.outcomes import (
    OBJECTIVES,
    Bound,
    Evaluate,
    Failure,
    Found,
    Objective,
    Outcome,
    Record,
    Settings,
    Watcher,
)
from studies.search.screening import bounder, promising, roomy, screened, seen
from studies.search.search import search
from studies.search.shared_study import open_study
from studies.search.space import WORKLOAD, Choice, Space, default_space
from studies.search.space_overlays import overlay_of, starting_choices
from workloads.graph import Graph

SEARCH_MEMORY = "flat"
FINAL_MEMORY = "ddr3"
#: See `finalists`.
DEPTH = 4


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
    `one_clock`: the chosen design at the default's clock, None without either.
    `signal`: that ended it before its time, else 0; of the candidates some are missing then.
    """

    found: Found
    default: Evaluation | None
    candidates: tuple[Candidate, ...]
    energy_ratio: Ratio | None = None
    signal: int = 0
    one_clock: Evaluation | None = None

    @property
    def chosen(self) -> Candidate | None:
        """The candidate with the smallest product of latency and energy, None without any."""
        return self.candidates[0] if self.candidates else None


def outcome(graph: Graph, board: Board, base: Overlay, choice: Choice | None,
            memory: str = SEARCH_MEMORY, frames: int = 1,
            others: Mapping[str, Graph] | None = None) -> Outcome:
    """Evaluate one choice, or the base; what cannot be built or mapped becomes a Failure.

    `others`: the networks that the axis `workload` may name in place of `graph`.
    """
    try:
        overlay = base if choice is None else overlay_of(choice, base, board)
        run = others[str(choice[WORKLOAD])] if others and choice and WORKLOAD in choice else graph
        found = evaluate(run, overlay, board, memory, frames)
    except FieldError as error:  # not a size too large but a value that cannot be
        return Failure(str(error), 1.0)
    if isinstance(found, Infeasible):
        excess = found.gap / abs(found.bound) if found.bound else max(1.0, found.gap)
        return Failure(str(found), max(excess, 1e-6), estimated_resources(overlay, board))
    return found


@dataclass(frozen=True)
class Question:
    """What is asked of every design. `others`: networks that an axis may name in place of it.

    `UserError` for a base that names a vendor's build: that speaks for no other design.
    """

    graph: Graph
    board: Board
    base: Overlay
    frames: int = 1
    others: Mapping[str, Graph] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.base.build:
            raise UserError(f"a search predicts clocks; the design names the build "
                            f"{self.base.build!r}, leave it out")

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The networks that are run."""
        return tuple(self.others.values()) or (self.graph,)

    def bounded(self, settings: Settings) -> bool:
        """Are there lower bounds of these objectives? Only for one network, and not for all."""
        return not self.others and set(settings.objectives) <= set(OBJECTIVES)

    def outcome(self, memory: str, choice: Choice | None) -> Outcome:
        """The answer for one design; for the base itself if the choice is None.

        The finalists run as many frames as in `cosim simulate`, so that both say the same.
        """
        frames = STEADY_FRAMES if memory == FINAL_MEMORY else self.frames
        return outcome(self.graph, self.board, self.base, choice, memory, frames, self.others)

    def one_clock(self, found: Exploration) -> Evaluation | None:
        """The chosen design at the clock of the base, with the final memory model."""
        chosen, default = found.chosen, found.default
        if chosen is None or default is None:
            return None
        run = self.others.get(str(chosen.record.choice.get(WORKLOAD)), self.graph)
        again = evaluate(run, at_clock(chosen.overlay, default.clock_hz), self.board, FINAL_MEMORY,
                         STEADY_FRAMES)
        return None if isinstance(again, Infeasible) else again

    @contextmanager
    def on_cores(self, count: int) -> Iterator[Evaluators]:
        """Evaluates in processes of this machine."""
        with forked(self._answer, count) as workers:
            def answer(memory: str, choices: Sequence[Choice | None]) -> Iterator[Outcome]:
                return workers.map([(memory, choice) for choice in choices])

            yield Evaluators(partial(answer, SEARCH_MEMORY), partial(answer, FINAL_MEMORY), count)

    @contextmanager
    def on_dask(self, scheduler: str) -> Iterator[Evaluators]:
        """Evaluates on the workers of a Dask scheduler."""
        with connected(scheduler) as workers:
            searching, finally_ = (partial(workers.map, _answer, (self, memory))
                                   for memory in (SEARCH_MEMORY, FINAL_MEMORY))
            yield Evaluators(searching, finally_, workers.width)

    def _answer(self, asked: tuple[str, Choice | None]) -> Outcome:
        return self.outcome(*asked)


@dataclass(frozen=True)
class Evaluators:
    """Who answers for the search and for its finalists; `width`: designs at a time."""

    search: Evaluate
    finals: Callable[[Sequence[Choice | None]], Iterable[Outcome]]
    width: int


def _answer(asked: tuple[Question, str], choice: Choice | None) -> Outcome:
    question, memory = asked
    return question.outcome(memory, choice)


@dataclass(frozen=True)
class Store:
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


@dataclass(frozen=True)
class Means:
    """With what means a search is run; its result does not depend on who works, nor where.

    `workers`: processes of this machine, or `scheduler`: a Dask scheduler that takes their place.
    `store`: where outcomes are kept. `prune`: do not simulate designs whose lower bounds are
    dominated. `depth`: see `finalists`.
    """

    workers: int = 1
    scheduler: str | None = None
    store: Store | None = None
    prune: bool = True
    depth: int = DEPTH


def beginning(space: Space, base: Overlay, board: Board, settings: Settings,
              bound: Bound | None = None, earlier: Sequence[Choice] = ()) -> list[Choice]:
    """The designs that a search begins with, each once: some that fit the board, `earlier`, and
    with a `bound` what searches of bounds find. `Stopped` comes through."""
    start = starting_choices(space, base, board)
    start += [choice for choice in earlier if choice not in start]
    if bound is not None and settings.screens:
        first = screened(space, settings, start, bound).whole()
        start += _new(promising(first), start)
        if room := roomy(space, first, bound):
            start += _new(room, start)
            start += _new(promising(screened(space, settings, room, bound).whole()), start)
        start += _new(promising(screened(seen(space), settings, start, bound).whole()), start)
    return start


def _new(choices: Sequence[Choice], known: Sequence[Choice]) -> list[Choice]:
    return [choice for choice in choices if choice not in known]


def explore(graph: Graph, board: Board, base: Overlay, settings: Settings,
            space: Space | None = None, means: Means = Means(), earlier: Sequence[Choice] = (),
            watcher: Watcher | None = None) -> Exploration:
    """Search, then evaluate the base and the most promising designs with `ddr3`.

    It begins with designs that fit the board, with `earlier` (for example the front of an earlier
    study, see `warm_start`), and with what a search of bounds finds (`screening`). The result
    depends on the settings, the space and `earlier` only. A `Stopped` that is raised meanwhile ends
    it; what was found is returned, see `Exploration.signal`.
    """
    space = space or default_space(board, graph)
    asked = Question(graph, board, base,
                     STEADY_FRAMES if Objective.PERIOD in settings.objectives else 1,
                     {str(name): workload(str(name)) for axis in space.axes
                      if axis.name == WORKLOAD for name in axis.values})
    if Objective.QUALITY in settings.objectives:
        comparable(item.name for item in asked.graphs)
    bound = bounder(graph, board, base) if asked.bounded(settings) else None
    try:
        start = beginning(space, base, board, settings, bound, earlier)
    except Stopped as stopped:
        taken()
        return Exploration(Found(settings, (), (), 0, signal=stopped.signal), None, (),
                           signal=stopped.signal)
    evaluators = (asked.on_cores(means.workers) if means.scheduler is None
                  else asked.on_dask(means.scheduler))
    with evaluators as using:
        searching: Evaluate = using.search
        finally_: Evaluate = using.finals
        if means.store is not None:
            known = {**identity(asked.graphs, board, base, space, settings),
                     "start": digest(start), "prune": means.prune}
            searching, finally_ = (
                means.store.remembering(space, settings, known, memory, work, using.width)
                for memory, work in ((SEARCH_MEMORY, searching), (FINAL_MEMORY, finally_)))
        found = search(searching, space, settings, start, watcher.record if watcher else None,
                       bound if means.prune else None)
        if found.signal:
            return Exploration(found, None, (), signal=found.signal)
        finals, chosen = _Finals(base, board), finalists(found, means.depth)
        told = partial(watcher.final, total=len(chosen) + 1) if watcher else lambda done: None
        try:
            told(0)
            finals.base(next(iter(using.finals([None]))))
            told(1)
            again = finally_([item.choice for item in chosen])
            for number, (record, final) in enumerate(zip(chosen, again, strict=True), 2):
                finals.add(record, final)
                told(number)
            whole = finals.exploration(found)
            return replace(whole, one_clock=asked.one_clock(whole))
        except Stopped as stopped:
            taken()
            return finals.exploration(found, stopped.signal)


def finalists(found: Found, depth: int = DEPTH) -> tuple[Record, ...]:
    """Designs that were among the `depth` best so far when they were found, by `merit`.

    So the finalists of a search are among those of a longer one, which cannot end worse.
    """
    best: list[float] = []
    chosen = []
    for record in found.records:
        if record.evaluation is None:
            continue
        value = merit(record.evaluation)
        if len(best) < depth or value < best[-1]:
            best = sorted([*best, value])[:depth]
            chosen.append(record)
    return tuple(chosen)


class _Finals:
    """What the final memory model has said so far."""

    def __init__(self, base: Overlay, board: Board) -> None:
        self._base, self._board = base, board
        self._default: Evaluation | None = None
        self._candidates: list[Candidate] = []

    def base(self, final: Outcome) -> None:
        """Take in what became of the base design."""
        self._default = None if isinstance(final, Failure) else final

    def add(self, record: Record, final: Outcome) -> None:
        """Take in what became of a finalist."""
        if not isinstance(final, Failure):
            name = f"explored-{record.number}"
            overlay = overlay_of(record.choice, self._base, self._board, name)
            self._candidates.append(Candidate(record, overlay, replace(final, overlay=name)))

    def exploration(self, found: Found, signal: int = 0) -> Exploration:
        """All of it, best first."""
        ranked = sorted(self._candidates,
                        key=lambda item: (merit(item.evaluation), item.record.number))
        both = (ratio(ranked[0].evaluation.energy, self._default.energy, self._board)
                if ranked and self._default else None)
        return Exploration(found, self._default, tuple(ranked), both, signal)


def merit(item: Evaluation) -> float:
    """Latency times energy: small is good, and neither can be bought with the other alone."""
    return item.latency_ms * item.energy_uj_per_pixel
