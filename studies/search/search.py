"""Searches a design space with Optuna: ask and tell in batches, memoized, seeded, repeatable.

It does not know how a design is evaluated: it is handed a function. Optuna is imported here only.
"""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import optuna

from studies.evaluation.values import Scored
from studies.plain.errors import UserError, unknown
from studies.plain.stopping import Stopped, taken
from studies.search.outcomes import (
    Bound,
    Evaluate,
    Failure,
    Found,
    Objective,
    Outcome,
    Progress,
    Pruned,
    Record,
    Sampler,
    Settings,
    design_key,
    front_of,
)
from studies.search.space import Choice, Space, designs

#: Told to the sampler for designs that have no objectives; it ranks them by their constraints.
NO_VALUE = 1e12
#: The resources that constrain every design.
FABRIC = ("DSP", "BRAM36", "LUT", "FF")
#: A space of more designs is not tried whole.
MOST_EXHAUSTIVE = 100_000


def search(evaluate: Evaluate, space: Space, settings: Settings,
           start: Sequence[Choice] = (), progress: Progress | None = None,
           bound: Bound | None = None) -> Found:
    """Try designs until `settings.designs` different ones were judged, or the space has no more.

    `evaluate` answers a batch of different designs in their order (it may use several cores);
    `start` holds designs to try first; `progress` is told each new record and the number of
    judged designs so far. The result does not depend on how `evaluate` is spread over cores.
    With the same seed a search tries first what one with fewer designs tries.

    `bound`: lower bounds of a design's objectives (None: unknown, or infeasible). A design whose
    bounds a known one dominates is judged but not evaluated: no simulation could bring it onto
    the front. The sampler is told the bounds instead.

    A `Stopped` that is raised meanwhile ends the search; what was found is returned with it.
    """
    if bound is not None and space.constraints:
        bound = partial(_bound_within, space, bound)
    every = settings.sampler is Sampler.EXHAUSTIVE
    book = _Book(_within(space, evaluate), progress, settings.objectives, bound,
                 None if every else settings.designs)
    signal = 0
    try:
        if every:
            _try_every(book, space, settings)
        else:
            _try_some(book, space, settings, start)
    except Stopped as stopped:
        taken()
        signal = stopped.signal
    return Found(settings, tuple(book.records), front_of(book.records, settings.objectives),
                 book.asked, sum(record.failure is not None for record in book.records),
                 book.pruned, signal)


def _try_every(book: _Book, space: Space, settings: Settings) -> None:
    every = _every(space)
    while named := list(itertools.islice(every, settings.batch)):
        book.answer(named)


def _try_some(book: _Book, space: Space, settings: Settings, start: Sequence[Choice]) -> None:
    """Sample in batches; sweep the axes whenever `settings.stretch` more designs were judged."""
    study = _study(settings)
    for choice in start:
        study.enqueue_trial(dict(space.canonical(choice)))
    sampled = descended = 0
    while not book.full and sampled < settings.attempts:
        count = min(settings.batch, settings.attempts - sampled)
        for choice in book.near_front(space, settings, round(count * settings.local)):
            study.enqueue_trial(dict(choice))
        trials, choices = _ask(study, space, count)
        sampled += count
        before = book.judged
        answers = book.answer(choices)
        descended += book.judged - before
        for trial, outcome in zip(trials, answers, strict=False):  # fewer where the book is full
            _tell(study, trial, outcome, settings.objectives)
        if descended >= settings.stretch or sampled >= settings.attempts:
            _descend(book, space, settings)
            descended = 0


def _descend(book: _Book, space: Space, settings: Settings) -> None:
    """From the best design along one axis behind the other, each time to the axis' best value."""
    for _ in range(settings.rounds):
        before = _best(book.records, settings.objectives)
        for axis in space.axes:
            best = _best(book.records, settings.objectives)
            if best is None or book.full:
                return
            book.answer(space.along(axis, best.choice))
        if _best(book.records, settings.objectives) is before:
            return


