"""The convolution in mapping and lowering: tile, what it fuses, weights, plan, lower bound.

The search over tiles is in `convolution_search`, the rows are written by `convolution_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from arch_models.engines import Tile, Work, timing
from arch_models.engines.convolution import tap_trips
from arch_models.literature import Reuse
from arch_models.overlay import Engine, Fusion, Infeasible, Overlay
from arch_models.units import ceil_div
from cosim.engines.base import Demand, Job, Mapped, Site, edge, input_bytes, share
from cosim.engines.buffers import Buffers
from cosim.engines.constants import ENTRY_BYTES, layer_entries
from cosim.engines.convolution_rows import ConvolutionPlan, convolution_rows
from cosim.engines.convolution_search import ConvolutionShape, search
from cosim.engines.convolution_values import accesses, convolve
from cosim.mapping.choose import Chooser, work_of
from cosim.mapping.tiles import ConvolutionTile, LayerMapping
from cosim.mapping.words import (
    convolution_words,
    group_channels,
    group_words,
    lacks_zero_points,
    narrow,
    weight_word_bytes,
    words_read,
)
from cosim.program.table import CONVOLUTIONS, Opcode, WeightOrder
from workloads.graph import Graph, Layer, Operator


class ConvolutionSlice:
    """Convolutions, grouped ones and products of two activations. See `EngineSlice`."""

    engine = Engine.CONVOLUTION
    cost_arguments: Mapping[Opcode, tuple[str, ...]] = {
        opcode: ("out_rows", "out_columns", "in_words", "out_words") for opcode in CONVOLUTIONS}
    accesses = staticmethod(accesses)

    def tile(self, chooser: Chooser, layer: Layer) -> LayerMapping | Infeasible:
        """The best tile; only a convolution without groups must fit the fabric."""
        if layer.operator is Operator.MATMUL:
            return _matmul(chooser, layer)
        return _grouped(chooser, layer) if layer.window.groups > 1 else _choose(chooser, layer)

    def constants(self, mapped: Mapped) -> list[tuple[str, int]]:
        """Weights, if they are no activation, and one entry an output channel."""
        in_words, out_words, taps = _words(mapped)
        overlay = mapped.overlay
        word = weight_word_bytes(overlay, narrow(mapped.layer, mapped.graph, overlay))
        entries = ("parameters", out_words * overlay.tm * ENTRY_BYTES)
        if mapped.item.order is not WeightOrder.STORED:
            return [entries]
        return [("weights", in_words * out_words * taps * word), entries]

    def pack(self, mapped: Mapped, role: str) -> bytes:
        """Blocks of weights, or entries."""
        if role == "weights":
            return pack_weights(mapped)
        count = _words(mapped)[1] * mapped.overlay.tm
        channels = mapped.graph.tensors[mapped.layer.output].channels
        return layer_entries(mapped.graph, mapped.layer, "bias", count, np.arange(channels))

    def activations(self, mapped: Mapped) -> tuple[str, ...]:
        """The second operand of a matmul."""
        return mapped.item.inputs[1:2] if mapped.layer.operator is Operator.MATMUL else ()

    def job(self, mapped: Mapped, site: Site) -> Job:
        """Tiles in words, with all that is fused."""
        graph, overlay, layer, item = mapped.graph, mapped.overlay, mapped.layer, mapped.item
        tile = item.tile
        assert isinstance(tile, ConvolutionTile)
        out, window = graph.tensors[layer.output], layer.window
        in_words, out_words, _ = _words(mapped)
        edge_rows = edge(out.rows, tile.rows)
        group_out, group_in = group_channels(layer, graph)
        edge_in = edge(in_words, tile.in_words)
        if group_in:
            edge_in = min(group_words(word, overlay.tm, overlay.tn, out.channels, group_out,
                                      group_in)[1] for word in range(out_words))
        source = site.area(mapped, item.inputs[0])._replace(
            more_rows=overlay.loops.read_rows, more_columns=overlay.loops.read_columns)
        # The real rows that the smallest tile reads, at least.
        read_rows = max(1, edge_rows * window.stride - window.padding) >> bool(item.upsample)
        common = site.common(
            overlay,
            share(site.wires.inputs, in_words if tile.resident else edge_in,
                  min(read_rows, source.rows)),
            share(site.wires.outputs, edge(out_words, tile.out_words),
                  edge_rows >> bool(item.pool)))
        halved = narrow(layer, graph, overlay)
        if item.order is WeightOrder.STORED:
            operand, weights = source, site.blobs["weights"][0]
        else:
            operand = site.area(mapped, item.inputs[1])
            weights = operand.address
        plan = ConvolutionPlan(
            overlay.tm, out.channels, out.rows, out.columns, in_words, out_words,
            tile.out_words, tile.in_words, tile.rows, tile.columns, int(tile.resident),
            int(tile.weights_outer), window.rows, window.columns, window.stride, window.padding,
            window.pad_value, int(bool(item.upsample)), int(layer.relu), _pool(mapped),
            int(bool(item.add)), *_add_scale(mapped), weights, weight_word_bytes(overlay, halved),
            overlay.weight_words, overlay.weight_banks, *site.blobs["parameters"],
            site.parity * (overlay.parameter_entries // 2 // overlay.tm * overlay.tm),
            int(CONVOLUTIONS[halved]), group_out, group_in, int(item.order), operand.planes,
            operand.rows * operand.columns,
            mapped.layouts.real_channels(item.inputs[0]))
        target = site.area(mapped, item.output)
        skip = site.area(mapped, item.skip) if item.skip else target
        return Job(convolution_rows, common, plan, (source, target, skip), site.wires,
                   _most_rows(plan, site))

    def operation(self, mapped: Mapped, opcode: Opcode,
                  values: Mapping[str, int]) -> tuple[Work, Tile]:
        """Positions before a fused pool, words of input and of output."""
        return work_of(mapped.graph, mapped.layer, mapped.overlay.data_bits), Tile(
            values["out_rows"], values["out_columns"], in_words=values["in_words"],
            out_words=values["out_words"])

    def least(self, mapped: Mapped) -> Demand:
        """Every trip of the array, every byte of the tiles."""
        overlay, layer, item, tile = mapped.overlay, mapped.layer, mapped.item, mapped.item.tile
        assert isinstance(tile, ConvolutionTile)
        in_words, out_words, taps = _words(mapped)
        out = mapped.graph.tensors[layer.output]
        found = timing(overlay, Engine.CONVOLUTION, "convolution")
        column_tiles = ceil_div(out.columns, tile.columns)
        column_trips = ((column_tiles - 1) * ceil_div(tile.columns, overlay.columns)
                        + ceil_div(edge(out.columns, tile.columns), overlay.columns))
        read = words_read(layer, mapped.graph, overlay, in_words, out_words)
        group = out.rows * sum(max(words * tap_trips(taps, overlay), overlay.result_cycles)
                               for words in read)
        spatial = ceil_div(out.rows, tile.rows) * column_tiles
        out_tiles = ceil_div(out_words, tile.out_words)
        in_tiles = ceil_div(in_words, tile.in_words)
        stored, loaded = mapped.bytes_of(item.output), input_bytes(mapped)
        if (tile.weights_outer or not tile.resident) and layer.window.groups == 1:
            loaded *= out_tiles
        if item.add:
            loaded += stored
        weights = block = 0
        if item.order is WeightOrder.STORED:
            word = weight_word_bytes(overlay, narrow(layer, mapped.graph, overlay))
            once = tile.weights_outer or out_tiles * in_tiles == 1
            weights = sum(read) * taps * word * (1 if once else spatial)
            block = tile.out_words * tile.in_words * taps * word
        overhead = found.fill + found.drain
        whole = group * ceil_div(out.columns, overlay.columns)
        return Demand(
            compute_cycles=group * column_trips * found.interval
            + spatial * out_tiles * in_tiles * overhead,
            untiled_cycles=whole * found.interval + overhead,
            load_bytes=loaded, weight_bytes=weights, ahead_bytes=block * overlay.weight_banks,
            store_bytes=stored, trips=group * column_trips,
            results=out_words * out.positions,
            partials=2 * (in_tiles - 1) * out_words * out.positions)

    def compute(self, memories: Buffers, opcode: Opcode, values: Mapping[str, int]) -> None:
        """See `EngineSlice`."""
        convolve(memories, values, opcode is Opcode.NARROW_CONVOLUTION)


def pack_weights(mapped: Mapped) -> bytes:
    """The weight blob: blocks [out tile][in tile], in the order of the loads.

    A block is [out_word][in_word][kernel_row][kernel_column] words; byte m * tn + n of a word
    multiplies input channel n into output channel m. Padded channels have zeros. Narrow words have
    half as many bytes: byte m * tn + n holds output channel m in its low half, m + tm / 2 in its
    high half.
    """
    graph, overlay, layer, tile = mapped.graph, mapped.overlay, mapped.layer, mapped.item.tile
    assert isinstance(tile, ConvolutionTile)
    tm, tn = overlay.tm, overlay.tn
    in_words, out_words, _ = _words(mapped)
    if layer.window.groups > 1:
        shaped = _grouped_weights(graph, layer, overlay, in_words, out_words)
    else:
        weights = graph.constant(layer, "weights")
        out_channels, _, rows, columns = weights.shape
        kind = np.dtype(f"i{overlay.weight_bits // 8}")
        padded = np.zeros((out_words * tm, in_words * tn, rows, columns), kind)
        padded[:out_channels, mapped.layouts.places(mapped.item.inputs[0])] = weights
        shaped = padded.reshape(out_words, tm, in_words, tn, rows, columns)
    words = shaped.transpose(0, 2, 4, 5, 1, 3)
    if narrow(layer, graph, overlay):
        words = (words[..., : tm // 2, :] & 15) | (words[..., tm // 2 :, :] << 4)
    blocks = []
    for out_word in range(0, out_words, tile.out_words):
        for in_word in range(0, in_words, tile.in_words):
            blocks.append(words[out_word : out_word + tile.out_words,
                                in_word : in_word + tile.in_words].tobytes())
    return b"".join(blocks)


def _grouped_weights(graph: Graph, layer: Layer, overlay: Overlay,
                     in_words: int, out_words: int) -> np.ndarray:
    """(out words, tm, in words, tn, rows, columns): each output word over its own input words."""
    tm, tn = overlay.tm, overlay.tn
    weights = graph.constant(layer, "weights")
    channels, group_in, rows, columns = weights.shape
    group_out, _ = group_channels(layer, graph)
    kind = np.dtype(f"i{overlay.weight_bits // 8}")
    padded = np.zeros((out_words, tm, in_words * tn, rows, columns), kind)
    for channel in range(channels):
        first, _ = group_words(channel // tm, tm, tn, channels, group_out, group_in)
        low = channel // group_out * group_in - first * tn
        padded[channel // tm, channel % tm, low : low + group_in] = weights[channel]
    return padded.reshape(out_words, tm, in_words, tn, rows, columns)


def _words(mapped: Mapped) -> tuple[int, int, int]:
    return convolution_words(mapped.layer, mapped.graph, mapped.overlay, mapped.layouts,
                             mapped.item.inputs[0])


def _add_scale(mapped: Mapped) -> tuple[int, int, int]:
    """Multipliers of the new and of the skipped operand, and the shift."""
    if not mapped.item.add:
        return 0, 0, 0
    add = mapped.graph.layer(mapped.item.add)
    multiplier = [int(value) for value in mapped.graph.constant(add, "multiplier")]
    if add.inputs[0] != mapped.layer.output:
        multiplier.reverse()
    return multiplier[0], multiplier[1], int(mapped.graph.constant(add, "shift")[0])


def _pool(mapped: Mapped) -> int:
    """0, or what is fused behind: 1 an average, 2 the greatest."""
    if not mapped.item.pool:
        return 0
    return 2 if mapped.graph.layer(mapped.item.pool).operator is Operator.MAX_POOL else 1


def _most_rows(plan: ConvolutionPlan, site: Site) -> int:
    spatial = (ceil_div(plan.conv_rows, plan.tile_rows)
               * ceil_div(plan.conv_columns, plan.tile_columns))
    out_tiles = ceil_div(plan.out_words, plan.tile_out_words)
    in_tiles = ceil_div(plan.in_words, plan.tile_in_words)
    stages = spatial * out_tiles
    loads = stages * in_tiles
    if plan.resident:
        loads = stages if plan.weights_outer else spatial
    weights = out_tiles if plan.weights_outer else stages * in_tiles
    return (1 + stages * (in_tiles + len(site.wires.outputs) + plan.add)
            + loads * len(site.wires.inputs) + weights)


def _choose(chooser: Chooser, layer: Layer) -> LayerMapping | Infeasible:
    """The best tile of a convolution with what it absorbs, or what it misses."""
    overlay, graph, window = chooser.overlay, chooser.graph, layer.window
    source, upsample = layer.inputs[0], ""
    producer = graph.producers.get(source)
    if (producer is not None and producer.operator is Operator.UPSAMPLE
            and chooser.upsample_absorbed(producer)):
        source, upsample = producer.inputs[0], producer.name
    pool, add = _fused_behind(chooser, layer)
    target = (pool or add or layer).output
    skip = ""
    if add is not None:
        skip = next(name for name in add.inputs if name != layer.output)
    chooser.layouts.dense(target)
    spec, out = graph.tensors[source], graph.tensors[layer.output]
    planes = chooser.layouts.planes(source)
    grouped, in_words = 0, ceil_div(planes, chooser.budget.lanes_in)
    out_words = ceil_div(out.channels, overlay.tm)
    group_out, group_in = group_channels(layer, graph)
    if group_in:
        grouped = 1
        in_words = max(
            group_words(word, overlay.tm, overlay.tn, out.channels, group_out, group_in)[1]
            for word in range(out_words))
        planes = min(planes, in_words * chooser.budget.lanes_in)
    if lacks_zero_points(layer, overlay):
        return Infeasible("zero_points", 1, 0, "padding of its own", ("zero_points",), layer.name)
    if out_words * overlay.tm > overlay.parameter_entries // 2:
        return Infeasible("parameter_entries", 2 * out_words * overlay.tm,
                          overlay.parameter_entries, "entries", ("parameter_entries", "tm"))
    found = chooser.timing(Engine.CONVOLUTION, "convolution")
    halved = narrow(layer, graph, overlay)
    shape = ConvolutionShape(
        spec.rows, spec.columns, planes, out.rows, out.columns,
        chooser.layouts.planes(target), in_words, out_words,
        window.rows, window.columns, window.stride, window.padding, int(bool(upsample)),
        int(pool is not None), int(add is not None), overlay.columns,
        overlay.result_cycles,
        weight_word_bytes(overlay, halved), found.fill + found.drain,
        found.interval, overlay.most_in_words or planes,
        1 if grouped else overlay.most_out_words or out_words, grouped, overlay.tile_rows,
        overlay.tile_columns, overlay.loops.taps_per_cycle, 1 + halved,
        int(overlay.loops.reuse is Reuse.NONE))
    chooser.shapes[layer.name] = shape
    best = chooser.search(search, shape)
    if best[0] < 0:
        return _no_convolution_tile(shape, overlay)
    _, out, words, rows, columns, resident, outer = best
    tile = ConvolutionTile(out, words, rows, columns, bool(resident), bool(outer))
    behind = [item.name for item in (pool, add) if item is not None]
    absorbed = (*([upsample] if upsample else []), *behind)
    chooser.absorbed.update(absorbed)
    return LayerMapping(
        layer.name, layer.phase, Engine.CONVOLUTION, (source, *([skip] if skip else [])),
        target, absorbed, upsample, pool.name if pool else "", add.name if add else "", skip,
        tile, best[0])


def _fused_behind(chooser: Chooser, layer: Layer) -> tuple[Layer | None, Layer | None]:
    """The pool or the addition that this convolution absorbs."""
    reader = chooser.single_reader(layer.output)
    if (reader is None or reader.phase is not layer.phase
            or layer.operator is Operator.MATMUL):
        return None, None
    window, spec = reader.window, chooser.graph.tensors[layer.output]
    average = reader.operator is Operator.AVERAGE_POOL and Fusion.POOL in chooser.overlay.fusions
    most = reader.operator is Operator.MAX_POOL and chooser.overlay.loops.fused_max_pool
    if ((most or average) and "multiplier" not in reader.constants and window.padding == 0
            and window.rows == window.columns == window.stride == 2
            and spec.rows % 2 == spec.columns % 2 == 0):
        return reader, None
    if (reader.operator is Operator.ADD and Fusion.ADD in chooser.overlay.fusions
            and not reader.relu and len(set(reader.inputs)) == 2
            and "offset" not in reader.constants
            and len({chooser.graph.tensors[name].bits
                     for name in (*reader.inputs, reader.output)}) == 1):
        other = next(name for name in reader.inputs if name != layer.output)
        if chooser.layouts.known(other) and chooser.layouts.is_dense(other):
            return None, reader
    return None, None


def _grouped(chooser: Chooser, layer: Layer) -> LayerMapping:
    """A convolution in groups, each output word over its own input words, or the host."""
    if not chooser.layouts.is_dense(layer.inputs[0]):
        return chooser.host(layer, f"{layer.inputs[0]!r} has gaps between its channels")
    found = _choose(chooser, layer)
    return chooser.host(layer, str(found)) if isinstance(found, Infeasible) else found


def _matmul(chooser: Chooser, layer: Layer) -> LayerMapping:
    """A 1x1 convolution whose weights are the second operand, or the host."""
    left, right = layer.inputs
    order = WeightOrder.ROWS if right in chooser.turned else WeightOrder.COLUMNS
    operand = chooser.turned[right].inputs[0] if right in chooser.turned else right
    why = _operand_misfit(chooser, layer, operand, order)
    if why:
        return chooser.host(layer, why)
    found = _choose(chooser, layer)
    if isinstance(found, Infeasible):
        return chooser.host(layer, str(found))
    absorbed = (chooser.turned.pop(right).name,) if right in chooser.turned else ()
    return replace(found, inputs=(left, operand), absorbed=absorbed, order=order)


def _operand_misfit(chooser: Chooser, layer: Layer, operand: str, order: WeightOrder) -> str:
    """Why WEIGHT cannot take an activation; empty if it can."""
    overlay, tensors = chooser.overlay, chooser.graph.tensors
    for name in (layer.inputs[0], operand, layer.output):
        if tensors[name].bits != 8:
            return f"{name!r} has {tensors[name].bits} bits, must have 8"
    if (overlay.data_bits, overlay.weight_bits, overlay.channel_block) != (8, 8, 8):
        return "activations become weights only where both have 8 bits, 8 channels a beat"
    for name in (layer.inputs[0], operand):
        if not chooser.layouts.is_dense(name):
            return f"{name!r} has gaps between its channels"
    if order is WeightOrder.ROWS and tensors[operand].channels % overlay.channel_block:
        # Lanes that no channel has may hold anything, on both sides of the product.
        return (f"{operand!r} has {tensors[operand].channels} channels, must be a multiple "
                f"of {overlay.channel_block}")
    return ""


def _no_convolution_tile(shape: ConvolutionShape, overlay: Overlay) -> Infeasible:
    """Which buffer the smallest tile (one word, one row, one column) misses.

    With groups the smallest tile has all input words of one output word.
    """
    words = shape.in_words if shape.grouped else 1
    taps = ceil_div(shape.kernel_rows * shape.kernel_columns * words, shape.weights_a_byte)
    if taps > overlay.weight_words:
        return Infeasible("weight_words", taps, overlay.weight_words, "words",
                          ("weight_words", "tm", "tn"))
    least = min(shape.in_rows, shape.kernel_rows) * min(shape.in_columns, shape.kernel_columns)
    least *= words
    if least > overlay.input_words:
        return Infeasible("input_words", least, overlay.input_words, "words",
                          ("input_words", "tn"))
    if overlay.output_words < 1:
        return Infeasible("output_words", 1, overlay.output_words, "words", ("output_words",))
    return Infeasible("accumulator_words", 4 if shape.pool else 1, overlay.accumulator_words,
                      "words", ("accumulator_words", "weight_words", "input_words"))
