"""Is every chosen tile legal and the best of all legal tiles, and is nothing fused wrongly?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.overlay import Engine, Fusion, Infeasible, default_overlay
from cosim.engines import SLICES
from cosim.engines.convolution_search import ConvolutionShape, search
from cosim.mapping import tile_search
from cosim.mapping.choose import budget_of, choose_mapping
from cosim.mapping.tiles import ConvolutionTile, Mapping
from tests.support.tiny_graphs import TinyGraph
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, Phase

BASE = default_overlay()
BOARD = load_board("pynq-z1")
FRAME = (Phase.FRAME,)


def mapped(graph: Graph, overlay=BASE) -> Mapping:
    found = choose_mapping(graph, overlay, BOARD, FRAME, SLICES)
    assert isinstance(found, Mapping), found
    return found


def test_the_full_frame_maps_every_layer_once() -> None:
    graph = agc_graph(AgcConfig())
    found = mapped(graph)
    names = [name for item in found.layers for name in (item.name, *item.absorbed)]
    wanted = [layer.name for layer in graph.layers
              if layer.phase.value == "frame" and layer.operator.value != "concat"]
    assert sorted(names) == sorted(wanted)
    hosts = {item.name for item in found.layers if item.engine is None}
    assert hosts == {"displacements", "heat_maps", "sparse_flow"}


def test_tiles_stay_inside_the_buffers() -> None:
    graph = agc_graph(AgcConfig())
    for item in mapped(graph).layers:
        if not isinstance(item.tile, ConvolutionTile):
            continue
        tile, window = item.tile, graph.layer(item.name).window
        taps = window.rows * window.columns
        assert tile.out_words * tile.in_words * taps <= BASE.weight_words
        stored = tile.rows * tile.columns // (4 if item.pool else 1)
        assert tile.out_words * stored <= BASE.output_words
        if item.pool:
            assert tile.rows % 2 == tile.columns % 2 == 0


def brute_force(shape: ConvolutionShape, budget: tile_search.Budget) -> float:
    """The least cost over every tile size of every axis, by the search's own kernel."""
    best = -1.0
    for rows in range(1, shape.conv_rows + 1):
        for columns in range(1, shape.conv_columns + 1):
            for out in range(1, shape.out_words + 1):
                for words in range(1, shape.in_words + 1):
                    one = search(shape._replace(
                        fixed_rows=rows, fixed_columns=columns, most_out_words=out,
                        most_in_words=words), budget)
                    if one[0] >= 0 and (best < 0 or one[0] < best):
                        best = one[0]
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_search_is_as_good_as_every_tile(seed: int) -> None:
    draw = np.random.default_rng(seed)
    size = int(draw.integers(4, 9))
    kernel = int(draw.choice([1, 3]))
    shape = ConvolutionShape(
        size, size, 4, size, size, 6, 4, 3, kernel, kernel, 1, kernel // 2, 0, 0,
        int(draw.integers(2)), 1, 8 * (seed % 2), 128, 20, 1, 4, 3, 0, 0, 0)
    budget = budget_of(replace(
        BASE, input_words=int(draw.integers(30, 200)), output_words=int(draw.integers(10, 100)),
        weight_words=int(draw.integers(kernel * kernel, 60)),
        accumulator_words=int(draw.integers(10, 100)),
        input_banks=int(draw.integers(1, 3))), BOARD)
    found = search(shape, budget)
    assert found[0] >= 0
    # Unequal tiles have no advantage here: the cost counts whole layers.
    assert found[0] <= brute_force(shape, budget) * (1 + 1e-12)


@pytest.mark.parametrize(("change", "field"), [
    ({"weight_words": 8}, "weight_words"), ({"input_words": 8}, "input_words"),
    ({"parameter_entries": 16}, "parameter_entries"),
])
def test_a_convolution_that_fits_nowhere_says_why(change: dict, field: str) -> None:
    tiny = TinyGraph(0, 16, 8, 8)
    graph = tiny.graph(tiny.convolution("conv", "in", 16, 3, 1, 1))
    found = choose_mapping(graph, replace(BASE, **change), BOARD, FRAME, SLICES)
    assert isinstance(found, Infeasible)
    assert found.field == field and field in found.levers and "conv" in found.where
    assert found.demand > found.bound


def test_too_many_channels_are_a_value_not_a_crash() -> None:
    masters = [replace(BASE.masters[0], name=f"input_{index}") for index in range(4)]
    overlay = replace(BASE, masters=(*masters, *BASE.masters[1:]))
    found = choose_mapping(agc_graph(AgcConfig()), overlay, BOARD, FRAME, SLICES)
    assert isinstance(found, Infeasible) and found.field == "channels"


def test_fusion_needs_a_single_reader_and_the_switch() -> None:
    tiny = TinyGraph(0, 8, 8, 8)
    conv = tiny.convolution("conv", "in", 8, 3, 1, 1)
    pool = tiny.pool("pool", conv)
    alone = tiny.graph(pool)
    assert mapped(alone).layers[0].absorbed == ("pool",)
    assert mapped(alone, replace(BASE, fusions=frozenset({Fusion.ADD}))).layers[0].absorbed == ()
    other = tiny.convolution("other", conv, 8, 1)
    shared = tiny.graph(pool, other)
    assert mapped(shared).layers[0].absorbed == ()
    seen_outside = Graph("tiny", ("in",), (pool, conv), alone.tensors, alone.layers,
                         alone.constants)
    assert mapped(seen_outside).layers[0].absorbed == ()


def test_an_addition_is_not_fused_before_its_other_operand_exists() -> None:
    tiny = TinyGraph(0, 8, 8, 8)
    early = tiny.convolution("early", "in", 8, 1)
    late = tiny.convolution("late", "in", 8, 1)
    graph = tiny.graph(tiny.sum("sum", early, late))
    found = {item.name: item.add for item in mapped(graph).layers}
    assert found == {"early": "", "late": "sum"}


def test_what_has_no_engine_in_fabric_runs_on_the_host() -> None:
    graph = agc_graph(AgcConfig())
    found = mapped(graph, replace(BASE, engines=frozenset({Engine.CONVOLUTION})))
    engines = {item.name: item.engine for item in found.layers}
    assert engines["warp_features"] is None and engines["mask_softmax"] is None
    assert engines["res0.conv1"] is Engine.CONVOLUTION
