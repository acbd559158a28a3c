"""The norm in mapping and lowering: blocks of whole groups, search, constants, rows, lower bound.

Each block's sums come first, then its affine step; the model says what both cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from arch_models.engines import Tile, Work
from arch_models.engines.norm import MOST_VALUES, Norm
from arch_models.overlay import Engine
from arch_models.units import ceil_div
from cosim.compiled import CACHED, PLAIN_RULE
from cosim.engines.base import Demand, Job, Mapped, Site, byte_misfit, edge, share
from cosim.engines.buffers import BEAT, Buffers, span_of, streamed
from cosim.engines.constants import ENTRY_BYTES
from cosim.engines.rows import (
    IN_FILLED,
    IN_FREE,
    OUT_FILLED,
    OUT_FREE,
    Box,
    Turn,
    block_load,
    channel_mask,
    compute_row,
    shared_load,
    tile_store,
)
from cosim.mapping.choose import Chooser
from cosim.mapping.tile_search import TRANSFER_CYCLES, Totals, sizes, total
from cosim.mapping.tiles import LayerMapping, NormTile
from cosim.program.table import NORM_CONSTANTS, Buffer, Opcode
from workloads import arithmetic
from workloads.graph import Layer

NORM_PARAMETERS = int(Buffer.NORM_PARAMETERS)
GROUP_SUMS, GROUP_NORM = int(Opcode.GROUP_SUMS), int(Opcode.GROUP_NORM)


class NormSlice:
    """See `EngineSlice`."""

    engine = Engine.NORM
    cost_arguments: Mapping[Opcode, tuple[str, ...]] = {
        Opcode.GROUP_SUMS: ("positions", "planes", "channels", "group_channels", "last"),
        Opcode.GROUP_NORM: ("positions", "planes")}
    accesses = staticmethod(streamed)

    def tile(self, chooser: Chooser, layer: Layer) -> LayerMapping:
        """Blocks of whole groups on the norm engine, or the host."""
        why = _misfit(chooser, layer)
        if why:
            return chooser.host(layer, why)
        spec = chooser.graph.tensors[layer.inputs[0]]
        sums, found = (chooser.timing(Engine.NORM, name) for name in ("group_sums", "group_norm"))
        block = chooser.overlay.channel_block
        each = spec.channels // layer.window.groups
        shape = NormShape(
            chooser.layouts.planes(layer.inputs[0]), math.lcm(each, block) // block, spec.positions,
            sums.fill + sums.drain, found.fill + found.drain, found.interval)
        best = chooser.search(search, shape)
        if best[0] < 0:
            return chooser.host(layer, "no block of whole groups fits INPUT and OUTPUT")
        chooser.layouts.dense(layer.output)
        return LayerMapping(layer.name, layer.phase, Engine.NORM, layer.inputs, layer.output,
                            tile=NormTile(*best[1:]), cost_cycles=best[0])

    def constants(self, mapped: Mapped) -> list[tuple[str, int]]:
        """Epsilon, film, and an entry a channel."""
        channels = mapped.planes(mapped.item.inputs[0]) * mapped.overlay.channel_block
        return [("norm", (NORM_CONSTANTS + channels) * ENTRY_BYTES)]

    def pack(self, mapped: Mapped, role: str) -> bytes:
        """Entries of 8 bytes: epsilon (int64), film (2 x int32), then scale and offset (int32
        each) of every channel. The norm takes them from NORM_PARAMETERS."""
        graph, layer, item = mapped.graph, mapped.layer, mapped.item
        entries = np.zeros((NORM_CONSTANTS + 8 * mapped.planes(item.inputs[0]), 2), "<i4")
        entries[0] = graph.constant(layer, "epsilon").astype("<i8").view("<i4")
        if len(item.inputs) == 3:
            entries[1] = graph.constant(layer, "film")
        places = NORM_CONSTANTS + mapped.layouts.places(item.inputs[0])
        for column, kind in enumerate(("scale", "offset")):
            entries[places, column] = graph.constant(layer, kind)
        return entries.tobytes()

    def activations(self, mapped: Mapped) -> tuple[str, ...]:
        """Modulating gains and offsets."""
        return mapped.item.inputs[1:]

    def job(self, mapped: Mapped, site: Site) -> Job:
        """Blocks of whole groups, positions in chunks, each stored in parts."""
        layer, overlay, item, tile = mapped.layer, mapped.overlay, mapped.item, mapped.item.tile
        assert isinstance(tile, NormTile)
        source = site.line(mapped, item.inputs[0])
        spec, positions = mapped.graph.tensors[item.inputs[0]], source.rows
        edge_planes, edge_chunk = edge(source.planes, tile.planes), edge(positions, tile.chunk)
        edge_part = min(edge(size, tile.part) for size in (tile.chunk, edge_chunk))
        block = overlay.channel_block
        common = site.common(
            overlay,
            share(site.wires.inputs, ceil_div(edge_planes, overlay.tn // block), edge_chunk),
            share(site.wires.outputs, ceil_div(edge_planes, overlay.tm // block), edge_part))
        gain, offset = (site.addresses[name] if name else 0
                        for name in (item.inputs[1:] or ("", "")))
        plan = NormPlan(
            source.planes, spec.channels, spec.channels // layer.window.groups, positions,
            tile.planes, tile.chunk, tile.part, int(layer.relu), *site.blobs["norm"], gain,
            offset, source.planes * block if len(item.inputs) == 3 else 0)
        stages = ceil_div(source.planes, tile.planes) * ceil_div(positions, tile.chunk)
        most = 3 + stages * (2 * site.masters + 1
                             + (site.masters + 1) * ceil_div(tile.chunk, tile.part))
        return Job(norm_rows, common, plan, (source, site.line(mapped, item.output)), site.wires,
                   most)

    def operation(self, mapped: Mapped, opcode: Opcode,
                  values: Mapping[str, int]) -> tuple[Work, Tile]:
        """Beats of a pass; with the last sums of a block, its entries."""
        if opcode is Opcode.GROUP_NORM:
            return Work("group_norm"), Tile(1, values["positions"], values["planes"])
        groups = values["channels"] // values["group_channels"] if values["last"] else 0
        return Work("group_sums"), Tile(1, values["positions"], values["planes"],
                                        values["channels"], groups=groups)

    def least(self, mapped: Mapped) -> Demand:
        """Both passes over every beat and the entries between them, as one tile; bytes once."""
        source, overlay = mapped.item.inputs[0], mapped.overlay
        spec, planes = mapped.graph.tensors[source], mapped.planes(source)
        first = Tile(1, spec.positions, planes, spec.channels, groups=mapped.layer.window.groups)
        second, cost = Tile(1, spec.positions, planes), Norm().cost
        cycles = (cost(Work("group_sums"), first, overlay).cycles
                  + cost(Work("group_norm"), second, overlay).cycles)
        return Demand(compute_cycles=cycles, untiled_cycles=cycles, store_bytes=mapped.bytes_of(
            mapped.item.output), load_bytes=mapped.bytes_of(source))

    def compute(self, memories: Buffers, opcode: Opcode, values: Mapping[str, int]) -> None:
        """See `EngineSlice`."""
        (_sums if opcode is Opcode.GROUP_SUMS else _norm)(memories, values)


def _sums(memories: Buffers, a: Mapping[str, int]) -> None:
    """Sums of a block's channels; behind the last of them the entries of its affine step."""
    planes, channels, each = a["planes"], a["channels"], a["group_channels"]
    value = memories.read(a["in_base"], a["positions"], planes).transpose(0, 2, 1)
    value = value.reshape(planes * BEAT, -1)[:channels]
    if a["first"]:
        memories.sums[:] = 0
    memories.sums[:, :channels] += value.sum(axis=1), (value * value).sum(axis=1)
    if not a["last"]:
        return
    beats = memories.beats[Buffer.NORM_PARAMETERS]
    constants = beats.view("<i4").astype(np.int64)
    scale, offset = constants[span_of(constants, a["parameter_base"], channels)].T
    if a["film"]:
        gain, moved = (
            beats[span_of(beats, base, planes)].reshape(-1)[:channels].astype(np.int64)
            for base in (a["gain_base"], a["offset_base"]))
        scale, offset = arithmetic.modulated(scale, offset, gain, moved, constants[1])
    epsilon = int(beats[0].view("<i8")[0])
    memories.entries[:, channels : planes * BEAT] = 0
    for start in range(0, channels, each):
        group = slice(start, start + each)
        sums = (each * a["all_positions"], int(memories.sums[0, group].sum()),
                int(memories.sums[1, group].sum()))
        memories.entries[:, group] = arithmetic.group_norm_entries(
            sums, scale[group], offset[group], epsilon)


