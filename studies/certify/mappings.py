"""Which sizes of the buffers have mappings that differ in tiles alone.

It bounds nothing; `tables` does. A mapping is chosen layer by layer. What a layer leaves to those
behind it depends on who runs it, not on its tile: on the array, another engine, or the processor
where no tile fits. So sizes at which the same engines run the same layers share all but tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from arch_models.overlay import Infeasible
from cosim.engines import SLICES
from cosim.mapping.choose import Chooser, budget_of
from cosim.mapping.tiles import LayerMapping, Mapping
from studies.certify.layers import Layers, must_map
from studies.certify.sizes import resized


class Alike(NamedTuple):
    """The sizes (banks and words) at which a mapping holds but for its tiles."""

    layers: Layers
    mapping: Mapping
    there: np.ndarray


def alike(layers: Layers, mapping: Mapping, there: np.ndarray, first: int = 0) -> Iterator[Alike]:
    """Parts of the sizes that are `there`, disjoint; those that are in none cannot be built.

    `mapping`: of one size, with the layers of which `layers` was made. Before its layer of number
    `first` all sizes agree with it.
    """
    for item in mapping.layers[first:]:
        if must_map(layers.graph.layer(item.name)):
            continue
        chosen = layers.chosen(item)
        mine = layers.place_of(item)
        others = np.unique(chosen[there & (chosen != mine)]).tolist()
        for other in others:
            yield from _elsewhere(layers, item, there & (chosen == other), other)
        there = there & (chosen == mine)
        if not there.any():
            return
    yield Alike(layers, mapping, there)


def _elsewhere(layers: Layers, item: LayerMapping, there: np.ndarray, place: int
               ) -> Iterator[Alike]:
    """Sizes at which somebody else runs a layer: all of them the same, of this place."""
    for size in sorted(np.argwhere(there).tolist(), key=sum, reverse=True):
        found = _mapped(layers, layers.sizes.fields(tuple(size)))
        if found is not None:
            other, mapping = found
            number = next(number for number, mine in enumerate(mapping.layers)
                          if mine.name == item.name)
            assert other.place_of(mapping.layers[number]) == place
            yield from alike(other, mapping, there, number + 1)
            return
        there[tuple(size)] = False


def _mapped(layers: Layers, size: dict[str, int]) -> tuple[Layers, Mapping] | None:
    """The mapping at a size, and its layers for all of them."""
    like, board = layers.chooser, layers.board
    chooser = Chooser(like.graph, resized(layers.overlay, size), board, like.phases, SLICES,
                      like.known)
    mapping = chooser.run()
    if isinstance(mapping, Infeasible):
        return None
    chooser.overlay, chooser.budget = layers.overlay, budget_of(layers.overlay, board)
    return layers.otherwise(chooser), mapping
