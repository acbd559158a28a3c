"""What a search is asked and what it answers, as values: objectives, settings, records, the front.

It proposes and evaluates nothing; see `search`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from studies.evaluation.values import Evaluation, Resource, Scored
from studies.plain.quality_table import quality_db
from studies.plain.stopping import Stopped
from studies.search.front import pareto_mask
from studies.search.space import Choice


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


#: What became of a design.
Outcome = Evaluation | Failure


@dataclass(frozen=True)
class Settings:
    """How to search. `designs`: different feasible designs that are judged, by simulation or by
    bounds; `attempts` bounds those that the sampler names. `local`: so much of every batch are
    untried single-axis neighbours of the front so far; the sampler learns from them. `stretch`:
    after so many designs come at most `rounds` sweeps from the best design, along one axis behind
    the other, each time to the axis' best value; their designs count. The same settings and space
    give the same result. `screened`: an exploration first searches so many designs by their bounds
    alone, twice, and begins with the best of them (see `screening`). The sampler `exhaustive` tries
    every design whatever `designs` says; with bounds those dominated are not simulated."""

    designs: int = 600
    seed: int = 0
    batch: int = 32
    sampler: Sampler = Sampler.NSGA2
    objectives: tuple[Objective, ...] = OBJECTIVES
    population: int = 24
    local: float = 0.5
    stretch: int = 50
    rounds: int = 2
    attempts: int = 4000
    screened: int = 300

    @property
    def screens(self) -> bool:
        """Does a search of bounds come first?"""
        return self.screened > 0 and self.sampler is not Sampler.EXHAUSTIVE


@dataclass(frozen=True)
class Record:
    """One different design that was tried, and what became of it."""

    number: int
    choice: Choice
    outcome: Outcome

    @property
    def evaluation(self) -> Evaluation | None:
        """What the design does, None if it was not feasible."""
        return None if isinstance(self.outcome, Failure) else self.outcome

    @property
    def failure(self) -> Failure | None:
        """Why it was not feasible, None if it was."""
        return self.outcome if isinstance(self.outcome, Failure) else None


@dataclass(frozen=True)
class Found:
    """A finished search: every different design in the order tried, and the best trade-offs.

    `front`: indices into `records` that no other dominates. `asked`: designs the sampler named,
    repeats included (a repeat is answered from memory). `pruned`: different designs that were
    not simulated, and are in no record, since a record dominates their lower bounds. `signal`:
    that ended the search before its time, else 0.
    """

    settings: Settings
    records: tuple[Record, ...]
    front: tuple[int, ...]
    asked: int
    infeasible: int = 0
    pruned: int = 0
    signal: int = 0

    def whole(self) -> Found:
        """The search itself, if nothing ended it before its time; else `Stopped` is raised."""
        if self.signal:
            raise Stopped(self.signal)
        return self

    @property
    def judged(self) -> int:
        """Different feasible designs: simulated, or known to be dominated."""
        return self.evaluated + self.pruned

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


Bound = Callable[[Choice], Scored | None]
Evaluate = Callable[[Sequence[Choice]], Iterable[Outcome]]
Progress = Callable[[Record, int], None]


class Watcher(Protocol):
    """Who is told how far an exploration is."""

    def record(self, record: Record, done: int) -> None:
        """The search has one more design; `done`: designs judged so far."""

    def final(self, done: int, total: int) -> None:
        """So many of the best designs, the first design among them, have been simulated again
        with the final memory model; first told with 0."""


def design_key(choice: Choice) -> str:
    """The content hash of a design: equal for equal choices, whatever their order."""
    text = json.dumps(sorted(choice.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def front_of(records: Sequence[Record], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """The records (numbers) that were evaluated and that no other dominates."""
    indices = [record.number for record in records if record.evaluation]
    if not indices:
        return ()
    points = np.array([[objective.of(records[index].evaluation)  # type: ignore[arg-type]
                        for objective in objectives] for index in indices])
    return tuple(int(i) for i in np.array(indices)[pareto_mask(points)])
