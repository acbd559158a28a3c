"""The least latency of every size of the buffers whatever the tiles, for boxes in which masters,
ports and the fetch are open as well: one walk over the layers in place of a table for each.

It chooses no tile. All masters are as wide as the widest of the box, all parts as small as the
smallest: a program whose transfers take longer ends no sooner, and these bounds hold for every
program of a size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from arch_models.overlay import Engine, Infeasible, Overlay, Rate
from arch_models.units import ROUNDING
from cosim.lowering.host_times import host_cycles
from cosim.mapping.tiles import LayerMapping
from studies.certify.boxes import Box, quickest
from studies.certify.floors import MOVERS
from studies.certify.layers import TIMED, Layers, engines_of, must_map
from studies.certify.parts import PORTS, ROLES
from studies.certify.sizes import Sizes
from studies.certify.tables import Tables
from studies.certify.untiled import Untiled, in_turn
from studies.search.space import Choice
from studies.search.space_overlays import width_axis


class Rough:
    """Bounds boxes with what `tables` keeps."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.parts, self.floors = tables, tables.parts, tables.floors
        self._fits: dict[Hashable, np.ndarray] = {}

    def ms(self, box: Box, parts: Sequence[Box]) -> float:
        """No design of the box has less; 0 where nothing is known, infinite where nothing can be
        built. `parts`: together the box, each with one set of sites for each size.

        What decides how layers are mapped must not be open: array, engines and fusions.
        """
        sizes = Sizes.of(box, self.parts.base)
        every = [self.tables.builds.of(part, sizes) for part in parts]
        rates = np.unique(np.concatenate([built.rates_hz[built.feasible] for built in every]))
        least = inf
        for rate_hz in rates[::-1].tolist():
            if self.tables.floor(box, rate_hz).ms >= least:  # nor is any slower one below
                break
            cycles = self.cycles(box, rate_hz)
            if cycles is None:
                return 0.0
            there = np.logical_or.reduce([built.feasible & (built.rates_hz == rate_hz)
                                          for built in every])
            least = min(least, float(cycles[there].min()) / rate_hz * 1e3 * (1 - ROUNDING))
        return least

    def cycles(self, box: Box, clock_hz: int) -> np.ndarray | None:
        """Of every size at one clock; None where nothing is known."""
        sizes, found = Sizes.of(box, self.parts.base), self.tables.untiled(box)
        widest = self._widest(box, sizes)
        if found is None or widest is None or self.parts.keeps(box):
            return None
        overlay = replace(widest, clock_hz=clock_hz)
        chooser = self.tables.chooser(overlay)
        if isinstance(chooser.run(), Infeasible):
            return None
        layers = Layers(chooser, self.parts.board, sizes, self.tables.known)
        graph = self.tables.graph
        total: Any = sum(host_cycles(step.time_ns, clock_hz) * step.alone for step in found.steps)
        turns = []
        for item, cycles in found.items:
            mine = must_map(graph.layer(item.name))
            least: Any = layers.banked(item) if mine else cycles
            total = total + self.tables.repeats(item) * least
            turns.append((least, layers.brought(item) if mine else 0))
        if graph.steps == 1:
            total = np.maximum(total, in_turn(turns, layers.ahead))
        return self._moved(box, layers, found, np.broadcast_to(total, sizes.shape))

    def _moved(self, box: Box, layers: Layers, found: Untiled, cycles: np.ndarray) -> np.ndarray:
        """The same where layers move for want of room: there the floor of the box holds."""
        floor = self.floors.floor(box).at(layers.overlay.clock_hz)
        lost, maybe = np.zeros(cycles.shape), inf
        for item, _ in found.items:
            if item.name in found.movable:
                away = floor + self.floors.moved(box, item.name, layers.overlay.clock_hz)
                fits = self._where(layers, item)
                if fits is None:
                    maybe = min(maybe, away)
                else:
                    lost = np.maximum(lost, np.where(fits, 0, away))
        return np.minimum(np.where(lost > 0, lost, cycles), maybe)

    def _where(self, layers: Layers, item: LayerMapping) -> np.ndarray | None:
        """The sizes at which a layer has a tile on its engine, whatever masters and clock; None
        where another engine may run it, or the array does."""
        overlay, layouts = layers.overlay, layers.chooser.layouts
        if item.engine is Engine.CONVOLUTION or len(engines_of(
                layers.graph, layers.graph.layer(item.name), overlay)) > 1:
            return None
        key = (item.name, item.inputs, layers.sizes,
               tuple(getattr(overlay, name) for name in TIMED if name != "clock_hz"),
               tuple((layouts.channels.get(name), layouts.counts.get(name))
                     for name in (*item.inputs, item.output)))
        if key not in self._fits:
            self._fits[key] = layers.chosen(item) == layers.place_of(item)
        return self._fits[key]

    def _widest(self, box: Box, sizes: Sizes) -> Overlay | None:
        """The design with the most and widest masters and the largest buffers; None where
        none has all."""
        choice: Choice = {**sizes.largest, **quickest(box)}
        for name in PORTS:
            bits = box.values(width_axis(ROLES[name], box.names))
            if not box.may_have_named(name):
                continue
            widths = {port: max(self.parts.board.port(str(port)).nearest_width(int(wanted))
                                for wanted in bits or (self._bits(name),))
                      for port in box.values(name)}
            choice[name] = max(widths, key=lambda port: widths[port])
            if bits:
                choice[width_axis(ROLES[name], box.names)] = max(bits)
        if box.values("input_masters"):
            choice["input_masters"] = max(box.values("input_masters"))
        overlay = replace(self.parts.overlay(box.design(choice)), rate=Rate.FIXED)
        rates = tuple(sum(item.width_bits for item in overlay.masters_of(role)) / 8
                      for role in MOVERS)
        return overlay if rates == tuple(self.floors.rates(box)) else None

    def _bits(self, name: str) -> int:
        masters = self.parts.base.masters_of(ROLES[name]) or self.parts.base.masters
        return masters[0].width_bits


__all__ = ["Rough"]
