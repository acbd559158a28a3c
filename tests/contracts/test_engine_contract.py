"""Does every engine model honour the seam: integers, a floor, determinism, refusal, and rows?"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.engines import MODELS, EngineModel, Tile, Work, engines_that_run
from arch_models.fields import FieldError
from arch_models.overlay import Engine, Overlay, default_overlay, load_overlay
from cosim.build import build
from cosim.lowering.lower import Lowered
from cosim.mapping.choose import work_of
from cosim.program.table import ARGUMENTS, Column, Opcode
from tests.support.source import CPP, MODULES, ROOT
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import unicorn_graph

UNICORN = UnicornConfig(width=16, multipliers=(1, 2), blocks=1, attention_factors=(2,),
                        head_channels=16, embedding=32, latent_rows=16, latent_cols=16,
                        decoder_widths=(16, 8), images=4, groups=4)
WORKS = {
    Engine.CONVOLUTION: (Work("convolution", 3, 3, 1, 1), Work("convolution", 7, 7, 2, 3),
                         Work("convolution", 3, 3, groups=3), Work("matmul")),
    Engine.ELEMENTWISE: (Work("add"), Work("multiply"), Work("affine", relu=True),
                         Work("flow_sum")),
    Engine.LOOKUP: (Work("lookup"),),
    Engine.POOL: (Work("average_pool", 2, 2, 2), Work("max_pool", 3, 3, 2, 1)),
    Engine.UPSAMPLE: (Work("upsample"),),
    Engine.SOFTMAX: (Work("softmax"),),
    Engine.GRID_SAMPLE: (Work("grid_sample"),),
    Engine.NORM: (Work("group_sums"), Work("group_norm")),
    Engine.DEPTHWISE: (Work("convolution", 3, 3, 1, 1, groups=8, depthwise=True),
                       Work("convolution", 5, 5, 2, 2, groups=8, depthwise=True)),
}
CASES = [(model, work) for model in MODELS for work in WORKS[model.engine]]
TILES = (Tile(1, 1), Tile(4, 6, 3, 24, 2, 5, groups=2), Tile(16, 16, 8, 64, 8, 1))
DESIGNS = (default_overlay(), replace(default_overlay(), tm=24, tn=16, columns=4))
REFUSED = (Work("heat_maps"), Work("sampler"),
           Work("add", relu=True), Work("average_pool", 3, 3, 2, 1),
           Work("average_pool", 2, 2, 2, scaled_pool=True))


@pytest.mark.parametrize(("model", "work"), CASES)
@pytest.mark.parametrize("overlay", DESIGNS, ids=lambda item: f"{item.tm}x{item.tn}")
def test_costs_are_positive_integers_and_repeat(model: EngineModel, work: Work,
                                                overlay: Overlay) -> None:
    for tile in TILES:
        cost = model.cost(work, tile, overlay)
        for value in (cost.fill, cost.interval, cost.trips, cost.drain):
            assert isinstance(value, int) and value >= 0
        assert cost.cycles >= 1 and cost.interval >= 1 and cost.trips >= 1
        assert cost == model.cost(work, tile, overlay)


@pytest.mark.parametrize("overlay", DESIGNS, ids=lambda item: f"{item.tm}x{item.tn}")
def test_a_convolution_never_beats_its_multipliers(overlay: Overlay) -> None:
    model = next(item for item in MODELS if item.engine is Engine.CONVOLUTION)
    for work in WORKS[Engine.CONVOLUTION]:
        for tile in TILES:
            macs = (tile.rows * tile.columns * tile.in_words * overlay.tn * tile.out_words
                    * overlay.tm * work.kernel_rows * work.kernel_columns)
            assert model.cost(work, tile, overlay).cycles >= macs / overlay.macs_per_cycle


@pytest.mark.parametrize("work", REFUSED, ids=str)
def test_work_that_no_engine_supports_is_refused(work: Work) -> None:
    assert engines_that_run(work) == ()
    for model in MODELS:
        with pytest.raises(FieldError, match="does not run"):
            model.cost(work, TILES[0], DESIGNS[0])


@pytest.mark.parametrize("model", MODELS, ids=lambda item: item.engine.value)
def test_sites_are_counts_and_grow_with_the_array(model: EngineModel) -> None:
    small, large = (model.resources(item) for item in DESIGNS)
    for name in ("dsp", "lut", "ff"):
        assert isinstance(getattr(small, name), int)
        assert 0 <= getattr(small, name) <= getattr(large, name)
    assert small.lut > 0 and small.ff > 0 and small.bram36 >= 0


AGC_ENGINES = {Engine.CONVOLUTION, Engine.ELEMENTWISE, Engine.LOOKUP, Engine.SOFTMAX,
               Engine.GRID_SAMPLE}


@pytest.mark.parametrize(("network", "overlay", "expected"), (
    ("agc", default_overlay(), AGC_ENGINES),
    ("agc", replace(default_overlay(), tm=24, columns=2, input_words=5000, fusions=frozenset()),
     AGC_ENGINES),
    ("unicorn", replace(load_overlay("diffusion"), input_words=500, output_words=300),
     {Engine.CONVOLUTION, Engine.LOOKUP, Engine.SOFTMAX, Engine.NORM})),
    ids=("default", "nothing fused", "diffusion"))
def test_rows_of_a_program_cost_what_the_engine_says(network: str, overlay: Overlay,
                                                     expected: set[Engine]) -> None:
    graph = unicorn_graph(UNICORN) if network == "unicorn" else agc_graph(
        AgcConfig(width=16, motion_width=16, motion_max=256))
    lowered = build(graph, overlay, load_board("pynq-z1"), steps=1)
    assert isinstance(lowered, Lowered)
    mapping, program = lowered.mapping, lowered.program
    table, seen = program.operations, set()
    engines = {model.engine: model for model in MODELS}
    for row in np.flatnonzero(table[:, Column.TRIPS]):
        item = mapping.layers[int(table[row, Column.LAYER])]
        assert item.engine is not None
        layer = graph.layer(item.name)
        work = work_of(graph, layer)
        opcode = Opcode(int(table[row, Column.KIND]))
        given = dict(zip(ARGUMENTS[opcode], program.arguments[row].tolist(), strict=False))
        if opcode is Opcode.GROUP_SUMS:
            work = Work("group_sums")
        tile = tile_of_row(opcode, given, work, graph.tensors[layer.inputs[0]].channels)
        cost = engines[item.engine].cost(work, tile, overlay)
        assert cost.fill == table[row, Column.FILL], item.name
        assert cost.interval == table[row, Column.INTERVAL], item.name
        assert cost.trips == table[row, Column.TRIPS], item.name
        assert cost.drain == table[row, Column.DRAIN], item.name
        seen.add(item.engine)
    assert expected <= seen


def tile_of_row(opcode: Opcode, given: dict[str, int], work: Work, channels: int) -> Tile:
    if opcode is Opcode.CONVOLUTION:
        return Tile(given["out_rows"], given["out_columns"], in_words=given["in_words"],
                    out_words=given["out_words"])
    if opcode is Opcode.AVERAGE_POOL:
        return Tile(given["in_rows"] // work.stride, given["in_columns"] // work.stride,
                    given["planes"])
    if opcode is Opcode.UPSAMPLE:
        return Tile(2 * given["in_rows"], 2 * given["in_columns"], given["planes"])
    if opcode is Opcode.GROUP_SUMS:
        groups = given["channels"] // given["group_channels"] if given["last"] else 0
        return Tile(1, given["positions"], given["planes"], given["channels"], groups=groups)
    return Tile(1, given["positions"], given.get("planes", -(-channels // 8)), channels)


#: Where an engine is named outside its own files; docs/extending.md gives the reasons.
NAMED_IN = {
    "arch_models/overlay.py", "arch_models/engines/__init__.py", "arch_models/engines/base.py",
    "cosim/engines/__init__.py", "cosim/program/table.py", "hw/hls/engines.hpp",
    "hw/hls/check.cpp", "hw/rtl/engines/__init__.py", "hw/rtl_sim/tiles.py"}


def test_an_engine_is_named_in_few_files_besides_its_own() -> None:
    """Grids, fits, energy, axes and the mapper follow from the engines' tables."""
    named = {path.as_posix() for path in (*MODULES, *CPP) if path.stem != "depthwise"
             and re.search("depthwise", (ROOT / path).read_text("utf-8"), re.IGNORECASE)}
    # The word also names a convolution of the picture's own filter.
    assert named - {"workloads/agc/torch.py"} == NAMED_IN
