"""Pairs of convolutions that hand a tensor on by bands of rows, and the order of their stages.

It writes no rows (`cosim.lowering.bands` does) and chooses no tile. The tensor between them passes
the tensor memory as a ring: its row r lies at r times a row's bytes, modulo the memory's size, so
that it may be larger than the memory. Stages of both follow one another on one engine, the second
layer's as soon as what it reads is there; the rows that two stages both read stay in the ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from arch_models.overlay import Engine, Overlay, Role, Start
from cosim.mapping.lifetimes import Region
from cosim.mapping.tile_search import TRANSFER_CYCLES
from cosim.mapping.tiles import ConvolutionTile, LayerMapping, Mapping, Turn
from cosim.mapping.words import convolution_words, span
from workloads.graph import Graph


class Stage(NamedTuple):
    """Rows of the tensor between two layers that a stage writes or reads; `whole`: rows of it that
    are there, from the first on, once the stage and those before have written."""

    low: int
    high: int
    whole: int


def order(writes: Sequence[Stage], reads: Sequence[Stage], ring_rows: int) -> list[Turn] | None:
    """The stages of both layers in the order in which they run; None if the ring is too short.

    The writer is a stage ahead, so that its store lies behind products; where there is no room for
    that, the reader would wait, and there is no order. Rows that a stage still to come reads are
    not written over.
    """
    found: list[Turn] = []
    written = told = 0
    for number, stage in enumerate(reads):
        oldest = min(item.low for item in reads[number:])
        need = next(index + 1 for index, item in enumerate(writes) if item.whole >= stage.high)
        while written < min(need + 1, len(writes)):
            if writes[written].high - oldest > ring_rows:
                if written < need:
                    return None
                break
            found.append(Turn(False, written))
            written += 1
        if need > told and written == need < len(writes):
            return None
        found.append(Turn(True, number, need - 1 if need > told else -1))
        told = max(told, need)
    return found + [Turn(False, index) for index in range(written, len(writes))]


def turns(graph: Graph, overlay: Overlay, mapping: Mapping, region: Region,
          size_bytes: int) -> tuple[Turn, ...]:
    """The order of the stages of the two layers that a tensor may pass between by bands; none if
    it may not.

    Both layers are convolutions, one behind the other, each of whose weights are one block that
    stays for the whole layer (so none is loaded again). The products of a stage take longer than
    what the stages of both layers move, so that nothing waits for the ring; with one bank of a
    buffer it would.
    """
    banks = (overlay.input_banks, overlay.weight_banks, overlay.output_banks)
    if (overlay.control.start is not Start.FRAME or min(banks) < 2
            or region.last != region.first + 1 or len(region.uses) != 2
            or len(region.members) != 1):
        return ()
    writer, reader = (mapping.layers[index] for index in (region.first, region.last))
    if (writer.phase is not reader.phase or writer.output != region.root
            or reader.inputs[0] != region.root
            or not all(_stays(graph, overlay, mapping, item) for item in (writer, reader))):
        return ()
    pitch = region.size // graph.tensors[region.root].rows
    stages = [stages_of(graph, item, reads) for item, reads in ((writer, False), (reader, True))]
    rate = overlay.masters_of(Role.INPUT)[0].width_bits / 8
    moved = sum(max(item.high - item.low for item in part) for part in stages) * pitch
    waits = moved / rate + 2 * TRANSFER_CYCLES
    if any(item.cost_cycles / len(part) < 2 * waits
           for item, part in zip((writer, reader), stages, strict=True)):
        return ()
    return tuple(order(stages[0], stages[1], size_bytes // pitch) or ())


def _stays(graph: Graph, overlay: Overlay, mapping: Mapping, item: LayerMapping) -> bool:
    """Is it a convolution whose weights are one block?"""
    tile, layer = item.tile, graph.layer(item.name)
    if (item.engine is not Engine.CONVOLUTION or not isinstance(tile, ConvolutionTile)
            or layer.window.groups > 1 or len(layer.inputs) > 1):
        return False
    in_words, out_words, _ = convolution_words(layer, graph, overlay, mapping.layouts,
                                               item.inputs[0])
    return tile.in_words == in_words and tile.out_words == out_words


def stages_of(graph: Graph, item: LayerMapping, reads: bool) -> list[Stage]:
    """The stages of a layer with the rows of its output, or of its input, that each touches."""
    layer, tile = graph.layer(item.name), item.tile
    assert isinstance(tile, ConvolutionTile)
    out, window = graph.tensors[layer.output], layer.window
    columns, halve = -(-out.columns // tile.columns), int(bool(item.pool))
    found = []
    for top in range(0, out.rows, tile.rows):
        rows = min(tile.rows, out.rows - top)
        low, high = top >> halve, (top + rows) >> halve
        if reads:
            low, count = span(top, rows, window.stride, window.rows, window.padding,
                              int(bool(item.upsample)), graph.tensors[item.inputs[0]].rows)
            high = low + count
        found += [Stage(low, high, high if column == columns - 1 else low)
                  for column in range(columns)]
    return found
