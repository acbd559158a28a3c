"""Says which buffer of an overlay is too small for one random tile.

It draws no tile and chooses none for a network; `cosim.engines` does that.
"""

from __future__ import annotations

from collections.abc import Iterator

from arch_models.engines import Tile
from arch_models.fields import FieldError
from arch_models.overlay import Overlay
from arch_models.units import ceil_div
from cosim.program.table import Buffer, Opcode

BEAT_BYTES = 8

#: What a block of bytes for this buffer counts against.
FIELDS = {Buffer.WEIGHT: "weight_words", Buffer.CONVOLUTION_PARAMETERS: "parameter_entries",
          Buffer.VECTOR_PARAMETERS: "vector_entries", Buffer.TABLE: "table_bytes",
          Buffer.NORM_PARAMETERS: "vector_entries"}


def room(overlay: Overlay) -> dict[str, int]:
    """Words of each buffer, all banks together; a word of parameters or tables has 8 bytes."""
    return {
        "input_words": overlay.input_words * overlay.input_banks,
        "weight_words": overlay.weight_words * overlay.weight_banks,
        "output_words": overlay.output_words * overlay.output_banks,
        "accumulator_words": overlay.accumulator_words,
        "parameter_entries": overlay.parameter_entries,
        "vector_entries": overlay.vector_entries,
        "table_bytes": max(1, overlay.table_bytes // BEAT_BYTES),
    }


def check_room(overlay: Overlay, opcode: Opcode, tile: Tile, input_end: int, output_end: int,
               blocks: list[tuple[int, Buffer, int]]) -> None:
    """Raise `FieldError` if a buffer ends before the tile does.

    Ends count words. `blocks`: (words, buffer, first word) of weights, parameters, tables.
    """
    has = room(overlay)
    for name, need in _needs(overlay, opcode, tile, input_end, output_end, blocks):
        if need > has[name]:
            value = getattr(overlay, name)
            raise FieldError(f"{name} is {value}, too small for random {opcode.name.lower()} "
                             f"tiles: one needs {ceil_div(need * value, has[name])}")


def _needs(overlay: Overlay, opcode: Opcode, tile: Tile, input_end: int, output_end: int,
           blocks: list[tuple[int, Buffer, int]]) -> Iterator[tuple[str, int]]:
    yield "input_words", input_end
    yield "output_words", output_end
    for words, buffer, base in blocks:
        yield FIELDS[buffer], base + words
    if opcode is Opcode.CONVOLUTION:  # each column of the array has sums of its own
        sums = tile.out_words * tile.rows * ceil_div(tile.columns, overlay.columns)
        yield "accumulator_words", sums * overlay.columns
