"""Searches a design space with Optuna: ask and tell in batches, memoized, seeded, repeatable.

It does not know how a design is evaluated: it is handed a function. Optuna is imported here only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import optuna

from studies.evaluation.values import Evaluation, Resource, Scored
from studies.plain.errors import UserError, unknown
from studies.plain.quality_table import quality_db
from studies.search.front import pareto_mask
from studies.search.space import Choice, Space, designs

#: Told to the sampler for designs that have no objectives; it ranks them by their constraints.
NO_VALUE = 1e12
#: The resources that constrain every design.
FABRIC = ("DSP", "BRAM36", "LUT", "FF")
#: A space of more designs is not tried whole.
MOST_EXHAUSTIVE = 100_000


class Objective(StrEnum):
    """What a search makes small."""

    LATENCY = "latency"
    ENERGY = "energy"
    RESOURCES = "resources"
    PERIOD = "period"
    QUALITY = "quality"

    @property
    def label(self) -> str:
        """The name and unit of its figure."""
        return {Objective.LATENCY: "latency (ms)", Objective.ENERGY: "energy (uJ/pixel)",
                Objective.RESOURCES: "largest share of the fabric",
                Objective.PERIOD: "period (ms)", Objective.QUALITY: "minus PSNR (dB)"}[self]

    def of(self, evaluation: Scored) -> float:
        """Its figure in the unit of the label. Period and quality need a whole `Evaluation`."""
        if self is Objective.LATENCY:
            return evaluation.latency_ms
        if self is Objective.ENERGY:
            return evaluation.energy_uj_per_pixel
        if self is Objective.RESOURCES:
            return max(item.share for item in evaluation.resources)
        assert isinstance(evaluation, Evaluation)
        if self is Objective.PERIOD:
            return evaluation.period_ms
        return -quality_db(evaluation.workload)


#: What a search makes small when nothing else is said.
OBJECTIVES = (Objective.LATENCY, Objective.ENERGY, Objective.RESOURCES)


class Sampler(StrEnum):
    """How designs are proposed: Optuna's samplers, or every design in turn."""

    NSGA2 = "nsga2"
    NSGA3 = "nsga3"
    TPE = "tpe"
    GP = "gp"
    RANDOM = "random"
    EXHAUSTIVE = "exhaustive"


