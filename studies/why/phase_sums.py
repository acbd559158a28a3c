"""Says whether nearest x2 with a 3 x 3 convolution fits four 2 x 2 ones with int8 weights.

It builds no such convolution. Each output of the small input's four phases needs sums of 1, 2 or 4
of the 3 x 3 weights (the standard identity); this counts the sums that leave int8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.graph import Graph, Operator

INT8 = np.iinfo(np.int8)
#: For each phase of an axis: which of the three weights meet the first and the second input.
PHASES = (((0,), (1, 2)), ((0, 1), (2,)))


@dataclass(frozen=True)
class PhaseSums:
    """One layer: the largest sum (absolute), and the shares of sums and of output channels that
    leave int8."""

    layer: str
    largest: int
    sums_beyond: float
    channels_beyond: float


def phase_weights(weights: np.ndarray) -> np.ndarray:
    """(phases 4, out, in, 2, 2) int64 of (out, in, 3, 3): phase 2 * (row & 1) + (column & 1)."""
    wide = weights.astype(np.int64)
    return np.stack([np.stack([np.stack([
        wide[:, :, rows, :][..., columns].sum((2, 3)) for columns in across], -1)
        for rows in down], -2) for down in PHASES for across in PHASES])


def phase_sums(graph: Graph) -> tuple[PhaseSums, ...]:
    """Every 3 x 3 convolution that reads a nearest x2 upsample."""
    doubled = {layer.output for layer in graph.layers if layer.operator is Operator.UPSAMPLE}
    found = []
    for layer in graph.layers:
        if (layer.operator is not Operator.CONVOLUTION or layer.inputs[0] not in doubled
                or (layer.window.rows, layer.window.columns) != (3, 3)):
            continue
        sums = phase_weights(graph.constant(layer, "weights"))
        beyond = (sums < INT8.min) | (sums > INT8.max)
        found.append(PhaseSums(layer.name, int(np.abs(sums).max()), float(beyond.mean()),
                               float(beyond.any((0, 2, 3, 4)).mean())))
    return tuple(found)
