"""Does a lowered program compute what the graph means, bit for bit, in any legal order?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.overlay import (
    Engine,
    Fetch,
    Layout,
    Overlay,
    Role,
    Start,
    default_overlay,
    load_overlay,
)
from cosim.analysis.interpret import interpret
from cosim.engines import SLICES
from cosim.lowering.lower import lower
from cosim.lowering.packing import pack_tensor, unpack_tensor
from cosim.lowering.placement import PlacementError
from cosim.mapping.choose import choose_mapping
from cosim.mapping.tiles import ConvolutionTile, Mapping
from cosim.program.table import Column, Opcode, layer_macs
from cosim.program.verify import verify
from tests.support.tiny_graphs import SMALL, TinyGraph, tiny_agc
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, Phase, multiply_accumulates
from workloads.library import load
from workloads.reference import execute
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import NEXT_LATENT, OUTPUT, unicorn_graph
from workloads.unicorn.run import decode, fixed_inputs, index_vector, quantized, step_inputs

BOARD = load_board("pynq-z1")
BASE = default_overlay()
MASTERS = BASE.masters
DESIGNS: dict[str, Overlay] = {
    "default": BASE,
    "small": SMALL,
    "wide": replace(BASE, tm=24, tn=16, input_words=200, weight_words=70, output_words=50,
                    accumulator_words=40, columns=2),
    "one bank": replace(SMALL, input_banks=1, weight_banks=1, output_banks=1),
    "nothing fused": replace(SMALL, fusions=frozenset(), input_words=300, output_words=140),
    "two masters": replace(SMALL, input_words=300, masters=(
        *MASTERS, replace(MASTERS[0], name="input_2", port="HP3"))),
    "two writers": replace(
        SMALL, input_words=300, engines=BASE.engines - {Engine.POOL, Engine.UPSAMPLE},
        masters=(*MASTERS, replace(MASTERS[2], name="output_2", port="HP3"))),
    "host": replace(SMALL, engines=frozenset({Engine.CONVOLUTION})),
    "start a layer": replace(SMALL, layout=Layout.BANK_SPREAD,
                             control=replace(BASE.control, start=Start.LAYER)),
    "fetch": replace(SMALL, fetch=Fetch.DRAM, masters=(
        *MASTERS, replace(MASTERS[1], name="fetch", role=Role.FETCH))),
}


def mapped(graph: Graph, overlay: Overlay, phases=(Phase.FRAME,)) -> Mapping:
    mapping = choose_mapping(graph, overlay, BOARD, phases, SLICES)
    assert isinstance(mapping, Mapping), mapping
    return mapping


@pytest.fixture(scope="module")
def agc() -> tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    return tiny_agc()


@pytest.mark.parametrize("name", DESIGNS)
def test_a_whole_decoder_equals_the_reference(name: str, agc) -> None:
    graph, inputs, expected = agc
    overlay = DESIGNS[name]
    assert expected["picture"].std() > 5
    for phases, frames in (((Phase.GROUP, Phase.FRAME), 2), ((Phase.FRAME,), 1)):
        lowered = lower(graph, overlay, BOARD, mapped(graph, overlay, phases), frames)
        verify(lowered.program)
        given = inputs | {key: expected[key] for key in ("features", "small")
                          if Phase.GROUP not in phases}
        found = interpret(lowered, graph, overlay, given, seed=frames)
        assert np.array_equal(found["picture"], expected["picture"])


def test_the_shipped_narrow_decoder_equals_the_reference() -> None:
    graph = load("agc-w16")
    draw = np.random.default_rng(0)
    inputs = {"source": draw.integers(0, 128, (3, 256, 256)).astype(np.int8)}
    for name in ("keypoints_source", "keypoints_driving"):
        inputs[name] = draw.integers(-9000, 9000, (2, 10, 1)).astype(np.int16)
    expected = execute(graph, inputs)
    lowered = lower(graph, BASE, BOARD, mapped(graph, BASE))
    found = interpret(lowered, graph, BASE, inputs | {
        name: expected[name] for name in ("features", "small")})
    assert np.array_equal(found["picture"], expected["picture"])


def random_case(seed: int) -> tuple[Graph, dict[str, np.ndarray], Overlay]:
    """A convolution of random sizes in a random surrounding, on a random small overlay."""
    draw = np.random.default_rng(seed)
    kernel = int(draw.choice([1, 3, 7]))
    tiny = TinyGraph(seed, int(draw.integers(1, 40)), int(draw.integers(4, 14)),
                     int(draw.integers(4, 14)))
    value, form = "in", int(draw.integers(5))
    if form == 1:
        value = tiny.upsample("up", value)
    if form == 4:
        value = tiny.concat("both", tiny.convolution("left", value, 5, 1),
                            tiny.convolution("right", value, 11, 3, 1, 1))
    stride = int(draw.choice([1, 1, 2])) if form == 0 else 1
    out = int(draw.integers(1, 40))
    before = tiny.convolution("before", value, out, 1) if form == 3 else ""
    value = tiny.convolution("conv", value, out, kernel, stride,
                             int(draw.integers(kernel // 2 + 1)) if form == 0 else kernel // 2,
                             bool(draw.integers(2)))
    if form == 2 and tiny.tensors[value].rows % 2 == tiny.tensors[value].columns % 2 == 0:
        value = tiny.pool("pool", value)
    if form == 3:
        value = tiny.sum("sum", *((value, before) if draw.integers(2) else (before, value)))
    overlay = replace(
        BASE, tm=int(draw.choice([8, 16, 24])), tn=int(draw.choice([8, 16, 24])),
        columns=int(draw.choice([1, 2, 4])), input_words=int(draw.integers(60, 500)),
        weight_words=int(draw.integers(49, 150)), output_words=int(draw.integers(8, 200)),
        accumulator_words=int(draw.integers(8, 200)), input_banks=int(draw.integers(1, 3)),
        weight_banks=int(draw.integers(1, 3)), output_banks=int(draw.integers(1, 3)))
    return tiny.graph(value), tiny.inputs(), overlay


@pytest.mark.parametrize("seed", range(60))
def test_random_convolutions_equal_the_reference(seed: int) -> None:
    graph, inputs, overlay = random_case(seed)
    expected = execute(graph, inputs)
    lowered = lower(graph, overlay, BOARD, mapped(graph, overlay))
    verify(lowered.program)
    found = interpret(lowered, graph, overlay, inputs, seed)
    name = graph.outputs[0]
    assert np.array_equal(found[name], expected[name])
    macs = layer_macs(lowered.program)
    for index, item in enumerate(lowered.mapping.layers):
        layer = graph.layer(item.name)
        assert macs[index] == multiply_accumulates(graph, layer)


#: Groups, channels of a group in and out: depthwise, with a multiplier, wide and odd groups.
GROUPS = ((20, 1, 1), (16, 1, 2), (5, 3, 2), (2, 24, 40), (3, 7, 16), (4, 8, 8))


@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("name", ["default", "small", "wide", "one bank", "two masters"])
def test_convolutions_in_groups_equal_the_reference(case: tuple[int, int, int],
                                                    name: str) -> None:
    groups, group_in, group_out = case
    tiny = TinyGraph(groups, groups * group_in, 10, 12)
    value = tiny.convolution("conv", "in", groups * group_out, 3, 1, 1, groups=groups)
    value = tiny.pool("pool", value)
    value = tiny.convolution("after", value, groups * group_out, 3, 1, 1, groups=groups)
    value = tiny.sum("sum", value, "pool")
    graph, inputs, overlay = tiny.graph(value), tiny.inputs(), DESIGNS[name]
    lowered = lower(graph, overlay, BOARD, mapped(graph, overlay))
    verify(lowered.program)
    found = interpret(lowered, graph, overlay, inputs, groups)
    assert np.array_equal(found[value], execute(graph, inputs)[value])
    # The second convolution of the widest odd groups needs 10 input words an output word.
    hosts = [item.why_host for item in lowered.mapping.layers if item.engine is None]
    assert all(why.startswith("weight_words needs 90 words, bound 64") for why in hosts)
    assert len(hosts) == int(group_out == 40 and overlay.weight_words == 64 and overlay.tm == 16)
    macs = layer_macs(lowered.program)
    for index, item in enumerate(lowered.mapping.layers):
        assert macs[index] == multiply_accumulates(graph, graph.layer(item.name))


def test_streaming_layers_equal_the_reference() -> None:
    tiny = TinyGraph(3, 20, 12, 10)
    value = tiny.affine("affine", "in")
    value = tiny.max_pool("max", value, 3, 2, 1)
    value = tiny.upsample("up", value)
    value = tiny.pool("average", value)
    value = tiny.sum("sum", value, "max")
    graph, inputs = tiny.graph(value), tiny.inputs()
    expected = execute(graph, inputs)
    for overlay in (BASE, replace(SMALL, tn=16)):
        lowered = lower(graph, overlay, BOARD, mapped(graph, overlay))
        found = interpret(lowered, graph, overlay, inputs)
        assert np.array_equal(found["sum"], expected["sum"])


UNICORN = UnicornConfig(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,),
                        head_channels=8, embedding=32, latent_rows=8, latent_cols=8,
                        decoder_widths=(16, 8), images=4, groups=4, steps=3)
DIFFUSION = load_overlay("diffusion")
UNICORN_DESIGNS: dict[str, Overlay] = {
    "default": BASE,  # group norms on the host
    "diffusion": DIFFUSION,
    "host": replace(BASE, engines=frozenset({Engine.CONVOLUTION})),
    "small": replace(DIFFUSION, tm=8, tn=16, input_words=80, weight_words=80, output_words=40,
                     accumulator_words=64),
    "padded words": replace(DIFFUSION, tm=24, tn=24, input_words=150, weight_words=80,
                            output_words=20, columns=2),
    "one bank": replace(DIFFUSION, input_banks=1, weight_banks=1, output_banks=1,
                        input_words=150, output_words=60),
    "two masters": replace(DIFFUSION, input_words=150, engines=DIFFUSION.engines - {
        Engine.UPSAMPLE}, masters=(*MASTERS, replace(MASTERS[0], name="input_2", port="HP3"))),
    "fetch": replace(DIFFUSION, fetch=Fetch.DRAM, masters=(
        *MASTERS, replace(MASTERS[1], name="fetch", role=Role.FETCH))),
}


def seeded_inputs(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    found = {}
    for name in graph.inputs:
        spec = graph.tensors[name]
        reach = 1 << spec.bits - 3
        found[name] = draw.integers(-reach, reach, spec.shape).astype(f"int{spec.bits}")
    return found


@pytest.mark.parametrize("name", UNICORN_DESIGNS)
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_a_sampler_step_and_its_picture_equal_the_reference(name: str, groups: int) -> None:
    graph, overlay = unicorn_graph(replace(UNICORN, groups=groups)), UNICORN_DESIGNS[name]
    inputs = seeded_inputs(graph, groups)
    expected = execute(graph, inputs)
    assert all(len(np.unique(expected[output])) > 20 for output in graph.outputs)
    lowered = lower(graph, overlay, BOARD, mapped(graph, overlay, tuple(Phase)))
    verify(lowered.program)
    found = interpret(lowered, graph, overlay, inputs, groups)
    for output in graph.outputs:
        assert np.array_equal(found[output], expected[output])
    if Engine.NORM in overlay.engines:
        hosts = {item.name: item.why_host for item in lowered.mapping.layers
                 if item.engine is None}
        assert set(hosts) == {"unet.latent8", "picture.latent8", "sampler"}
        assert all(hosts.values())
        assert hosts["unet.latent8"] == "values of 16 bits; the engine takes 8"


def decoded(graph: Graph, config: UnicornConfig, overlay: Overlay, index: int) -> np.ndarray:
    """The picture of one index, every phase and every step interpreted on its own."""
    def run(phase: Phase, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        lowered = lower(graph, overlay, BOARD, mapped(graph, overlay, (phase,)))
        return interpret(lowered, graph, overlay, given, seed=index)

    values = quantized(graph, fixed_inputs(config))
    values["index_vector"] = index_vector(graph, index)
    values |= run(Phase.GROUP, values)
    for step in range(config.steps):
        given = values | quantized(graph, step_inputs(config, step))
        values["latent"] = run(Phase.STEP, given)[NEXT_LATENT]
    return run(Phase.FRAME, {NEXT_LATENT: values["latent"]})[OUTPUT]


def test_a_whole_picture_of_all_steps_equals_the_reference() -> None:
    graph = unicorn_graph(UNICORN)
    picture = decoded(graph, UNICORN, UNICORN_DESIGNS["small"], 2)
    assert np.array_equal(picture, decode(graph, UNICORN, 2))


@pytest.mark.long
def test_the_full_seeded_decoder_equals_the_reference() -> None:
    config = UnicornConfig(images=256)
    graph = unicorn_graph(config)
    assert np.array_equal(decoded(graph, config, DIFFUSION, 7), decode(graph, config, 7))


def test_the_full_frame_conserves_products_and_output_bytes() -> None:
    graph = agc_graph(AgcConfig())
    mapping = mapped(graph, BASE)
    lowered = lower(graph, BASE, BOARD, mapping)
    verify(lowered.program)
    # 43.363 GMAC for each inter frame of the vox-256 network at full width.
    assert round(layer_macs(lowered.program).sum() / 1e9, 3) == 43.363
    table = lowered.program.operations
    moved = table[:, Column.ROW_BYTES] * table[:, Column.ROWS] * table[:, Column.PLANES]
    stores = table[:, Column.KIND] == Opcode.STORE
    for index, item in enumerate(mapping.layers):
        if item.engine is not None:
            written = moved[stores & (table[:, Column.LAYER] == index)].sum()
            assert written == lowered.placement.place(item.output).size_bytes, item.name


def test_lowering_twice_gives_the_same_program() -> None:
    graph, _, overlay = random_case(5)
    one, two = (lower(graph, overlay, BOARD, mapped(graph, overlay)) for _ in range(2))
    assert one.program.content_hash() == two.program.content_hash()
    assert one.placement.addresses == two.placement.addresses


def test_live_tensors_never_share_memory() -> None:
    graph = agc_graph(AgcConfig())
    mapping = mapped(graph, BASE)
    placement = lower(graph, BASE, BOARD, mapping).placement
    alive: dict[str, list[int]] = {}
    for index, item in enumerate(mapping.layers):
        for name in (*item.inputs, item.output):
            for leaf in mapping.layouts.leaves(name):
                alive.setdefault(leaf, []).append(index)
    spans = []
    for name, seen in alive.items():
        where = placement.place(name)
        spans.append((where.address, where.address + where.size_bytes, min(seen), max(seen)))
    for index, (low, high, begin, end) in enumerate(spans):
        for other_low, other_high, other_begin, other_end in spans[index + 1:]:
            apart = high <= other_low or other_high <= low
            assert apart or end < other_begin or other_end < begin


def test_a_tensor_in_two_concatenations_is_refused() -> None:
    tiny = TinyGraph(1, 8, 4, 4)
    left = tiny.convolution("left", "in", 8, 1)
    one = tiny.concat("one", left, "in")
    two = tiny.concat("two", left, "in")
    graph = tiny.graph(tiny.convolution("a", one, 4, 1), tiny.convolution("b", two, 4, 1))
    with pytest.raises(PlacementError, match="lies in one place"):
        lower(graph, BASE, BOARD, mapped(graph, BASE))


def test_tensors_survive_packing() -> None:
    graph, inputs, overlay = random_case(4)
    place = lower(graph, overlay, BOARD, mapped(graph, overlay)).placement.place("in")
    data = pack_tensor(inputs["in"], place)
    assert len(data) == place.size_bytes
    assert np.array_equal(unpack_tensor(data, place), inputs["in"])


#: N, M, R, K, stride, published cycles of a set: Zhang et al., FPGA 2015, 64x7, cross-layer.
#: The first layer's count leaves out the 20 cycles of its one operation.
ALEXNET = ((3, 48, 55, 11, 4, 366025 + 20), (48, 128, 27, 5, 1, 255430),
           (256, 192, 13, 3, 1, 171051), (192, 192, 13, 3, 1, 129444),
           (192, 128, 13, 3, 1, 86296))


@pytest.mark.parametrize("case", ALEXNET)
def test_the_fpga_2015_accelerator_has_its_published_cycles(case: tuple[int, ...]) -> None:
    channels, out, size, kernel, stride, cycles = case
    overlay = load_overlay("fpga2015")
    rows = (size - 1) * stride + kernel
    tiny = TinyGraph(0, channels, rows, rows)
    graph = tiny.graph(tiny.convolution("conv", "in", out, kernel, stride))
    lowered = lower(graph, overlay, BOARD, mapped(graph, overlay))
    verify(lowered.program)
    tile = lowered.mapping.layers[0].tile
    assert isinstance(tile, ConvolutionTile) and tile.rows == tile.columns == size
    table = lowered.program.operations
    rows_of = table[table[:, Column.KIND] == Opcode.CONVOLUTION]
    total = (rows_of[:, Column.FILL] + rows_of[:, Column.INTERVAL] * rows_of[:, Column.TRIPS]
             + rows_of[:, Column.DRAIN]).sum()
    assert total == cycles
