"""Searches that start from earlier ones, and what two commands on one study must agree in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay, overlay_toml
from studies.plain.errors import UserError
from studies.report.documents import Asked, search_document
from studies.search.exploration import Means, Store, explore
from studies.search.outcomes import Settings
from studies.search.space import default_space
from studies.search.space_overlays import choice_of, starting_choices
from studies.search.warm_start import earlier_designs
from workloads.library import load

BOARD, BASE, GRAPH = load_board("pynq-z1"), default_overlay(), load("agc-w16")
SPACE = default_space(BOARD, GRAPH)
SETTINGS = Settings(designs=16, batch=8, rounds=0)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The explore.json of a search, and that search."""
    found = explore(GRAPH, BOARD, BASE, SETTINGS, means=Means(depth=1))
    path = tmp_path_factory.mktemp("earlier") / "explore.json"
    asked = Asked(GRAPH.name, GRAPH.name, BOARD.name, BOARD, BASE)
    path.write_text(json.dumps(search_document(found, asked)))
    return path, found.found


def test_the_front_of_an_earlier_search_is_tried_behind_the_first_designs(earlier):
    path, first = earlier
    front = [first.records[index].choice for index in first.front]
    assert earlier_designs([path, path], SPACE) == front
    begin = starting_choices(SPACE, BASE, BOARD)
    want = [*begin, *(choice for choice in front if choice not in begin)]
    again = explore(GRAPH, BOARD, BASE, replace(SETTINGS, seed=5, local=0.0, designs=len(want)),
                    means=Means(depth=1, prune=False), earlier=front).found
    tried = [record.choice for record in again.records]
    assert tried[: len(want)] == want
    best = min(record.evaluation.latency_ms for record in first.records if record.evaluation)
    assert min(record.evaluation.latency_ms for record in again.records
               if record.evaluation) <= best


def test_a_design_file_becomes_the_nearest_design_of_the_space(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(overlay_toml(replace(BASE, tm=72)))
    assert earlier_designs([path], SPACE) == [{**choice_of(BASE, SPACE), "tm": 64}]


@pytest.mark.parametrize("text", ["{}", "[1]", '{"designs": [], "front": [3]}',
                                  '{"designs": [{"choice": [1]}], "front": [0]}', "no json"])
def test_what_is_no_search_is_refused(tmp_path, text):
    path = tmp_path / "explore.json"
    path.write_text(text)
    with pytest.raises(UserError, match="explore.json"):
        earlier_designs([path], SPACE)


def test_a_stored_search_with_bounds_goes_on_and_refuses_other_settings(tmp_path):
    store = Store(str(tmp_path / "study.log"), "w16")

    def run(prune=True, earlier=()):
        return explore(GRAPH, BOARD, BASE, SETTINGS, means=Means(store=store, prune=prune, depth=1),
                       earlier=earlier)

    first, second = run(), run()
    assert first.found == second.found and first.chosen == second.chosen
    with pytest.raises(UserError, match="another prune"):
        run(prune=False)
    with pytest.raises(UserError, match="another start"):
        run(earlier=[{**choice_of(BASE, SPACE), "tm": 24}])
