"""The search on a small space whose every design is known."""

from __future__ import annotations

import itertools
import signal

import numpy as np
import pytest

from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.stopping import Stopped
from studies.search.exploration import finalists
from studies.search.front import pareto_mask
from studies.search.outcomes import Failure, Objective, Sampler, Settings
from studies.search.search import parse_names, search
from tests.support.toy_search import SPACE, evaluate, outcome


def key(found):
    return [(record.choice, record.failure is None) for record in found.records]


@pytest.mark.parametrize("sampler", [Sampler.NSGA2, Sampler.NSGA3, Sampler.RANDOM, Sampler.TPE])
def test_the_same_seed_gives_the_same_records_and_front(sampler):
    settings = Settings(designs=60, seed=5, sampler=sampler, population=16, batch=8)
    first, second = (search(evaluate, SPACE, settings) for _ in range(2))
    assert key(first) == key(second)
    assert first.front == second.front


def test_another_seed_gives_other_designs():
    first, second = (search(evaluate, SPACE, Settings(designs=40, seed=seed)) for seed in (1, 2))
    assert key(first) != key(second)


def test_no_design_is_evaluated_twice_and_the_goal_is_reached():
    calls = []

    def counting(choices):
        calls.extend(tuple(sorted(choice.items())) for choice in choices)
        return evaluate(choices)

    found = search(counting, SPACE, Settings(designs=80, seed=0, batch=16))
    assert len(calls) == len(set(calls)) == len(found.records)
    assert found.evaluated == found.judged == 80
    assert found.infeasible == sum(record.failure is not None for record in found.records) > 0


def test_the_front_is_the_front_of_what_was_evaluated():
    found = search(evaluate, SPACE, Settings(designs=60, seed=3))
    points = found.objectives()
    fine = np.flatnonzero(~np.isnan(points).any(axis=1))
    assert set(found.front) == set(fine[pareto_mask(points[fine])])


def test_designs_to_start_from_are_tried_first():
    start = [{"a": 5, "b": 6, "c": 1}, {"a": 1, "b": 1, "c": 4}]
    found = search(evaluate, SPACE, Settings(designs=20, seed=0), start=start)
    assert [record.choice for record in found.records[:2]] == start


def test_a_search_that_cannot_reach_its_goal_ends():
    found = search(evaluate, SPACE, Settings(designs=10_000, seed=0, attempts=200))
    assert 200 <= found.asked < 400 and found.evaluated < 200


def test_the_descent_ends_where_no_neighbour_is_better():
    found = search(evaluate, SPACE, Settings(designs=SPACE.size(), seed=0, rounds=50, stretch=5,
                                             attempts=8, batch=8,
                                             objectives=(Objective.LATENCY,)))
    best = min((record for record in found.records if record.evaluation),
               key=lambda record: record.evaluation.latency_ms)
    for _, choice in SPACE.neighbours(best.choice):
        other = outcome(choice)
        assert isinstance(other, Failure) or other.latency_ms >= best.evaluation.latency_ms


@pytest.mark.parametrize("sampler", [Sampler.NSGA2, Sampler.RANDOM])
def test_a_longer_search_begins_as_a_shorter_one(sampler):
    long, *others = (search(evaluate, SPACE, Settings(designs=count, seed=4, stretch=20, batch=8,
                                                      sampler=sampler))
                     for count in (90, 60, 30, 29, 1))
    for short in others:
        assert key(short) == key(long)[: len(short.records)]
        numbers = [{record.number for record in finalists(found)} for found in (short, long)]
        assert numbers[0] <= numbers[1]


def test_progress_counts_the_designs_that_were_asked_for_and_no_more():
    counts = []
    found = search(evaluate, SPACE, Settings(designs=50, seed=0, stretch=10),
                   progress=lambda _, done: counts.append(done))
    assert len(counts) == len(found.records)
    assert counts == sorted(counts) and counts[-1] == 50 == found.judged


def test_bounds_that_dominate_do_not_take_a_search_beyond_its_goal():
    bounds = search(evaluate, SPACE, Settings(designs=40, seed=0, batch=16), bound=outcome_or_none)
    assert bounds.judged == 40 and bounds.pruned > 0


def outcome_or_none(choice):
    found = outcome(choice)
    return None if isinstance(found, Failure) else found


def test_a_signal_ends_a_search_with_what_it_found():
    def stop_at_ten(record, _):
        if record.number == 9:
            raise Stopped(signal.SIGTERM)

    found = search(evaluate, SPACE, Settings(designs=50, seed=0), progress=stop_at_ten)
    assert found.signal == signal.SIGTERM and len(found.records) == 10


def test_most_of_the_front_of_a_known_space_is_found():
    every = [dict(zip("abc", values, strict=True)) for values in
             itertools.product(*(axis.values for axis in SPACE.axes))]
    known = [value for value in evaluate(every) if isinstance(value, Evaluation)]
    best = min(value.latency_cycles for value in known)
    found = search(evaluate, SPACE, Settings(designs=100, seed=0, population=24))
    reached = min(record.evaluation.latency_cycles for record in found.records
                  if record.evaluation)
    assert reached <= 1.05 * best


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'latency'"):
        parse_names("objective", ["latenci"], Objective)
