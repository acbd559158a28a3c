"""The tile that each size of the buffers has of a layer on an engine, worked out where asked.

It times nothing and says nothing of who runs a layer; `layers` does.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from arch_models.board import Board
from arch_models.overlay import Engine, Overlay
from cosim.engines import SLICES
from cosim.engines.convolution_search import ConvolutionShape, Rooms, search_rooms
from cosim.mapping.choose import Chooser, budget_of
from cosim.mapping.tiles import ConvolutionTile, LayerMapping
from studies.certify.sizes import BANKS, Sizes, resized


def sized(like: Chooser, board: Board, overlay: Overlay) -> Chooser:
    """A chooser for a design with other sizes, that knows the layouts which one has found."""
    chooser = copy(like)
    chooser.overlay, chooser.budget = overlay, budget_of(overlay, board)
    chooser.timings, chooser.shapes, chooser.absorbed, chooser.turned = {}, {}, set(), {}
    chooser.layouts = replace(like.layouts, channels=dict(like.layouts.channels),
                              counts=dict(like.layouts.counts))
    return chooser


class Tiles:
    """The tiles of a layer on one engine at the sizes that were asked for so far.

    `kinds`: the number of each size's own among `tiles` (banks and words; -1 where it has none);
    `costs`: what the mapping takes it to cost, infinite where there is none; `asked`: by banks and
    words of INPUT and OUTPUT.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.kinds, self.costs = np.full(shape, -1, np.int16), np.full(shape, np.inf)
        self.tiles: dict[object, int] = {}
        self.asked = np.zeros((shape[0], shape[1], shape[3]), bool)


class Tilings:
    """Finds tiles with a chooser, which knows the layouts, for sizes of the buffers."""

    def __init__(self, chooser: Chooser, board: Board, sizes: Sizes) -> None:
        self.chooser, self.board, self.sizes = chooser, board, sizes
        self._choosers: dict[tuple[int, ...], Chooser] = {}

    def fill(self, tiles: Tiles, item: LayerMapping, engine: Engine, there: np.ndarray | None
             ) -> None:
        """Work out those at some sizes, None: at all, that are not known yet."""
        missing = ~tiles.asked if there is None else there.any(axis=(2, 4)) & ~tiles.asked
        if not missing.any():
            return
        if engine is Engine.CONVOLUTION:
            tiles.asked[:] = True
            if item.name in self.chooser.shapes:  # else it was refused before its tile was searched
                self._search(tiles, self.chooser.shapes[item.name])
            return
        tiles.asked |= missing
        layer = self.chooser.graph.layer(item.name)
        for bank, place_in, place_out in np.argwhere(missing).tolist():
            mine = SLICES[engine].tile(self._sized(bank, place_in, place_out), layer)
            if isinstance(mine, LayerMapping) and mine.engine is engine:
                place = (bank, place_in, slice(None), place_out, slice(None))
                tiles.kinds[place] = tiles.tiles.setdefault(mine.tile, len(tiles.tiles))
                tiles.costs[place] = mine.cost_cycles

    def _search(self, tiles: Tiles, shape: tuple) -> None:
        """Of a convolution, at all sizes."""
        assert isinstance(shape, ConvolutionShape)
        words = [np.array(values, np.int64) for values in self.sizes.words]
        best = search_rooms(shape, self.chooser.budget,
                            Rooms(words[0], words[1], words[2], words[3],
                                  np.array(self.sizes.banks, np.int64)))
        places = best.cost >= 0
        if places.any():
            found = best.tile[places]
            _, first, inverse = np.unique(_numbers(found), return_index=True, return_inverse=True)
            tiles.kinds[places], tiles.costs[places] = inverse.reshape(-1), best.cost[places]
            tiles.tiles.update((ConvolutionTile(
                row[0], row[1], row[2], row[3], bool(row[4]), bool(row[5])), number)
                for number, row in enumerate(found[first].tolist()))

    def _sized(self, bank: int, place_in: int, place_out: int) -> Chooser:
        """A chooser with these sizes, for an engine that knows no words of WEIGHT and
        accumulators."""
        key = (bank, place_in, place_out)
        if key not in self._choosers:
            overlay = resized(self.chooser.overlay, {
                "input_words": self.sizes.words[0][place_in],
                "output_words": self.sizes.words[2][place_out],
                **dict(zip(BANKS, self.sizes.banks[bank], strict=True))})
            self._choosers[key] = sized(self.chooser, self.board, overlay)
        return self._choosers[key]


def _numbers(rows: np.ndarray) -> np.ndarray:
    """A number for each row of small whole numbers; equal rows have equal numbers."""
    found = np.zeros(len(rows), np.int64)
    for column in rows.T.astype(np.int64):
        found = found * (int(column.max()) + 1) + column
    return found