def _every(space: Space) -> Iterator[Choice]:
    if space.size() > MOST_EXHAUSTIVE:
        raise UserError(f"sampler 'exhaustive': the space has {space.size():,} designs, at most "
                        f"{MOST_EXHAUSTIVE:,}; narrow it with --space, or take another sampler.")
    return designs(space)


def _within(space: Space, evaluate: Evaluate) -> Evaluate:
    """The evaluator of designs that keep the space's constraints; others fail unevaluated."""
    def answer(choices: Sequence[Choice]) -> Iterator[Outcome]:
        broken = [space.broken(choice) for choice in choices]
        outcomes = iter(evaluate([choice for choice, constraint in
                                  zip(choices, broken, strict=True) if constraint is None]))
        for choice, constraint in zip(choices, broken, strict=True):
            if constraint is None:
                yield next(outcomes)
            else:
                value, bound = constraint.value(choice), str(constraint)
                yield Failure(f"constraint of the space: {bound}, is {value}; "
                              f"try: {', '.join(constraint.axes)}", constraint.excess(choice))

    return answer if space.constraints else evaluate


def _bound_within(space: Space, bound: Bound, choice: Choice) -> Scored | None:
    return None if space.broken(choice) else bound(choice)


class _Book:
    """Every different design that was tried; a design that comes again is not evaluated again.

    It takes no more when `most` designs were judged, that is evaluated or pruned.
    """

    def __init__(self, evaluate: Evaluate, progress: Progress | None,
                 objectives: Sequence[Objective], bound: Bound | None, most: int | None) -> None:
        self.evaluate, self.progress = evaluate, progress
        self.objectives, self.bound, self.most = objectives, bound, most
        self.known: dict[str, Outcome | Pruned] = {}
        self.records: list[Record] = []
        self.asked = self.evaluated = self.pruned = 0

    @property
    def judged(self) -> int:
        """Different feasible designs so far."""
        return self.evaluated + self.pruned

    @property
    def full(self) -> bool:
        """Is there no room for another design?"""
        return self.most is not None and self.judged >= self.most

    def answer(self, choices: Sequence[Choice]) -> list[Outcome | Pruned]:
        """Outcomes in the order of the choices, up to the one that fills the book."""
        self.asked += len(choices)
        fresh: dict[str, Choice] = {}
        for choice in choices:
            key = design_key(choice)
            if key not in self.known:
                fresh.setdefault(key, choice)
        self._prune(fresh)
        waiting = list(fresh.items())
        while waiting and not self.full:
            room = len(waiting) if self.most is None else self.most - self.judged
            these, waiting = waiting[:room], waiting[room:]
            outcomes = self.evaluate([choice for _, choice in these])
            for (key, choice), outcome in zip(these, outcomes, strict=True):
                self.known[key] = outcome
                self._record(choice, outcome)
        answers = (self.known.get(design_key(choice)) for choice in choices)
        return list(itertools.takewhile(lambda item: item is not None, answers))  # type: ignore[arg-type]

    def _record(self, choice: Choice, outcome: Outcome) -> None:
        number = len(self.records)
        record = Record(number, choice, outcome)
        self.records.append(record)
        self.evaluated += record.failure is None
        if self.progress:
            self.progress(record, len(self.records) if self.most is None else self.judged)

    def _prune(self, fresh: dict[str, Choice]) -> None:
        """Take out the designs whose bounds the front so far dominates."""
        front = front_of(self.records, self.objectives)
        if self.bound is None or not front:
            return
        points = np.array([[item.of(record.evaluation) for item in self.objectives]
                           for record in (self.records[index] for index in front)
                           if record.evaluation])
        for key, choice in list(fresh.items()):
            least = None if self.full else self.bound(choice)
            if least is None:
                continue
            # Of designs that are equal in all objectives the front keeps the first, too.
            if np.any(np.all(points <= [item.of(least) for item in self.objectives], axis=1)):
                self.known[key] = Pruned(least)
                self.pruned += 1
                del fresh[key]

    def near_front(self, space: Space, settings: Settings, count: int) -> list[Choice]:
        """At most `count` untried neighbours of the front, in a seeded random order.

        A neighbour differs in one axis, or in two that are coupled. Every design of the front
        has its turn, the earliest tried first.
        """
        generator = random.Random(f"{settings.seed} {len(self.records)}")
        ways = []
        for index in front_of(self.records, settings.objectives):
            centre = self.records[index].choice
            near = [choice for _, choice in space.neighbours(centre)] + space.coupled(centre)
            generator.shuffle(near)
            ways.append(near)
        found: dict[str, Choice] = {}
        for choice in (item for turn in itertools.zip_longest(*ways) for item in turn if item):
            if len(found) >= count:
                break
            key = design_key(choice)
            if key not in self.known:
                found.setdefault(key, choice)
        return list(found.values())


