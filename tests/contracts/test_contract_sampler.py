"""One contract for every sampler, and for every sampler on every storage.

Repeatable, no design twice, legal designs only, constraints kept, start designs first, bounded.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from studies.plain.errors import UserError
from studies.search.outcomes import Objective, Sampler, Settings, design_key
from studies.search.search import search
from studies.search.space import Axis, Combine, Condition, Constraint, Space, designs
from tests.support.toy_search import evaluate, open_toy

#: A condition and a constraint: `c` exists with an even `a`; a * b is bounded.
SPACE = Space((Axis("a", (1, 2, 3, 4)), Axis("b", (1, 2, 4, 8)),
               Axis("c", (1, 2, 3, 4), Condition("a", (2, 4)))),
              constraints=(Constraint(Combine.PRODUCT, ("a", "b"), at_most=24),))
SETTINGS = Settings(designs=14, seed=3, batch=6, population=6, rounds=1, attempts=60)
START = ({"a": 4, "b": 4, "c": 2}, {"a": 1, "b": 8})


def outcomes(choices):
    """The toy's outcomes; a design without `c` counts as c = 1."""
    return evaluate([{"c": 1, **choice} for choice in choices])


@pytest.fixture(params=[pytest.param(sampler, marks=[pytest.mark.long] * (sampler is Sampler.GP))
                        for sampler in Sampler], ids=str)
def settings(request) -> Settings:
    if request.param is Sampler.GP:
        pytest.importorskip("torch")
        return replace(SETTINGS, sampler=Sampler.GP, designs=8)
    return replace(SETTINGS, sampler=request.param)


def test_a_search_keeps_its_contract(settings):
    asked = []

    def noting(choices):
        asked.extend(choices)
        return outcomes(choices)

    found = search(noting, SPACE, settings, START)
    again = search(outcomes, SPACE, settings, START)
    assert found == again
    keys = [design_key(record.choice) for record in found.records]
    assert len(set(keys)) == len(keys)
    assert all(SPACE.canonical(record.choice) == record.choice for record in found.records)
    assert [SPACE.broken(choice) for choice in asked] == [None] * len(asked)
    for record in found.records:
        assert not SPACE.broken(record.choice) or "must be at most 24" in record.failure.reason
    if settings.sampler is Sampler.EXHAUSTIVE:
        assert sorted(keys) == sorted(design_key(choice) for choice in designs(SPACE))
    else:
        assert [record.choice for record in found.records[:2]] == list(START)
        assert found.evaluated >= settings.designs
    assert found.front and all(found.records[index].evaluation for index in found.front)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_every_storage_gives_the_same_search(settings, kind, tmp_path):
    place = {"journal": f"{tmp_path}/a.log", "sqlite": f"sqlite:///{tmp_path}/a.db"}[kind]

    def part(choices):
        """Stops in the middle, as a process that is killed."""
        for number, outcome in enumerate(outcomes(choices)):
            if number == 2 and len(choices) > 2:
                raise KeyboardInterrupt
            yield outcome

    def opened():
        study = open_toy(place)
        study.space = SPACE
        return study

    with pytest.raises(KeyboardInterrupt):
        search(opened().remembering(part, 4), SPACE, settings, START)
    assert search(opened().remembering(outcomes, 4), SPACE, settings, START) \
        == search(outcomes, SPACE, settings, START)


def test_exhaustive_refuses_a_space_that_is_too_large():
    large = Space(tuple(Axis(name, tuple(range(20))) for name in "abcd"))
    with pytest.raises(UserError, match=r"160,000 designs, at most 100,000"):
        search(outcomes, large, Settings(sampler=Sampler.EXHAUSTIVE))


def test_the_exhaustive_search_knows_the_true_best():
    settings = replace(SETTINGS, sampler=Sampler.EXHAUSTIVE, objectives=(Objective.LATENCY,))
    found = search(outcomes, SPACE, settings)
    legal = [choice for choice in designs(SPACE) if SPACE.broken(choice) is None]
    best = min(item.latency_ms for item in outcomes(legal) if hasattr(item, "latency_ms"))
    assert [found.records[index].evaluation.latency_ms for index in found.front] == [best]
