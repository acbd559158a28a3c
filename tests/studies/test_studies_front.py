"""Fronts and hypervolumes against closed forms and a second way of counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from studies.search.front import hypervolume, pareto_mask


def test_one_point_covers_its_box():
    assert hypervolume(np.array([[1.0, 2.0, 3.0]]), np.array([2.0, 4.0, 6.0])) == 1 * 2 * 3


def test_staircase_has_the_closed_form_area():
    count = 7
    steps = np.array([[i, count - 1 - i] for i in range(count)], float)
    area = hypervolume(steps, np.array([count, count], float))
    assert area == count * (count + 1) / 2


def test_points_at_or_beyond_the_reference_add_nothing():
    assert hypervolume(np.array([[1.0, 5.0], [3.0, 1.0]]), np.array([3.0, 5.0])) == 0.0


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_equals_counting_unit_cells(objectives):
    rng = np.random.default_rng(objectives)
    points = rng.integers(0, 6, (9, objectives))
    covered = sum(
        any(all(p[k] <= cell[k] for k in range(objectives)) for p in points)
        for cell in itertools.product(range(6), repeat=objectives)
    )
    assert hypervolume(points, np.full(objectives, 6)) == covered


def test_the_front_is_what_pairwise_comparison_says():
    points = np.random.default_rng(3).integers(0, 8, (60, 3))
    mask = pareto_mask(points)
    for index, row in enumerate(points):
        others = np.delete(points, index, 0)
        dominated = any((o <= row).all() and (o < row).any() for o in others)
        twin_before = any((o == row).all() for o in points[:index])
        assert mask[index] == (not dominated and not twin_before)


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="must be"):
        hypervolume(np.zeros((2, 3)), np.zeros(2))