def _best(records: Sequence[Record], objectives: Sequence[Objective]) -> Record | None:
    """The record with the smallest product of the objectives, resources left aside if it can."""
    wanted = [item for item in objectives
              if item not in (Objective.RESOURCES, Objective.QUALITY)]

    def merit(record: Record) -> float:
        assert record.evaluation is not None
        values: list[float] = [item.of(record.evaluation) for item in wanted or objectives]
        return math.prod(values)

    return min((record for record in records if record.evaluation), default=None, key=merit)


def parse_names(kind: str, names: Iterable[str], choices: type[StrEnum]) -> tuple[Any, ...]:
    """Members of an enum by name; `UserError` with the nearest name for an unknown one."""
    found = []
    for name in names:
        if name not in [member.value for member in choices]:
            raise unknown(kind, name, [str(member.value) for member in choices])
        found.append(choices(name))
    return tuple(found)


def _study(settings: Settings) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = _sampler(settings)
    return optuna.create_study(directions=["minimize"] * len(settings.objectives),
                               sampler=sampler)


def _sampler(settings: Settings) -> optuna.samplers.BaseSampler:
    if settings.sampler is Sampler.NSGA2:
        return optuna.samplers.NSGAIISampler(seed=settings.seed,
                                             population_size=settings.population)
    if settings.sampler is Sampler.NSGA3:
        return optuna.samplers.NSGAIIISampler(seed=settings.seed,
                                              population_size=settings.population)
    if settings.sampler is Sampler.TPE:
        return optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=settings.population)
    if settings.sampler is Sampler.GP:
        return optuna.samplers.GPSampler(seed=settings.seed, n_startup_trials=settings.population)
    return optuna.samplers.RandomSampler(seed=settings.seed)


def _ask(study: optuna.Study, space: Space, count: int) -> tuple[list[optuna.Trial], list[Choice]]:
    trials, choices = [], []
    for _ in range(count):
        trial = study.ask()
        choice: Choice = {}
        for axis in space.axes:
            if space.active(axis, choice):
                value: Any = trial.suggest_categorical(axis.name, axis.values)
                choice[axis.name] = value
        trials.append(trial)
        choices.append(choice)
    return trials, choices


def _tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome | Pruned,
          objectives: Sequence[Objective]) -> None:
    # The same constraints for every trial, as the GP sampler demands; 0 where nothing is known.
    over = {item.name: item.share - 1 for item in outcome.resources}
    for name in (*FABRIC, *(name for name in over if name not in FABRIC)):
        trial.set_constraint(name, over.get(name, 0.0))
    if isinstance(outcome, Failure):
        trial.set_constraint("feasible", outcome.excess)
        study.tell(trial, [NO_VALUE] * len(objectives))
    else:
        trial.set_constraint("feasible", 0.0)
        values = outcome.bound if isinstance(outcome, Pruned) else outcome
        study.tell(trial, [objective.of(values) for objective in objectives])
