"""The sizes of a box's buffers and arrays, and where each size stands in a table.

It knows no layer. A table has the axes (banks, input, weight, output, accumulator words).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from arch_models.overlay import Overlay
from studies.certify.boxes import Box

WORDS = ("input_words", "weight_words", "output_words", "accumulator_words")
BANKS = ("input_banks", "weight_banks", "output_banks")
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
