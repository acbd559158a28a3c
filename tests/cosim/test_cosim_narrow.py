"""Do layers with weights of 4 bits keep two a byte, in DRAM and in WEIGHT, and change no result?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.memory import memory_for
from arch_models.overlay import Overlay, default_overlay, load_overlay
from cosim.analysis.bounds import bounds
from cosim.analysis.interpret import interpret
from cosim.analysis.least import least
from cosim.build import build
from cosim.executors import des, fast
from cosim.lowering.lower import Lowered
from cosim.program.table import CONVOLUTIONS, Buffer, Column, Opcode, layer_bytes
from cosim.program.verify import verify
from tests.support.tiny_graphs import TinyGraph
from workloads.graph import NARROW, Graph
from workloads.reference import execute

BASE = default_overlay()
BOARD = load_board("pynq-z1")


def lowered(graph: Graph, overlay: Overlay) -> Lowered:
    found = build(graph, overlay, BOARD)
    assert isinstance(found, Lowered), found
    verify(found.program)
    return found


def mixed(seed: int) -> tuple[Graph, dict[str, np.ndarray], Overlay]:
    """Layers of 4 and of 8 bits in turn, with what a convolution absorbs, groups and strides."""
    draw = np.random.default_rng(seed)
    tiny = TinyGraph(seed, int(draw.integers(1, 40)), 2 * int(draw.integers(3, 7)),
                     2 * int(draw.integers(3, 7)))
    first = tiny.convolution("first", "in", 24, int(draw.choice([1, 3, 5])), 1, 1, weights=NARROW)
    second = tiny.convolution("second", first, 24, 3, 1, 1)
    groups = tiny.convolution("groups", second, 24, 3, 1, 1, groups=int(draw.choice([3, 24])),
                              weights=NARROW)
    both = tiny.sum("sum", tiny.convolution("third", groups, 24, 1, weights=NARROW), second)
    last = tiny.convolution("last", both, int(draw.integers(1, 40)), 3, int(draw.integers(1, 3)),
                            int(draw.integers(2)), True, weights=NARROW)
    overlay = replace(
        BASE, narrow_weights=True, tm=int(draw.choice([8, 16, 24])),
        tn=int(draw.choice([8, 16, 24])), columns=int(draw.choice([1, 2, 3])),
        input_words=int(draw.integers(120, 500)), weight_words=int(draw.integers(18, 60)),
        output_words=int(draw.integers(8, 200)), accumulator_words=int(draw.integers(8, 200)),
        weight_banks=int(draw.integers(1, 3)))
    return tiny.graph(last), tiny.inputs(), overlay


@pytest.mark.parametrize("seed", range(24))
def test_programs_of_both_widths_equal_the_reference(seed: int) -> None:
    graph, inputs, overlay = mixed(seed)
    assert graph.narrow_layers == {"first", "groups", "third", "last"}
    found = lowered(graph, overlay)
    kinds = set(found.program.operations[:, Column.KIND].tolist())
    assert kinds >= set(CONVOLUTIONS)
    values, expected = interpret(found, graph, overlay, inputs, seed), execute(graph, inputs)
    assert np.array_equal(values[graph.outputs[0]], expected[graph.outputs[0]])


@pytest.mark.parametrize(("tm", "tn", "taps"), [(8, 8, 3), (16, 8, 1), (24, 16, 5)])
def test_a_narrow_layer_moves_half_the_bytes_of_its_weights(tm: int, tn: int, taps: int) -> None:
    """Of each word `tm * tn / 2` bytes, also where a block has an odd number of words."""
    tiny = TinyGraph(1, 40, 6, 6)
    graph = tiny.graph(tiny.convolution("a", "in", 56, taps, 1, taps // 2, weights=NARROW))
    wide = replace(BASE, tm=tm, tn=tn)
    words = -(-56 // tm) * -(-40 // tn) * taps * taps
    entries = -(-56 // tm) * tm * 8
    for overlay, word in ((wide, tm * tn), (replace(wide, narrow_weights=True), tm * tn // 2)):
        found = lowered(graph, overlay)
        assert found.placement.blob("a", "weights").size_bytes == words * word
        moved = layer_bytes(found.program)
        assert moved[0].tolist()[1] == words * word + entries
        work = least(graph, overlay, BOARD, found.mapping)
        assert work.bytes_read == moved[0, :2].sum() - entries


def test_a_buffer_holds_twice_as_many_words_of_weights() -> None:
    """All weights of a layer that only half fits as bytes stay for the whole layer."""
    tiny = TinyGraph(2, 16, 8, 40)
    graph = tiny.graph(tiny.convolution("a", "in", 16, 3, 1, 1, weights=NARROW))
    small = replace(BASE, tm=8, tn=8, weight_words=18, input_words=700)
    loads = {}
    for narrow in (False, True):
        program = lowered(graph, replace(small, narrow_weights=narrow)).program
        rows = (program.operations[:, Column.KIND] == Opcode.LOAD) & (
            program.arguments[:, 0] == Buffer.WEIGHT)
        loads[narrow] = int(rows.sum())
        assert program.operations[rows, Column.ROW_BYTES].max() <= 18 * 64
    assert loads[True] == 1 < loads[False]


@pytest.mark.parametrize("memory", ["flat", "ddr3"])
@pytest.mark.parametrize("seed", range(3))
def test_executors_agree_and_no_bound_is_above_them(seed: int, memory: str) -> None:
    graph, _, overlay = mixed(seed)
    found, model = lowered(graph, overlay), memory_for(BOARD, overlay, memory)
    result = fast.simulate(found.program, model)
    assert not result.differences(des.simulate(found.program, model))
    assert bounds(found.program, model).cycles <= result.total_cycles
    assert least(graph, overlay, BOARD, found.mapping).cycles <= result.total_cycles


def test_without_a_narrow_layer_the_program_is_the_same() -> None:
    """The field alone changes nothing, and narrow weights change nothing without the field."""
    tiny = TinyGraph(3, 16, 8, 8)
    graph = tiny.graph(tiny.convolution("a", "in", 16, 3, 1, 1))
    narrow = replace(graph, constants=graph.constants | {
        "a.weights": graph.constants["a.weights"] >> 4})
    assert not graph.narrow_layers and narrow.narrow_layers == {"a"}
    programs = [lowered(item, replace(BASE, narrow_weights=able)).program.content_hash()
                for item, able in ((graph, False), (graph, True), (narrow, False))]
    assert len(set(programs)) == 1


@pytest.mark.parametrize(("weights", "found"), [
    (NARROW, {"a"}), ((-9, 7), set()), ((-8, 8), set())])
def test_weights_say_themselves_how_wide_they_are(weights, found) -> None:
    tiny = TinyGraph(4, 40, 4, 4)
    graph = tiny.graph(tiny.convolution("a", "in", 40, 3, weights=weights))
    assert graph.narrow_layers == found


@pytest.mark.parametrize("changes", [
    {"weight_bits": 16}, {"data_bits": 16}, {"channel_block": 4}])
def test_only_our_own_int8_hardware_unpacks(changes) -> None:
    with pytest.raises(FieldError, match="narrow_weights is true"):
        replace(BASE, narrow_weights=True, **changes)
    with pytest.raises(FieldError, match="narrow_weights is true"):
        replace(load_overlay("fpga2015"), narrow_weights=True)
