"""Outcomes of a search kept in a storage: nothing is lost by a kill, several processes share work.

It does not propose designs. A search is a function of its settings, its space and the outcomes of
designs (`search`), so a process that starts again asks the same designs in the same order and
finds the outcomes of all but the last here; two processes ask the same designs and divide them.

A design is one trial. A process claims it by adding a running trial that holds the design's key;
of several such trials the one with the lowest number counts, and storages give numbers one at a
time. The state "complete" (or "pruned" for a design that cannot be built) is written last.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.records import decode, encode
from studies.search.outcomes import Evaluate, Failure, Objective, Outcome, design_key
from studies.search.space import Choice, Space
from studies.search.storage import open_storage, plainly, shown

#: A claim that another machine has not settled in this time is taken over. Evaluating a design
#: twice is only waste: its outcome is the same.
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.05
OUTCOME, DESIGN, OWNER, IDENTITY = "outcome", "design", "owner", "identity"


@dataclass
class SharedStudy:
    """One study in a storage: trials read so far, and who this process is."""

    storage: BaseStorage
    place: str
    study_id: int
    space: Space
    objectives: tuple[Objective, ...]
    patience_s: float = PATIENCE_SECONDS
    owner: str = field(default_factory=lambda: f"{socket.gethostname()} {os.getpid()}")
    known: dict[str, Outcome] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)

    def remembering(self, evaluate: Evaluate, width: int = 1) -> Evaluate:
        """The evaluator that looks here first, and claims `width` designs at a time."""
        return partial(self._answer, evaluate, width)

    def _answer(self, evaluate: Evaluate, width: int, choices: Sequence[Choice]) -> list[Outcome]:
        wanted = {design_key(choice): choice for choice in choices}
        patient_until = time.monotonic() + self.patience_s
        while True:
            with plainly(self.place):
                claims = self._read()
                missing = [key for key in wanted if key not in self.known]
                if not missing:
                    return [self.known[design_key(choice)] for choice in choices]
                late = time.monotonic() > patient_until
                free = [key for key in missing
                        if key not in claims or self._abandoned(claims[key], late)][:width]
                mine = self._claim({key: wanted[key] for key in free})
            if mine:
                self._evaluate(evaluate, mine, wanted)
            elif not free:
                time.sleep(POLL_SECONDS)
            if mine or len(missing) > sum(key not in self.known for key in wanted):
                patient_until = time.monotonic() + self.patience_s

    def _read(self) -> dict[str, FrozenTrial]:
        """Take in the trials that ended since; the running one that counts, by key."""
        claims: dict[str, FrozenTrial] = {}
        for trial in self.storage.get_all_trials(self.study_id, deepcopy=False):
            if trial.number in self.settled:
                continue
            if trial.state.is_finished():
                self.settled.add(trial.number)
                if OUTCOME in trial.user_attrs and trial.state is not TrialState.FAIL:
                    where = f"{shown(self.place)}: trial {trial.number}"
                    key = trial.user_attrs.get(DESIGN)
                    if not isinstance(key, str):
                        raise UserError(f"{where} is damaged: it names no design")
                    self.known.setdefault(key, _outcome(trial, where))
            elif DESIGN in trial.user_attrs:
                claims.setdefault(trial.user_attrs[DESIGN], trial)
        return {key: trial for key, trial in claims.items() if key not in self.known}

    def _abandoned(self, claim: FrozenTrial, late: bool) -> bool:
        """Is its process gone, or silent for too long? Then the claim is ended."""
        if not late and _alive(str(claim.user_attrs.get(OWNER, ""))):
            return False
        self._end(claim._trial_id, TrialState.FAIL)
        return True

    def _claim(self, choices: Mapping[str, Choice]) -> dict[str, int]:
        """Claim designs; the trial ids of those that no other process claimed before."""
        added = {key: self.storage.create_new_trial(self.study_id, create_trial(
            state=TrialState.RUNNING, params=dict(choice),
            distributions={name: CategoricalDistribution(self.space.axis(name).values)
                           for name in choice},
            user_attrs={DESIGN: key, OWNER: self.owner})) for key, choice in choices.items()}
        if not added:
            return {}
        claims = self._read()
        for key, trial_id in list(added.items()):
            claim = claims.get(key)
            if claim is None or claim._trial_id != trial_id:
                self._end(added.pop(key), TrialState.FAIL)
        return added

    def _evaluate(self, evaluate: Evaluate, mine: dict[str, int],
                  wanted: Mapping[str, Choice]) -> None:
        waiting = dict(mine)
        try:
            outcomes = evaluate([wanted[key] for key in mine])
            for (key, trial_id), outcome in zip(mine.items(), outcomes, strict=True):
                with plainly(self.place):
                    self._settle(trial_id, outcome)
                del waiting[key]
                self.known[key] = outcome
        except BaseException:
            for trial_id in waiting.values():
                with suppress(Exception):  # the storage may be what failed; the first error counts
                    self._end(trial_id, TrialState.FAIL)
            raise

    def _settle(self, trial_id: int, outcome: Outcome) -> None:
        """Write the figures, and the state last: a trial is whole or it does not count."""
        failed = isinstance(outcome, Failure)
        try:
            for name, value in (*_readable(outcome), (OUTCOME, encode(outcome))):
                self.storage.set_trial_user_attr(trial_id, name, value)
        except UpdateFinishedTrialError:
            return  # taken over by a process that found this one silent
        self._end(trial_id, TrialState.PRUNED if failed else TrialState.COMPLETE,
                  None if isinstance(outcome, Failure) else
                  [objective.of(outcome) for objective in self.objectives])

    def _end(self, trial_id: int, state: TrialState, values: list[float] | None = None) -> None:
        with suppress(UpdateFinishedTrialError):  # another process ended it first
            self.storage.set_trial_state_values(trial_id, state, values)


def open_study(place: str, name: str, space: Space, objectives: Sequence[Objective],
               identity: Mapping[str, Any]) -> SharedStudy:
    """The study of that name in a storage, made if missing.

    `identity`: plain values that outcomes depend on, by field. Raises `UserError` that names the
    first field in which a study that exists differs.
    """
    storage = open_storage(place)
    with plainly(place):
        try:
            study_id = storage.create_new_study([StudyDirection.MINIMIZE] * len(objectives), name)
            storage.set_study_system_attr(study_id, "study:metric_names",
                                          [item.label for item in objectives])
        except DuplicatedStudyError:
            study_id = storage.get_study_id_from_name(name)
        known = storage.get_study_user_attrs(study_id).get(IDENTITY)
        if known is None:
            storage.set_study_user_attr(study_id, IDENTITY, json.loads(json.dumps(identity)))
            known = storage.get_study_user_attrs(study_id)[IDENTITY]
    _refuse_another(shown(place), name, known, json.loads(json.dumps(identity)))
    return SharedStudy(storage, place, study_id, space, tuple(objectives))


def _refuse_another(place: str, name: str, known: Any, mine: dict[str, Any]) -> None:
    if not isinstance(known, dict):
        raise UserError(f"{place}: study {name!r} was not made by `cosim explore`. Take another "
                        "--study.")
    for key, value in mine.items():
        if known.get(key) == value:
            continue
        before = known.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            part = next(item for item in (*value, *before) if value.get(item) != before.get(item))
            key, value, before = f"{key}.{part}", value.get(part), before.get(part)
        raise UserError(f"{place}: study {name!r} was made with another {key}: {before!r}, this "
                        f"command has {value!r}. Give the same, or another --study.")


def _readable(outcome: Outcome) -> Iterator[tuple[str, Any]]:
    """Figures for a person who looks at the study with optuna-dashboard."""
    if isinstance(outcome, Evaluation):
        yield "latency_ms", outcome.latency_ms
        yield "energy_uj_per_pixel", outcome.energy_uj_per_pixel
        yield "resources", {item.name: round(item.used, 1) for item in outcome.resources}
    else:
        yield "infeasible", outcome.reason


def _outcome(trial: FrozenTrial, where: str) -> Outcome:
    stored = trial.user_attrs[OUTCOME]
    if trial.state is TrialState.PRUNED:
        return decode(Failure, stored, where)
    return decode(Evaluation, stored, where)


def _alive(owner: str) -> bool:
    """May the process that made a claim still work? Only one of this machine can be asked."""
    host, _, number = owner.rpartition(" ")
    if host != socket.gethostname() or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