@dataclass(frozen=True)
class Failure:
    """Why a design was not evaluated: the reason for a person, and by how much (0 to inf)."""

    reason: str
    excess: float
    resources: tuple[Resource, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How to search. `designs`: evaluated (feasible, different) designs that the sampler is to
    reach; `attempts` bounds the asked ones. `local`: so much of every batch are untried
    single-axis neighbours of the front so far; the sampler learns from them. `rounds`: at most so
    many steps of descent behind the sampler, each to the best single-axis neighbour of the best
    design. The same settings and space give the same result. The sampler `exhaustive` asks for
    every design whatever `designs` says; with bounds those dominated are not simulated."""

    designs: int = 300
    seed: int = 0
    batch: int = 32
    sampler: Sampler = Sampler.NSGA2
    objectives: tuple[Objective, ...] = OBJECTIVES
    population: int = 24
    local: float = 0.5
    rounds: int = 6
    attempts: int = 4000


@dataclass(frozen=True)
class Record:
    """One different design that was tried. `evaluation` or `failure` is None."""

    number: int
    choice: Choice
    evaluation: Evaluation | None
    failure: Failure | None


@dataclass(frozen=True)
class Found:
    """A finished search: every different design in the order tried, and the best trade-offs.

    `front`: indices into `records` that no other dominates. `asked`: designs the sampler named,
    repeats included (a repeat is answered from memory). `pruned`: different designs that were
    not simulated, and are in no record, since a record dominates their lower bounds.
    """

    settings: Settings
    records: tuple[Record, ...]
    front: tuple[int, ...]
    asked: int
    infeasible: int = field(default=0)
    pruned: int = field(default=0)

    @property
    def evaluated(self) -> int:
        """Different designs that were simulated whole."""
        return sum(record.evaluation is not None for record in self.records)

    def objectives(self) -> np.ndarray:
        """(records, objectives), NaN where a design was not evaluated."""
        rows = [[objective.of(record.evaluation) if record.evaluation else np.nan
                 for objective in self.settings.objectives] for record in self.records]
        return np.array(rows, float).reshape(len(rows), len(self.settings.objectives))


@dataclass(frozen=True)
class Pruned:
    """A design that was not simulated: something evaluated dominates its lower bounds."""

    bound: Scored

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Estimated use of the fabric, exact."""
        return self.bound.resources


Outcome = Evaluation | Failure
Bound = Callable[[Choice], Scored | None]
Evaluate = Callable[[Sequence[Choice]], Iterable[Outcome]]
Progress = Callable[[Record, int], None]


def search(evaluate: Evaluate, space: Space, settings: Settings,
           start: Sequence[Choice] = (), progress: Progress | None = None,
           bound: Bound | None = None) -> Found:
    """Try designs until `settings.designs` different ones were evaluated, then descend.

    `evaluate` answers a batch of different designs in their order (it may use several cores);
    `start` holds designs to try first; `progress` is told each new record and the number of
    evaluated designs so far. The result does not depend on how `evaluate` is spread over cores.

    `bound`: lower bounds of a design's objectives (None: unknown, or infeasible). A design whose
    bounds a known one dominates counts as evaluated but is not: no simulation could bring it onto
    the front. The sampler is told the bounds instead.
    """
    study = _study(settings)
    every = _every(space) if settings.sampler is Sampler.EXHAUSTIVE else None
    for choice in start if every is None else ():
        study.enqueue_trial(dict(space.canonical(choice)))
    if bound is not None and space.constraints:
        bound = partial(_bound_within, space, bound)
    book = _Book(_within(space, evaluate), progress, settings.objectives, bound)
    asked = 0
    while every is not None or (book.evaluated + book.pruned < settings.designs
                                and asked < settings.attempts):
        count = min(settings.batch, settings.attempts - asked)
        if every is not None:
            named = list(itertools.islice(every, settings.batch))
            count = len(named)
        else:
            named = book.near_front(space, settings, round(count * settings.local))
        if not count:
            break
        for choice in named:
            study.enqueue_trial(dict(choice))
        trials, choices = _ask(study, space, count)
        asked += count
        for trial, outcome in zip(trials, book.answer(choices), strict=True):
            _tell(study, trial, outcome, settings.objectives)
    for _ in range(settings.rounds):
        best = _best(book.records, settings.objectives)
        if best is None:
            break
        near = [choice for _, choice in space.neighbours(best.choice)]
        asked += len(near)
        book.answer(near)
        if _best(book.records, settings.objectives) is best:
            break
    records = book.records
    return Found(settings, tuple(records), _front(records, settings.objectives), asked,
                 sum(record.failure is not None for record in records), book.pruned)


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
    """Every different design that was tried; a design that comes again is not evaluated again."""

    def __init__(self, evaluate: Evaluate, progress: Progress | None,
                 objectives: Sequence[Objective], bound: Bound | None) -> None:
        self.evaluate, self.progress = evaluate, progress
        self.objectives, self.bound = objectives, bound
        self.known: dict[str, Outcome | Pruned] = {}
        self.records: list[Record] = []
        self.evaluated = self.pruned = 0

    def answer(self, choices: Sequence[Choice]) -> list[Outcome | Pruned]:
        """Outcomes in the order of the choices."""
        fresh: dict[str, Choice] = {}
        for choice in choices:
            key = design_key(choice)
            if key not in self.known:
                fresh.setdefault(key, choice)
        self._prune(fresh)
        outcomes = self.evaluate(list(fresh.values()))
        for (key, choice), outcome in zip(fresh.items(), outcomes, strict=True):
            self.known[key] = outcome
            if isinstance(outcome, Failure):
                record = Record(len(self.records), choice, None, outcome)
            else:
                record = Record(len(self.records), choice, outcome, None)
                self.evaluated += 1
            self.records.append(record)
            if self.progress:
                self.progress(record, self.evaluated + self.pruned)
        return [self.known[design_key(choice)] for choice in choices]

    def _prune(self, fresh: dict[str, Choice]) -> None:
        """Take out the designs whose bounds the front so far dominates."""
        front = _front(self.records, self.objectives)
        if self.bound is None or not front:
            return
        points = np.array([[item.of(record.evaluation) for item in self.objectives]
                           for record in (self.records[index] for index in front)
                           if record.evaluation])
        for key, choice in list(fresh.items()):
            least = self.bound(choice)
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
        for index in _front(self.records, settings.objectives):
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


def design_key(choice: Choice) -> str:
    """The content hash of a design: equal for equal choices, whatever their order."""
    text = json.dumps(sorted(choice.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _front(records: Sequence[Record], objectives: Sequence[Objective]) -> tuple[int, ...]:
    indices = [record.number for record in records if record.evaluation]
    if not indices:
        return ()
    points = np.array([[objective.of(records[index].evaluation)  # type: ignore[arg-type]
                        for objective in objectives] for index in indices])
    return tuple(int(i) for i in np.array(indices)[pareto_mask(points)])
