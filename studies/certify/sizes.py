"""The sizes of a box's buffers and arrays, what is known at their places in a table, and what each
takes of a part.

It knows no layer. A table has the axes (banks, input, weight, output, accumulator words).
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from arch_models.clock import memory_grid, memory_rows, rates_of_rows, rows_of
from arch_models.engines import Resources
from arch_models.overlay import Fusion, Overlay, Rate, Role
from arch_models.power.energy import Sites
from arch_models.resources import (
    DISTRIBUTED_WORDS,
    ENTRY_BITS,
    block_design,
    buffers,
    estimate,
)
from studies.certify.boxes import Box
from studies.certify.parts import Parts
from studies.search.space import CLOCK
from studies.search.space_overlays import rate_hz as named_hz

WORDS = ("input_words", "weight_words", "output_words", "accumulator_words")
BANKS = ("input_banks", "weight_banks", "output_banks")
#: Buffers by the axes of their words and banks, their place in `memory_rows`, and their names.
GROUPS = (("input_words", "input_banks", 0, ("input",)),
          ("weight_words", "weight_banks", 2, ("weight",)),
          ("output_words", "output_banks", 1, ("output", "skip")),
          ("accumulator_words", "", 3, ("accumulator",)))
#: Tables of sites and clocks that are kept, the last ones: boxes and their parts ask for the same.
KEPT = 64
#: Of a RAMB36, parity among them.
BRAM36_BYTES = 4608
KINDS = ("dsp", "bram36", "lut", "ff")
#: The axes of the array; a value of each.
ARRAY = ("tm", "tn", "columns", "requantize_cycles")
Array = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Values of the buffers' axes in a box, words ascending."""

    words: tuple[tuple[int, ...], ...]
    banks: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, box: Box, base: Overlay) -> Sizes:
        """Those of a box; the base's where the space has no such axis."""
        def values(name: str) -> tuple[int, ...]:
            found = box.values(name) or (getattr(base, name),)
            return tuple(sorted(int(value) for value in found))

        return cls(tuple(values(name) for name in WORDS),
                   tuple((one, two, three) for one, two, three in itertools.product(
                       *(values(name) for name in BANKS))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a table."""
        return (len(self.banks), *map(len, self.words))

    def fields(self, place: tuple[int, ...]) -> dict[str, int]:
        """Banks and words at a place of a table."""
        banks = zip(BANKS, self.banks[place[0]], strict=True)
        words = ((name, values[index])
                 for name, values, index in zip(WORDS, self.words, place[1:], strict=True))
        return {**dict(banks), **dict(words)}

    @property
    def largest(self) -> dict[str, int]:
        """The largest words and most banks."""
        return {**{name: values[-1] for name, values in zip(WORDS, self.words, strict=True)},
                **dict(zip(BANKS, map(max, zip(*self.banks, strict=True)), strict=True))}


def resized(overlay: Overlay, words: Mapping[str, int]) -> Overlay:
    """The overlay with other words or banks."""
    return replace(overlay, **words)  # type: ignore[arg-type]


def arrayed(overlay: Overlay, array: Array) -> Overlay:
    """The overlay with another array."""
    return resized(overlay, dict(zip(ARRAY, array, strict=True)))


def held_bytes(overlay: Overlay, bram36: float, array: Array, words: int) -> int:
    """Bytes of weights that so many words of WEIGHT hold at the most on an array (`tm` and `tn`
    first): a memory of more than a few words is block RAM, of which it has so many at the most."""
    word = array[0] * array[1] * overlay.weight_bits // 8
    return min(words * word, max(2 * DISTRIBUTED_WORDS * word, int(bram36 * BRAM36_BYTES)))


class Built(NamedTuple):
    """Designs by banks and words: which the part holds, the clock of each, the largest share of
    the part, and the sites of every part of the design (arrays where they differ)."""

    feasible: np.ndarray
    rates_hz: np.ndarray
    share: np.ndarray
    sites: Sites


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

    def ask(self, there: np.ndarray | None) -> np.ndarray:
        """Those of some sizes, None: of all, that were not asked for yet; now they are."""
        wanted = self.asked.dtype.type(True) if there is None else there.any(axis=(2, 4))
        missing = wanted & ~self.asked
        self.asked |= missing
        return missing


def _totals(parts: Mapping[str, Resources], sizes: Sizes) -> dict[str, np.ndarray]:
    return {kind: sum(getattr(part, kind) for part in parts.values()) + np.zeros(sizes.shape)
            for kind in KINDS}


class Builds:
    """Sites and clocks of all sizes of the designs around a base; keeps those of buffers."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.board, self.base = parts, parts.board, parts.base
        self._last: dict[Hashable, Built] = {}
        self._buffers: dict[Hashable, tuple[dict[str, Resources], np.ndarray]] = {}
        self._leasts: dict[Hashable, Resources] = {}

    def of(self, box: Box, sizes: Sizes) -> Built:
        """Those of a box in which only buffers, and what has no sites, are left open."""
        key = (box.sides, sizes)
        if key not in self._last:
            plain = self.parts.overlay(box.design(sizes.fields((0,) * 5)))
            if len(self._last) >= KEPT:
                del self._last[next(iter(self._last))]
            self._last[key] = self._built(plain, sizes, self._fixed_hz(box))
        return self._last[key]

    def may_fit(self, box: Box, sizes: Sizes) -> np.ndarray:
        """The sizes at which the part may hold a design of a box: with the least of each part."""
        parts = dict(self.parts.sites(box))
        for axis, (_, _, _, names) in enumerate(GROUPS):
            parts |= {part: self._least(box, sizes, axis, part)
                      for part in (f"buffer {name}" for name in names) if part in parts}
        return self._fits(_totals(parts, sizes), self.parts.around(box))

    def _least(self, box: Box, sizes: Sizes, axis: int, part: str) -> Resources:
        """A buffer of an axis of the words at the least in a box, by banks and words."""
        words, banks, _, _ = GROUPS[axis]
        key = (sizes.words[axis], sizes.banks, self.parts.said(box, part))
        if key not in self._leasts:
            places = [(mine[axis] if banks else 0, size) for mine, size in itertools.product(
                sizes.banks, sizes.words[axis])]
            known = {place: self.parts.part(box.narrowed(**{
                words: (place[1],), **({banks: (place[0],)} if banks else {})}), part)
                for place in set(places)}
            shape = [len(sizes.banks), *([1] * len(GROUPS))]
            shape[1 + axis] = len(sizes.words[axis])
            self._leasts[key] = Resources(*(np.array(  # type: ignore[arg-type]
                [getattr(known[place], kind) for place in places]).reshape(shape)
                for kind in KINDS))
        return self._leasts[key]

    def _built(self, plain: Overlay, sizes: Sizes, fixed_hz: int) -> Built:
        parts, places = dict(estimate(plain).parts), []
        for axis in range(len(GROUPS)):
            buffers_, rows = self._group(plain, sizes, axis)
            parts |= {name: sites for name, sites in buffers_.items() if name in parts}
            places.append((GROUPS[axis][2], rows))
        around = block_design(plain)
        own = _totals(parts, sizes)
        feasible = self._fits(own, around)
        share = np.maximum.reduce([(own[kind] + getattr(around, kind)) / getattr(
            self.board.part, kind) for kind in KINDS])
        rates = np.where(feasible, fixed_hz, 0)
        if not fixed_hz:
            memories = [np.broadcast_to(rows, sizes.shape)[feasible] for _, rows in sorted(
                places, key=lambda pair: pair[0])]
            rates[feasible] = rates_of_rows(rows_of(plain), np.array(memories),
                                            own["lut"][feasible], self.board)
        return Built(feasible, rates, share, tuple(parts.items()))

    def _fits(self, own: Mapping[str, np.ndarray], around: Resources) -> np.ndarray:
        free = 1 - self.base.headroom
        return np.logical_and.reduce([
            own[kind] + getattr(around, kind) <= getattr(self.board.part, kind) * free
            for kind in KINDS])

    def _group(self, plain: Overlay, sizes: Sizes, axis: int
               ) -> tuple[dict[str, Resources], np.ndarray]:
        """The buffers of an axis of the words: their sites, and the places of their rows in
        the grid of the clock, by banks and words (an axis that does not count has length 1)."""
        words, banks, memory, names = GROUPS[axis]
        key = (axis, sizes.words[axis], sizes.banks, plain.tm, plain.tn, plain.columns,
               Fusion.ADD in plain.fusions, tuple(
                   (item.role, max(1, item.width_bits // ENTRY_BITS)) for item in plain.masters
                   if item.role is not Role.FETCH))
        if key not in self._buffers:
            shape = [len(sizes.banks), *([1] * len(GROUPS))]
            shape[1 + axis] = len(sizes.words[axis])
            sites = {name: {kind: np.zeros(shape) for kind in KINDS} for name in names}
            rows = np.zeros(shape, np.int64)
            for place, (mine, size) in enumerate(itertools.product(
                    sizes.banks, sizes.words[axis])):
                one = resized(plain, {words: size} | ({banks: mine[axis]} if banks else {}))
                found = dict(buffers(one))
                for name in names:
                    for kind in KINDS:
                        sites[name][kind].flat[place] = getattr(found.get(name, Resources()), kind)
                rows.flat[place] = memory_grid()[memory_rows(one)[memory]]
            self._buffers[key] = {f"buffer {name}": Resources(**item)  # type: ignore[arg-type]
                                  for name, item in sites.items()}, rows
        return self._buffers[key]

    def _fixed_hz(self, box: Box) -> int:
        """The clock that all designs of the box have; 0 if it is predicted."""
        if box.values(CLOCK):
            return named_hz(int(box.values(CLOCK)[0]), self.board)
        return self.base.clock_hz if self.base.rate is Rate.FIXED else 0
