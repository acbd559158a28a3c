"""Checks the integer AGC graph: totals, order, shapes, seeds, and that building is lazy."""

from __future__ import annotations

import numpy as np
import pytest

from workloads.agc.config import SIZES, AgcConfig, conv_table
from workloads.agc.graph import agc_graph, anti_alias_weights, grid_fraction_bits
from workloads.graph import Operator, Phase, multiply_accumulates
from workloads.seeded import SeededConstants
from workloads.verify import verify

TINY = AgcConfig(
    width=4, blocks=2, motion_width=4, motion_max=16, motion_blocks=3, keypoints=3,
    rows=64, cols=96,
)


def test_full_width_totals() -> None:
    """53.643 GMAC whole, 43.363 for an inter frame, 45,558,111 folded parameters."""
    graph = agc_graph(AgcConfig())
    convolutions = [layer for layer in graph.layers if layer.operator is Operator.CONVOLUTION]
    assert len(convolutions) == 30
    macs = [multiply_accumulates(graph, layer) for layer in graph.layers]
    frame = sum(multiply_accumulates(graph, layer) for layer in graph.phase(Phase.FRAME))
    assert round(sum(macs) / 1e6) == 53_643
    assert round(frame / 1e6) == 43_363
    constants = graph.constants
    assert isinstance(constants, SeededConstants)
    parameters = sum(
        int(np.prod(constants.shape_of(layer.constants[role])))
        for layer in convolutions for role in ("weights", "bias"))
    assert parameters == 45_558_111


def test_building_makes_no_weights() -> None:
    """A simulator needs shapes only; 45 MB of weights stay unmade, also when verified."""
    graph = agc_graph(AgcConfig())
    verify(graph)
    constants = graph.constants
    assert isinstance(constants, SeededConstants)
    assert not any(name.endswith(".weights") for name in constants._made)


def test_convolutions_are_those_of_the_table() -> None:
    graph = agc_graph(TINY)
    found = [layer for layer in graph.layers if layer.operator is Operator.CONVOLUTION]
    for layer, shape in zip(found, conv_table(TINY), strict=True):
        out, source = graph.tensors[layer.output], graph.tensors[layer.inputs[0]]
        assert layer.name == shape.name
        assert (source.channels, out.channels) == (shape.in_channels, shape.out_channels)
        assert (out.rows, out.columns, layer.window.rows) == (shape.rows, shape.cols, shape.kernel)
        part = Phase.GROUP if shape.part == "source" else Phase.FRAME
        assert layer.phase is part


@pytest.mark.parametrize(
    "config",
    [TINY, AgcConfig(), AgcConfig(keypoints=20), AgcConfig(rows=128, cols=128), SIZES["t48b3"],
     AgcConfig(width=16, blocks=3, motion_width=16, motion_max=256, motion_blocks=4)],
    ids=["tiny", "full", "20-keypoints", "128x128", "small board", "narrow"],
)
def test_every_size_is_well_formed(config: AgcConfig) -> None:
    graph = agc_graph(config)
    verify(graph)
    assert graph.tensors["heads"].channels == config.head_channels
    assert graph.layer("hourglass_input").inputs == ("heat_maps", "warp_source")
    assert graph.tensors[graph.outputs[0]].shape == (3, config.rows, config.cols)


def test_a_seed_gives_the_same_weights_in_any_order() -> None:
    first, second, other = agc_graph(TINY, 7), agc_graph(TINY, 7), agc_graph(TINY, 8)
    names = list(first.constants)
    for name in names:
        _ = first.constants[name]
    for name in reversed(names):
        assert np.array_equal(first.constants[name], second.constants[name])
    assert not np.array_equal(first.constants["up0.weights"], other.constants["up0.weights"])


def test_grid_digits_hold_twice_the_map() -> None:
    assert grid_fraction_bits(AgcConfig()) == 7
    for rows in (128, 256, 512, 1024):
        config = AgcConfig(rows=rows, cols=rows)
        reach = 2 * config.feature_rows - 1
        assert reach << grid_fraction_bits(config) < 2**15


@pytest.mark.parametrize("factor", [4, 8])
def test_anti_alias_filter_keeps_brightness(factor: int) -> None:
    weights = anti_alias_weights(factor)
    assert weights.sum(dtype=np.int64) == 1 << 15
    assert np.array_equal(weights, weights.T) and (weights >= 0).all()
