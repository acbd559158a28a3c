"""Pareto fronts and the hypervolume they cover, for objectives that are all minimized.

It does not know what the objectives mean, nor does it search.
"""

from __future__ import annotations

import numpy as np


def pareto_mask(points: np.ndarray) -> np.ndarray:
    """Which rows of (n, objectives) no other row dominates; of equal rows the first one is kept.

    A row dominates another if it is nowhere larger and somewhere smaller.
    """
    points = np.asarray(points, float)
    keep = np.zeros(len(points), bool)
    # In lexicographic order a row can only be dominated by one that came before it.
    order = np.lexsort(points.T[::-1])
    if points.ndim == 2 and points.shape[1] == 2 and len(points):
        # Of two objectives the second must be smaller than in every row before.
        second = points[order, 1]
        before = np.concatenate(([np.inf], np.minimum.accumulate(second)[:-1]))
        keep[order[(second < before) | (np.arange(len(order)) == 0)]] = True
        return keep
    front = np.empty((0, points.shape[1] if points.ndim == 2 else 0))
    for index in order:
        row = points[index]
        if len(front) and np.any(np.all(front <= row, axis=1)):
            continue
        keep[index] = True
        front = np.vstack([front, row])
    return keep


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume dominated by the points and bounded by `reference`, exactly, in any dimension.

    Rows not strictly below the reference in every objective add nothing. Sweeps the last
    objective and recurses (while et al. 2006 call this "hypervolume by slicing objectives").
    """
    points = np.asarray(points, float)
    reference = np.asarray(reference, float)
    if points.ndim != 2 or points.shape[1] != len(reference):
        raise ValueError(f"points: shape {points.shape}, must be (n, {len(reference)})")
    inside = points[np.all(points < reference, axis=1)]
    if not len(inside):
        return 0.0
    return _slice(inside[pareto_mask(inside)], reference)


def _slice(points: np.ndarray, reference: np.ndarray) -> float:
    if len(reference) == 1:
        return float(reference[0] - points[:, 0].min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    depths = np.append(points[:, -1], reference[-1])
    volume = 0.0
    for count in range(1, len(points) + 1):
        depth = depths[count] - depths[count - 1]
        if depth > 0:
            part = points[:count, :-1]
            volume += depth * _slice(part[pareto_mask(part)], reference[:-1])
    return volume
