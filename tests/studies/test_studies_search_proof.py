"""The enumeration of a space, and what searches are measured by."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
from rich.console import Console

from arch_models.board import load_board
from arch_models.overlay import Infeasible, load_overlay
from studies.evaluation.evaluate import evaluate
from studies.plain.errors import UserError
from studies.proof import proof as search_proof
from studies.proof.enumeration import Codes, Enumerated, designs, enumerate_space, load_enumerated
from studies.proof.page import page
from studies.proof.proof import (
    Direct,
    Replay,
    curve,
    points_of,
    run_once,
    run_wide,
    summary,
    truth_of,
)
from studies.proof.published import open_benchmark
from studies.search.front import pareto_mask
from studies.search.space_file import load_space
from studies.search.space_overlays import overlay_of
from tests.support.narrow_space import NARROW
from workloads.library import load

BOARD, BASE = load_board("pynq-z1"), load_overlay("default")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "narrow.toml"
    text = NARROW
    present = [line.split(" =")[0] for line in text.splitlines()]
    for axis in search_proof.load_space(search_proof.SPACE, BOARD).axes:
        if axis.name not in present and axis.when is None and axis.name != "dsp_packing":
            text += f"{axis.name} = [{str(axis.values[0]).lower()}]\n"
    path.write_text(text)
    return load_space(path, BOARD)


@pytest.fixture(scope="module")
def known(space):
    return enumerate_space(load("agc-w16"), BOARD, BASE, space)


def test_an_enumeration_holds_every_design_once(space, known):
    every = list(designs(space))
    codes = Codes(space)
    assert len(known.codes) == space.size() == len(every)
    assert known.codes.tolist() == sorted(codes.code(choice) for choice in every)
    assert all(space.canonical(choice) == choice for choice in every)


def test_an_enumeration_gives_what_each_evaluation_gives(space, known):
    graph, codes = load("agc-w16"), Codes(space)
    assert known.feasible.any() and not known.feasible.all()
    for choice in random.Random(0).sample(list(designs(space)), 24):
        latency, energy = known.figures(codes.code(choice))
        single = evaluate(graph, overlay_of(choice, BASE, BOARD), BOARD, "flat", frames=1)
        if isinstance(single, Infeasible):
            assert np.isnan(latency) and np.isnan(energy)
        else:
            assert (latency, energy) == (single.latency_ms, single.energy_uj_per_pixel)


def test_a_table_is_read_as_it_was_written(known, tmp_path):
    known.save(tmp_path / "table.npz")
    again = load_enumerated(tmp_path / "table.npz")
    assert np.array_equal(again.points, known.points)
    assert (again.seconds, again.processor_seconds) == (known.seconds, known.processor_seconds)
    (tmp_path / "wrong.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"wrong\.npz: no table"):
        load_enumerated(tmp_path / "wrong.npz")
    with pytest.raises(KeyError):
        known.figures(-1)


def test_a_search_of_a_whole_space_ends_at_the_truth(space, known):
    truth = truth_of(space, known.points)
    replay = Replay(load("agc-w16"), BOARD, BASE, known, Codes(space))
    name = search_proof.DEFAULT
    curves = {name: np.array([run_once(replay, truth, name, 100, seed) for seed in (0, 1)])}
    regret, ratio = curves[name].transpose(2, 0, 1)
    assert (np.diff(regret, axis=1) <= 0).all() and (np.diff(ratio, axis=1) >= 0).all()
    assert (regret >= 0).all() and (ratio <= 1 + 1e-12).all()
    assert regret[:, -1].max() == 0 and ratio[:, -1].min() > 0.999999
    found = summary(truth, known, curves, 100)
    assert found["designs_enumerated"] == space.size() and found["median_regret"] == 0
    assert f"{space.size():,} designs" in page(found)


def test_a_space_known_from_elsewhere_is_searched_unless_its_clocks_are_others(
        space, known, tmp_path, monkeypatch):
    axes = "\n".join(f"{axis.name} = {json.dumps(list(axis.values))}" for axis in space.axes)
    (tmp_path / "small.toml").write_text(f"[axes]\n{axes}\n")
    monkeypatch.setattr(search_proof, "FOLDER", tmp_path)
    monkeypatch.setattr(search_proof, "EVALUATIONS", 40)
    truth, best = truth_of(space, known.points), int(np.nanargmin(known.latency_ms))
    run = {"space": "small.toml", "space_designs": space.size(), "feasible": 1, "recurrences": 1,
           "seconds": 1.0, "device": "a GPU", "best_latency_ms": truth.best_latency_ms,
           "best_latency_choice": Codes(space).choice(int(known.codes[best])),
           "front": [{"latency_ms": latency, "energy_uj_per_pixel": energy}
                     for latency, energy in truth.front.tolist()]}
    answer = Direct(load("agc-w16"), BOARD, BASE)
    found = run_wide(answer, run, 1, 1, Console(quiet=True))
    assert 0 <= found["median_regret"] < 1 and found["median_hypervolume_ratio"] <= 1 + 1e-12
    other = {**run, "best_latency_ms": 1.0}
    assert run_wide(answer, other, 1, 1, Console(quiet=True))["median_regret"] is None


def test_a_curve_of_nothing_feasible_is_the_worst(space, known):
    class Nothing:
        def objectives(self):
            return np.full((5, 2), np.nan)

    rows = curve(Nothing(), truth_of(space, known.points), [5])
    assert rows.tolist() == [[np.inf, 0.0]]
    assert points_of(200) == [*range(10, 101, 10), 150, 200]


def test_two_objectives_have_the_front_of_the_pairwise_rule():
    points = np.random.default_rng(0).integers(0, 12, (200, 2)).astype(float)
    kept = points[pareto_mask(points)]
    for row in points:
        beaten = any((other <= row).all() and (other < row).any() for other in points)
        assert beaten != any((row == one).all() for one in kept)
    assert len({tuple(row) for row in kept}) == len(kept)
    assert pareto_mask(np.empty((0, 2))).shape == (0,)


def test_the_published_table_is_that_of_its_space_and_scores_searches(known, tmp_path):
    game = open_benchmark()
    assert game.space.size() == len(game.table.codes) == 1_105_920
    code = int(game.table.codes[np.nanargmin(game.table.latency_ms)])
    best = Codes(game.space).choice(code)
    figures = game.figures(best)
    assert figures is not None and figures.latency_ms == game.truth.best_latency_ms
    assert game.score([best]).regret == 0 and 0 < game.score([best]).hypervolume <= 1 + 1e-12
    assert game.score([]) == (np.inf, 0)
    wide = best | {"tm": 48, "tn": 16, "columns": 2, "dsp_packing": False}
    assert game.figures(wide) is None and game.score([wide]) == game.score([])
    with pytest.raises(UserError, match="must be one of"):
        game.figures(best | {"tm": 7})
    known.save(tmp_path / "other.npz")
    with pytest.raises(UserError, match="the space 1105920"):
        open_benchmark(tmp_path / "other.npz")


def test_coupled_moves_change_two_axes_that_share_a_resource(space):
    full = load_space(search_proof.SPACE, BOARD)
    choice = next(designs(full))
    found = full.coupled(choice)
    changed = [{name for name in choice if choice[name] != other[name]} for other in found]
    assert all(len(names) == 2 and any(names < set(group) for group in full.couplings)
               for names in changed)
    ways = 0
    for group in full.couplings:
        sizes = [len(full.axis(name).values) - 1 for name in group]
        ways += sum(one * other for one, other in itertools.combinations(sizes, 2))
    assert len(found) == ways


def test_a_table_of_another_space_is_refused(tmp_path):
    table = Enumerated(np.arange(3), np.ones(3), np.ones(3), 1.0, 1.0)
    table.save(tmp_path / "table.npz")
    with pytest.raises(UserError, match="holds 3 designs"):
        search_proof.prove(True, tmp_path / "table.npz", False, 1, Console(quiet=True))
