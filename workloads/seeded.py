"""Seeded integer constants that come into being when they are read.

It decides no shapes; a graph builder declares them. Nothing here touches real weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Uniform:
    """An array of independent integers from `least` to `greatest`, both included."""

    shape: tuple[int, ...]
    dtype: str
    least: int
    greatest: int


@dataclass(frozen=True)
class SeededConstants(Mapping[str, np.ndarray]):
    """A mapping from names to arrays: `fixed` ones as given, `drawn` ones made on first use.

    An array depends only on the seed, its name and its declaration, not on the order of use.
    `shape_of` answers without making the array.
    """

    seed: int
    fixed: Mapping[str, np.ndarray]
    drawn: Mapping[str, Uniform]
    _made: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self.fixed:
            return self.fixed[name]
        if name not in self._made:
            rule = self.drawn[name]
            random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
            array = random.integers(rule.least, rule.greatest, rule.shape, rule.dtype, True)
            array.setflags(write=False)
            self._made[name] = array
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        # The inherited one would make the array.
        return name in self.fixed or name in self.drawn

    def __iter__(self) -> Iterator[str]:
        yield from self.fixed
        yield from self.drawn

    def __len__(self) -> int:
        return len(self.fixed) + len(self.drawn)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without making it."""
        return self.fixed[name].shape if name in self.fixed else self.drawn[name].shape
