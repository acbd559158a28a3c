"""What layers take at least at each size of the buffers, whatever their tiles; docs/proof.md has
the reasons (`banked`, `streamed`).

It finds no tile and adds no layers up. Results span a table; an axis of sizes that do not count has
length 1.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np

from arch_models.overlay import Engine, Role
from cosim.engines import SLICES
from cosim.engines.base import input_bytes
from cosim.engines.convolution_search import ConvolutionShape
from cosim.mapping.choose import work_of
from cosim.mapping.tiles import ConvolutionTile, LayerMapping
from studies.certify.layers import Layers, must_map
from studies.certify.untiled import first_bytes
from workloads.graph import Operator

#: Layers each of whose results needs what lies at its own position, of one operand.
POINTWISE = frozenset({Operator.AFFINE, Operator.LOOKUP, Operator.REQUANTIZE})


class Work(NamedTuple):
    """Cycles of all loads, trips and stores of a layer, of the loads before its first trip if it
    were one tile, of fill and drain of an operation, and of a load and a store besides."""

    loads: float
    trips: float
    stores: float
    first: float
    overhead: float
    load: int
    store: int


def least(layers: Layers, item: LayerMapping, cycles: int) -> Any:
    """Of any layer in fabric; `cycles`: what is known of all sizes."""
    key = ("banked", layers.like(item))
    if key not in layers.known:
        layers.known[key] = (banked if must_map(layers.graph.layer(item.name)) else _streamed)(
            layers, item)
    return np.maximum(cycles, layers.known[key])


def banked(layers: Layers, item: LayerMapping) -> np.ndarray:
    """Of a convolution without groups."""
    shape = layers.chooser.shapes[item.name]
    assert isinstance(shape, ConvolutionShape)
    mapped = layers.mapped(item, ConvolutionTile(
        shape.out_words, shape.in_words, shape.conv_rows, shape.conv_columns, True, False))
    work, wait = SLICES[Engine.CONVOLUTION].least(mapped), layers.wait
    cost = layers.chooser.timing(Engine.CONVOLUTION, "convolution")
    banks = np.array(layers.sizes.banks, np.int64).T.reshape(3, -1, 1, 1, 1, 1)
    inputs, weights, outputs = map(layers.words, range(3))
    read = input_bytes(mapped) // (layers.overlay.position_bytes * shape.in_planes)
    made = shape.conv_rows * shape.conv_columns // (4 if shape.pool else 1)
    words = shape.in_words * shape.out_words * shape.kernel_rows * shape.kernel_columns
    loads = -(-shape.in_words * read // inputs)
    stores = -(-shape.out_words * made // outputs)
    blocks = -(-words // (weights * shape.weights_a_byte))
    places = np.maximum(-(-read // inputs), -(-made // outputs))
    rate, write = layers.rates[Role.INPUT], layers.rates[Role.OUTPUT]
    skip = work.store_bytes if item.add else 0
    stored = work.store_bytes / write + stores * wait(Role.OUTPUT)
    held = weights * banks[1] * layers.overlay.tm * layers.overlay.tn * (
        layers.overlay.weight_bits // 8)
    first = first_bytes(mapped) / rate
    overhead = cost.fill + cost.drain

    begin, end = wait(Role.INPUT), wait(Role.OUTPUT) + 1

    def least(inputs_again: Any, weights_again: Any, operations: Any) -> np.ndarray:
        loaded = (inputs_again * (work.load_bytes - skip) / rate
                  + inputs_again * loads * wait(Role.INPUT))
        brought = (np.maximum(0, weights_again * work.weight_bytes - held)
                   / layers.rates[Role.WEIGHT]
                   + np.maximum(0, weights_again * blocks - banks[1]) * wait(Role.WEIGHT))
        tiles = np.maximum(operations, np.sqrt(first / max(1, overhead)))
        done = work.trips * cost.interval
        beside = np.maximum(np.where(banks[2] == 1, stored, 0),
                            np.where(banks[1] == 1, brought, 0))
        one = done + operations * overhead + min(begin, end) + np.maximum(
            beside, np.where(banks[0] == 1, loaded, 0))
        two = (begin + first / tiles + done + tiles * overhead
               + np.where(banks[2] == 1, stored, end))
        return np.maximum.reduce(np.broadcast_arrays(
            one, two, loaded + skip / rate + bool(skip) * stores * begin + overhead + end,
            begin + overhead + stored, brought + overhead + end))

    once = np.maximum(loads, stores)
    cut = np.minimum(least(blocks, 1, np.maximum(loads * blocks, stores)),
                     least(1, places, np.maximum(places * blocks, once)))
    return np.where(blocks == 1, least(1, 1, once), cut).astype(np.int64)


def _streamed(layers: Layers, item: LayerMapping) -> Any:
    """Of a layer whose operations each load, compute and store a tile; 0 of others."""
    mapped, overlay = layers.mapped(item, item.tile), layers.overlay
    layer, engine = mapped.layer, item.engine
    assert engine is not None
    array = engine is Engine.CONVOLUTION
    operator = (engine.value if layer.operator is Operator.CONVOLUTION
                else work_of(layers.graph, layer).operator)
    if overlay.tensor_memory_kib or not (
            layer.operator in POINTWISE or (layer.operator is Operator.CONVOLUTION
            and (not array or layer.window.groups > 1))):
        return 0
    least = 1
    if array:
        shape = layers.chooser.shapes[item.name]
        assert isinstance(shape, ConvolutionShape)
        least = shape.out_words  # an operation has one
        mapped = layers.mapped(item, ConvolutionTile(
            shape.out_words, shape.in_words, shape.conv_rows, shape.conv_columns, False, False))
    cost = layers.chooser.timing(engine, operator)
    work, overhead = SLICES[engine].least(mapped), cost.fill + cost.drain
    trips = work.untiled_cycles - overhead * (layer.operator is Operator.CONVOLUTION)
    loads = work.load_bytes / layers.rates[Role.INPUT]
    known = Work(loads, trips, work.store_bytes / layers.rates[Role.OUTPUT],
                 0.0 if array else loads if layer.operator in POINTWISE
                 else first_bytes(mapped) / layers.rates[Role.INPUT],
                 overhead, layers.wait(Role.INPUT), layers.wait(Role.OUTPUT))
    bank = overlay.position_bytes / overlay.channel_block
    tiles = np.maximum.reduce(np.broadcast_arrays(
        least, np.ceil(work.load_bytes / (layers.words(0) * overlay.tn * bank)),
        np.ceil(work.store_bytes / (layers.words(2) * overlay.tm * bank)))).astype(np.int64)
    return _best(known, layer.operator in POINTWISE, tiles, np.array(layers.sizes.banks))


def _best(work: Work, pointwise: bool, least: np.ndarray, banks: np.ndarray) -> np.ndarray:
    """At the best number of tiles of some or more; `banks`: of INPUT, WEIGHT and OUTPUT."""
    # Each way to go through the layer is convex in their number, and grows from this one on.
    most = sqrt((work.loads + 2 * work.trips + work.stores + work.first)
                / max(1, min(work.overhead, work.load, work.store)))
    tiles = np.arange(1, max(ceil(most), int(least.max())) + 2)
    end = work.store + 1
    loads, trips, stores = (work.loads + tiles * work.load, work.trips + tiles * work.overhead,
                            work.stores + tiles * work.store)
    first = work.first / tiles + work.load
    ways = [first + trips + end, loads + work.overhead + end, first + work.overhead + stores]
    if pointwise:
        ways.append(min(work.loads, work.stores) * (1 + 1 / tiles) + work.trips / tiles
                    + work.overhead + (tiles + 1) * min(work.load, work.store))
    free = np.maximum.reduce(ways)
    found = np.zeros((len(banks), *least.shape))
    for place, (one, _, other) in enumerate(banks.tolist()):
        each = [free]
        if one == 1:
            each.append(loads + trips + end)
        if other == 1:
            each.append(first + trips + stores)
        behind = np.minimum.accumulate(np.maximum.reduce(each)[::-1])[::-1]
        found[place] = behind[least - 1]
    return found.astype(np.int64)
