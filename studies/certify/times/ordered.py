"""The layers of a network one behind the other at each size of the buffers, as weights come.

It finds no tile; what a layer takes by itself it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from arch_models.overlay import Engine, Role
from cosim.analysis.hosts import HostStep
from cosim.engines import SLICES
from cosim.engines.convolution_search import ConvolutionShape
from cosim.lowering.host_times import host_cycles
from cosim.mapping.tiles import ConvolutionTile, LayerMapping
from studies.certify.layers import Layers, Tiled, must_map
from studies.certify.times.turns import Brought, Turn, ahead, brings, stretches

#: Places of sizes by banks and words, as `np.nonzero` names them; None: of all, in their order.
Places = tuple[np.ndarray, ...] | None


def turn(layers: Layers, item: LayerMapping, cycles: Any, tiled: Tiled | None = None,
         places: Places = None) -> tuple[Turn, Brought]:
    """A layer that takes so many cycles by itself, with the tile of each size, None: whatever
    it is. `places`: of the sizes that are asked for."""
    if tiled is not None:
        brought, computed, after = _by_tile(
            layers, item, tiled, tiled.kinds if places is None else tiled.kinds[places])
    else:
        key = ("turn", layers.like(item))
        if key not in layers.known:
            layers.known[key] = _untiled(layers, item)
        brought, computed, after = layers.known[key]
        brought = Brought(*(_at(each, places) for each in brought))
        computed = _at(computed, places)
    return Turn(_at(cycles, places), brought.cycles, brought.first, computed, after), brought


def _at(found: Any, places: Places) -> Any:
    """Of an array by banks and words what is at some places; a number."""
    if places is None or not np.ndim(found):
        return found
    whole = found.reshape((1,) * (len(places) - found.ndim) + found.shape)
    return whole[tuple(np.minimum(each, length - 1) for each, length in zip(
        places, whole.shape, strict=True))]


def _untiled(layers: Layers, item: LayerMapping) -> tuple[Brought, float, float]:
    """How the master of weights works for a layer at least; cycles from what it brings first to
    the end of the layer, and from what it brings last."""
    rate, wait, done = layers.rates[Role.WEIGHT], layers.wait(Role.WEIGHT), _done(layers)
    assert item.engine is not None
    if item.engine is not Engine.CONVOLUTION:
        work = SLICES[item.engine].least(layers.mapped(item, item.tile))
        return brings(layers.mapped(item, None), rate, wait), work.untiled_cycles + done, 0.0
    shape = layers.chooser.shapes[item.name]
    assert isinstance(shape, ConvolutionShape)
    mapped = layers.mapped(item, ConvolutionTile(
        1 if shape.grouped else shape.out_words, shape.in_words, shape.conv_rows,
        shape.conv_columns, True, False))
    brought, work = brings(mapped, rate, wait), SLICES[item.engine].least(mapped)
    if must_map(mapped.layer):
        words = shape.in_words * shape.out_words * shape.kernel_rows * shape.kernel_columns
        most = layers.words(1) * shape.weights_a_byte
        blocks = -(-words // most)
        brought = brought._replace(
            cycles=brought.cycles + (blocks - 1) * wait,
            first=brought.constants + wait, blocks=blocks,
            block=np.minimum(words, most) * shape.weight_word_bytes / rate + wait)
    return brought, work.untiled_cycles + done, _after(layers, item)


def _by_tile(layers: Layers, item: LayerMapping, tiled: Tiled, kinds: np.ndarray
             ) -> tuple[Brought, np.ndarray, float]:
    """The same with some of the tiles; of none, nothing."""
    rows = np.zeros((len(tiled.tiles) + 1, len(Brought._fields) + 1))
    for number, work in tiled.demands.items():
        if number >= len(tiled.tiles):  # it was asked for later, at other sizes
            continue
        key = ("turn", layers.like(item), tiled.tiles[number])
        if key not in layers.known:
            layers.known[key] = (*brings(
                layers.mapped(item, tiled.tiles[number]), layers.rates[Role.WEIGHT],
                layers.wait(Role.WEIGHT)), work.compute_cycles + _done(layers))
        rows[number] = layers.known[key]
    *brought, computed = np.moveaxis(rows[kinds], -1, 0)
    return Brought(*brought), computed, _after(layers, item)


def _done(layers: Layers) -> int:
    """Cycles of a store at least."""
    return layers.wait(Role.OUTPUT) + 1


def _after(layers: Layers, item: LayerMapping) -> float:
    """Of an operation with the last weights, and of its store."""
    if item.engine is not Engine.CONVOLUTION:
        return 0.0
    cost = layers.chooser.timing(Engine.CONVOLUTION, "convolution")
    return cost.fill + cost.drain + _done(layers)


def all_in_turn(layers: Layers, each: Sequence[tuple[int, Turn, Brought]],
                steps: Sequence[HostStep], places: Places = None) -> Any:
    """Layers in fabric one behind the other, at each size, and the processor's steps; of each
    layer how often a frame has it."""
    held = _ahead(layers, [brought for *_, brought in each], places)
    clock_hz = layers.overlay.clock_hz
    return sum(stretch.cycles((
        turn if time_ns == np.inf else turn._replace(cycles=host_cycles(time_ns, clock_hz))
        for time_ns, turn in stretch.layers), np.maximum) for stretch in stretches(
            [(times, turn._replace(ahead=most)) for (times, turn, _), most in zip(
                each, held, strict=True)], steps))


def _ahead(layers: Layers, each: Sequence[Brought], places: Places) -> list[Any]:
    """Of each layer, at each size, what may be brought for it before it begins."""
    banks = _at(np.array(layers.sizes.banks)[:, 1].reshape(-1, 1, 1, 1, 1), places)
    found: list[Any] = [0.0] * len(each)
    for count in np.unique(banks).tolist():
        found = [np.where(banks == count, here, before) for here, before in zip(
            ahead(each, count), found, strict=True)]
    return found