def _norm(memories: Buffers, a: Mapping[str, int]) -> None:
    """The affine step of a block with the entries of its sums."""
    planes, stride, lanes = a["planes"], a["in_positions"], memories.tn // BEAT
    value = np.concatenate([
        memories.read(a["in_base"] + word * stride, a["positions"], min(lanes, planes - first))
        for word, first in enumerate(range(0, planes, lanes))])
    multiplier, begin, shift = (
        item[: planes * BEAT].reshape(planes, 1, BEAT) for item in memories.entries)
    result = arithmetic.saturate(arithmetic.round_shift(value * multiplier + begin, shift))
    memories.write(a["out_base"], np.maximum(result, 0) if a["relu"] else result)


def _misfit(chooser: Chooser, layer: Layer) -> str:
    """Why the norm engine cannot hold a group norm's numbers; empty if it can."""
    overlay, tensors = chooser.overlay, chooser.graph.tensors
    first = layer.inputs[0]
    misfit = byte_misfit(chooser, (*layer.inputs, layer.output)) or next((
        f"{name!r} has gaps between its channels" for name in layer.inputs
        if not chooser.layouts.is_dense(name)), "")
    if misfit:
        return misfit
    values = tensors[first].elements // layer.window.groups
    if values > MOST_VALUES:
        return f"a group has {values} values, at most {MOST_VALUES}"
    planes = chooser.layouts.planes(first)
    entries = NORM_CONSTANTS + planes * (overlay.channel_block + len(layer.inputs) - 1)
    if entries > overlay.vector_entries:
        return f"vector_entries needs {entries}, has {overlay.vector_entries}"
    return ""


