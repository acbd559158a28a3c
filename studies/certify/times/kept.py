"""What is known of the layers of designs of one clock, at each size, that grows as it is asked.

It knows no bar and no sites: boxes whose layers are alike share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cosim.analysis.hosts import HostStep
from cosim.lowering.host_times import host_cycles
from cosim.mapping.tiles import LayerMapping
from studies.certify.layers import Layers, Tiled
from studies.certify.times.ordered import all_in_turn, turn


class Kept:
    """Layers in fabric, of each how often a frame has it, and the processor's steps. `total`: of
    all layers and steps, one behind the other. `in_turn`: do weights come layer by layer?"""

    def __init__(self, layers: Layers, fabric: Sequence[tuple[LayerMapping, int]],
                 steps: Sequence[HostStep], in_turn: bool) -> None:
        self.layers, self.fabric, self.steps, self.in_turn = layers, fabric, steps, in_turn
        self.host = sum(host_cycles(step.time_ns, layers.overlay.clock_hz) * step.alone
                        for step in steps)
        self.total: Any = np.full(layers.sizes.shape, self.host)
        self.tiled: dict[int, Tiled] = {}
        self._least: dict[int, Any] = {}
        self._alone: dict[int, Any] = {}
        self._turn = np.zeros(layers.sizes.shape, np.int64)
        self._turned = np.zeros(layers.sizes.shape, bool)

    @property
    def cycles(self) -> np.ndarray:
        """Of a frame, at least."""
        return np.maximum(self.total, self._turn)

    def lift(self, number: int, cycles: Any) -> None:
        """A layer takes at least so many."""
        before = self._least.get(number, 0)
        self._least[number] = np.maximum(before, cycles)
        self.total = self.total + self.fabric[number][1] * (self._least[number] - before)
        self._turned[:] = False

    def tile(self, number: int, asked: np.ndarray) -> np.ndarray:
        """Take the tiles of a layer at some sizes; all but those of them that have none."""
        found = self.layers.least(self.fabric[number][0], asked)
        if self.tiled.get(number) is not found:
            self.tiled[number] = found
            self.lift(number, np.maximum(0, found.cycles))
        return (found.kinds >= 0) | ~asked

    def alone(self, number: int, there: np.ndarray) -> None:
        """A layer takes at some sizes what it takes alone."""
        known = self._alone.setdefault(number, np.zeros(there.shape, bool))
        asked = there & ~known
        if asked.any():
            self.lift(number, self.layers.alone(self.fabric[number][0], self.tiled[number], asked))
            known |= asked

    def take_turns(self, asked: np.ndarray) -> None:
        """Weights come one behind the other, at some sizes."""
        places = (asked & ~self._turned).nonzero()
        if self.in_turn and len(places[0]):
            self._turn[places] = all_in_turn(self.layers, [
                (times, *turn(self.layers, item, self._least[number],
                              self._tiled_at(number, places), places))
                for number, (item, times) in enumerate(self.fabric)], self.steps, places)
        self._turned |= asked

    def _tiled_at(self, number: int, places: tuple[np.ndarray, ...]) -> Tiled | None:
        """The tiles of a layer if they are known at all of some sizes: a box that was looked at
        before may have asked at others."""
        found = self.tiled.get(number)
        return None if found is None or (found.kinds[places] < 0).any() else found
