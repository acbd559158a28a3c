"""Blocks of constants that engines share: entries of one channel each.

It knows no layer and gives no address.
"""

from __future__ import annotations

import numpy as np

from cosim.mapping.lifetimes import PlacementError
from workloads.graph import Graph, Layer

ENTRY_BYTES = 8


def pack_entries(offset: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> bytes:
    """8-byte entries: int32 offset, int16 multiplier, uint8 shift, uint8 zero.

    `PlacementError` for a multiplier that does not fit 16 bits.
    """
    if multiplier.size and (multiplier.max() > 32767 or multiplier.min() < -32768):
        raise PlacementError(f"multiplier is {multiplier.max()}, must fit signed 16 bits")
    entries = np.zeros(len(offset), [("offset", "<i4"), ("multiplier", "<i2"), ("shift", "u1"),
                                     ("zero", "u1")])
    entries["offset"], entries["multiplier"], entries["shift"] = offset, multiplier, shift
    return entries.tobytes()


def layer_entries(graph: Graph, layer: Layer, first: str, count: int,
                  places: np.ndarray) -> bytes:
    """`count` entries, those of the layer's channels at `places`, the others zero.

    `first`: the role of the offset. A layer without one, or with one multiplier for all channels
    (a matmul, a change of scale), is taken as such.
    """
    columns = []
    for role in (first, "multiplier", "shift"):
        padded = np.zeros(count, np.int64)
        padded[places] = graph.constant(layer, role) if role in layer.constants else 0
        columns.append(padded)
    return pack_entries(*columns)
