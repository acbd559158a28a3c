"""Says which buffer of an overlay is too small for one random tile.

It draws no tile and chooses none for a network; `cosim.engines` does that.
"""

from __future__ import annotations

from collections.abc import Iterator

from arch_models.engines import Tile
from arch_models.fields import FieldError
from arch_models.overlay import Overlay
from arch_models.units import ceil_div
from cosim.program.table import BEAT_MEMORIES, CONVOLUTIONS, Buffer, Opcode, beats_of


def check_room(overlay: Overlay, opcode: Opcode, tile: Tile, input_end: int, output_end: int,
               blocks: list[tuple[int, Buffer, int]]) -> None:
    """Raise `FieldError` if a buffer ends before the tile does.

    Ends count words. `blocks`: (words, buffer, first word) of weights, parameters, tables.
    """
    for name, need, has in _needs(overlay, opcode, tile, input_end, output_end, blocks):
        if need > has:
            value = getattr(overlay, name)
            raise FieldError(f"{name} is {value}, too small for random {opcode.name.lower()} "
                             f"tiles: one needs {ceil_div(need * value, has)}")


def _needs(overlay: Overlay, opcode: Opcode, tile: Tile, input_end: int, output_end: int,
           blocks: list[tuple[int, Buffer, int]]) -> Iterator[tuple[str, int, int]]:
    """A field, words that are needed, and what there is, all banks together."""
    yield "input_words", input_end, overlay.input_words * overlay.input_banks
    yield "output_words", output_end, overlay.output_words * overlay.output_banks
    for words, buffer, base in blocks:
        if buffer is Buffer.WEIGHT:
            yield "weight_words", base + words, overlay.weight_words * overlay.weight_banks
        else:
            yield BEAT_MEMORIES[buffer].field, base + words, beats_of(buffer, overlay)
    if opcode in CONVOLUTIONS:  # each column of the array has sums of its own
        sums = tile.out_words * tile.rows * ceil_div(tile.columns, overlay.columns)
        yield "accumulator_words", sums * overlay.columns, overlay.accumulator_words