class NormShape(NamedTuple):
    """A group norm as its tile search sees it. `unit`: planes of the smallest whole block."""

    planes: int
    unit: int
    positions: int
    sums_overhead: int
    overhead: int
    interval: int


@CACHED
def search(shape, budget):
    """(cost, planes, chunk, part) of the best tile; cost < 0: none fits.

    The times of the entries are the same for every tile and left out.
    """
    chunks_tried = sizes(shape.positions, 1, 0)
    best = (-1.0, 0, 0, 0)
    size = float(shape.planes * shape.positions * budget.position_bytes)
    for planes in sizes(shape.planes, shape.unit, 0):
        words = -(-planes // budget.lanes_in)
        most = budget.output_words // -(-planes // budget.lanes_out)
        if most < 1:
            continue
        for chunk in chunks_tried:
            if words * chunk > budget.input_words:
                continue
            parts = -(-chunk // most)
            part = -(-chunk // parts)
            chunks = -(-shape.positions // chunk)
            stages = -(-shape.planes // planes) * chunks
            passes = 1 if chunks == 1 else 2
            compute = (2 * shape.planes * shape.positions * shape.interval
                       + stages * (shape.sums_overhead + parts * shape.overhead))
            loads = passes * (size / budget.read_rate + stages * TRANSFER_CYCLES)
            stores = size / budget.write_rate + stages * parts * TRANSFER_CYCLES
            first = planes * chunk * budget.position_bytes / budget.read_rate + TRANSFER_CYCLES
            last = planes * part * budget.position_bytes / budget.write_rate + TRANSFER_CYCLES
            cost = total(budget, Totals(
                float(compute), loads, 0.0, stores, (1 + passes) * size, 0, first, last))
            if best[0] < 0 or cost < best[0]:
                best = (cost, planes, chunk, part)
    return best


class NormPlan(NamedTuple):
    """A group norm: blocks of whole groups, positions in chunks, each stored in parts.

    `constant_bytes`: epsilon, film and one entry a channel. `film`: bytes of each modulating
    tensor, 0 if there is none.
    """

    planes: int
    channels: int
    group_channels: int
    positions: int
    tile_planes: int
    chunk: int
    part: int
    relu: int
    constant_address: int
    constant_bytes: int
    gain_address: int
    offset_address: int
    film: int


class NormTokens(NamedTuple):
    """The tokens of a group norm's masters as masks, and whether a block stays in its bank."""

    in_filled: int
    in_free: int
    out_filled: int
    out_free: int
    resident: bool


class Chunk(NamedTuple):
    """A stretch of positions of a block of planes; `filled`: what the first operation waits for.

    `ends_layer`: nothing of the layer comes after it.
    """

    plane: int
    planes: int
    begin: int
    size: int
    in_base: int
    filled: int
    ends_layer: bool


@PLAIN_RULE
def _norm_tokens(common, plan, wires):
    ins, outs = wires.inputs, wires.outputs
    return NormTokens(channel_mask(ins, IN_FILLED, common.input_share),
                      channel_mask(ins, IN_FREE, common.input_share),
                      channel_mask(outs, OUT_FILLED, common.output_share),
                      channel_mask(outs, OUT_FREE, common.output_share),
                      plan.chunk >= plan.positions)


@PLAIN_RULE
def _parameter_loads(table, row, common, plan, wires):
    """Constants, then the modulating gains and offsets; the last of them gives the token."""
    turn = Turn(common.layer, wires.weight_unit, wires.weight_free,
                0 if plan.film else wires.weight_filled)
    row = block_load(table, row, turn, NORM_PARAMETERS, 0, plan.constant_address,
                     plan.constant_bytes)
    if plan.film:
        base = plan.constant_bytes // 8
        turn = Turn(common.layer, wires.weight_unit, 0, 0)
        row = block_load(table, row, turn, NORM_PARAMETERS, base, plan.gain_address, plan.film)
        turn = Turn(common.layer, wires.weight_unit, 0, wires.weight_filled)
        row = block_load(table, row, turn, NORM_PARAMETERS, base + plan.film // 8,
                         plan.offset_address, plan.film)
    return row


@PLAIN_RULE
def _sums_row(table, row, common, plan, wires, tokens, chunk):
    """The first pass over a chunk; returns the next row."""
    wait = chunk.filled
    if chunk.plane == 0 and chunk.begin == 0:
        wait |= wires.weight_filled
    compute_row(table, row, common, GROUP_SUMS, wait, 0 if tokens.resident else tokens.in_free, 0)
    line = table.arguments[row]
    line[0], line[1], line[2] = chunk.in_base, chunk.size, chunk.planes
    line[3] = min(plan.channels - chunk.plane * 8, chunk.planes * 8)
    line[4], line[5] = plan.group_channels, NORM_CONSTANTS + chunk.plane * 8
    if plan.film:
        gain = plan.constant_bytes // 8 + chunk.plane
        line[6], line[7], line[11] = gain, gain + plan.film // 8, 1
    line[8], line[9] = plan.positions, chunk.begin == 0
    line[10] = chunk.begin + chunk.size == plan.positions
    return row + 1


@PLAIN_RULE
def _norm_row(table, row, common, plan, wires, tokens, chunk, part):
    """The second pass over a part of a chunk (its first position, its place in OUTPUT); returns
    the next row."""
    offset, out_base = part
    size = min(plan.part, chunk.size - offset)
    wait = tokens.out_free | (chunk.filled if offset == 0 else 0)
    signal = tokens.out_filled
    if offset + size == chunk.size:
        signal |= tokens.in_free
        if chunk.ends_layer:
            signal |= wires.weight_free
    compute_row(table, row, common, GROUP_NORM, wait, signal, 0)
    line = table.arguments[row]
    line[0], line[1], line[2] = chunk.in_base + offset, chunk.size, out_base
    line[3], line[4], line[5] = size, chunk.planes, plan.relu
    return row + 1


@CACHED
def norm_rows(table, row, common, plan, areas, wires):
    """Write one group norm (areas: source, target); return the next row.

    A block that fits one bank is loaded once, any other once for each pass.
    """
    source, target = areas
    tokens = _norm_tokens(common, plan, wires)
    row = _parameter_loads(table, row, common, plan, wires)
    loads, stage, in_base = 0, 0, 0
    for plane in range(0, plan.planes, plan.tile_planes):
        planes = min(plan.tile_planes, plan.planes - plane)
        for second in range(2):
            for begin in range(0, plan.positions, plan.chunk):
                size = min(plan.chunk, plan.positions - begin)
                filled = 0
                if second == 0 or not tokens.resident:
                    in_base = loads % common.input_banks * common.input_words
                    loads += 1
                    row = shared_load(table, row, common, wires.inputs, in_base, source,
                                      Box(plane, planes, begin, size, 0, 1))
                    filled = tokens.in_filled
                chunk = Chunk(plane, planes, begin, size, in_base, filled,
                              plane + planes == plan.planes and begin + size == plan.positions)
                if second == 0:
                    row = _sums_row(table, row, common, plan, wires, tokens, chunk)
                    continue
                for offset in range(0, size, plan.part):
                    out_base = stage % common.output_banks * common.output_words
                    stage += 1
                    row = _norm_row(table, row, common, plan, wires, tokens, chunk,
                                    (offset, out_base))
                    row = tile_store(table, row, common, wires.outputs, 0, out_base, target,
                                     Box(plane, planes, begin + offset,
                                         min(plan.part, size - offset), 0, 1))
    return row
