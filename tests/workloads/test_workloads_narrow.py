"""Do 4-bit weights have 15 values, and do the layers that lose least get them?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, Operator
from workloads.quantization.narrow import four_bits, least_sensitive, narrowed
from workloads.reference import execute, execute_layer

TINY = AgcConfig(width=4, blocks=1, motion_width=4, motion_max=16, motion_blocks=1, keypoints=2,
                 rows=32, cols=32)


def tiny() -> tuple[Graph, dict[str, np.ndarray]]:
    graph = agc_graph(TINY)
    random = np.random.default_rng(3)
    inputs = {name: random.integers(-99, 100, graph.tensors[name].shape).astype(
        np.int16 if graph.tensors[name].bits == 16 else np.int8) for name in graph.inputs}
    return graph, execute(graph, inputs)


def weight_counts(graph: Graph) -> dict[str, int]:
    return {layer.name: graph.constant(layer, "weights").size for layer in graph.layers
            if layer.operator is Operator.CONVOLUTION}


def test_every_channel_has_fifteen_levels_at_most_and_errs_by_half_a_step():
    weights = np.random.default_rng(1).integers(-127, 128, (5, 8, 3, 3)).astype(np.int8)
    found, steps = four_bits(weights)
    assert np.abs(found).max() <= 7
    for before, after, step in zip(weights, found, steps, strict=True):
        inside = np.abs(before.astype(int)) <= 7 * step
        assert np.abs(before.astype(int) - after.astype(int) * step)[inside].max() <= step / 2


def test_four_bit_weights_stay_as_they_are():
    weights = np.random.default_rng(2).integers(-7, 8, (6, 4, 3, 3)).astype(np.int8) * np.int8(11)
    found, steps = four_bits(weights)
    assert np.array_equal(found * steps[:, None, None, None], weights)


def test_steps_go_into_bias_and_multiplier():
    """A layer whose weights are whole steps loses no more than the rounding of its bias."""
    graph, values = tiny()
    name = next(iter(weight_counts(graph)))
    layer = graph.layer(name)
    shape = graph.constant(layer, "weights").shape
    codes = np.random.default_rng(4).integers(-7, 8, shape, np.int8)
    for multiplier, shift in ((1, 9), (30_011, 24)):
        constants = {"weights": codes * np.int8(13), "multiplier": multiplier, "shift": shift,
                     "bias": 13 * np.arange(len(codes))}
        given = replace(graph, constants=dict(graph.constants) | {
            layer.constants[role]: np.broadcast_to(
                value, graph.constant(layer, role).shape).astype(graph.constant(layer, role).dtype)
            for role, value in constants.items()})
        found = narrowed(given, [name])
        assert found.narrow_layers == {name} and not given.narrow_layers
        assert found.constant(layer, "multiplier").max() < 1 << 15
        inputs = [values[item] for item in layer.inputs]
        before, after = (execute_layer(item, layer, inputs).astype(int) for item in (given, found))
        assert np.abs(before - after).max() <= (multiplier > 1) and before.std() > 1


def test_only_the_named_layers_change():
    graph, _ = tiny()
    name = next(iter(weight_counts(graph)))
    found = narrowed(graph, [name])
    changed = {layer.name for layer in graph.layers if "weights" in layer.constants
               and not np.array_equal(graph.constant(layer, "weights"),
                                      found.constant(layer, "weights"))}
    assert changed == {name}


def test_the_chosen_layers_hold_the_share_and_no_more_than_needed():
    graph, values = tiny()
    sizes = weight_counts(graph)
    chosen = least_sensitive(graph, values, 0.5)
    held = [sizes[name] for name in chosen]
    assert sum(held) >= 0.5 * sum(sizes.values()) > sum(held[:-1])
    assert least_sensitive(graph, values, 0.0) == ()
    assert set(least_sensitive(graph, values, 1.0)) == set(sizes)
    assert least_sensitive(narrowed(graph, sizes), values, 0.5) != ()


def test_a_layer_that_loses_nothing_comes_first():
    graph, _ = tiny()
    name = list(weight_counts(graph))[-1]
    done = narrowed(graph, [name])
    random = np.random.default_rng(3)
    inputs = {key: random.integers(-99, 100, graph.tensors[key].shape).astype(
        np.int16 if graph.tensors[key].bits == 16 else np.int8) for key in graph.inputs}
    assert least_sensitive(done, execute(done, inputs), 1e-9) == (name,)
