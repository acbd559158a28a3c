"""Tensors that pass the tensor memory by bands of rows: is every byte right, is nothing slower?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.memory import WINDOW, memory_for
from arch_models.overlay import Control, Start, default_overlay
from cosim.analysis.bounds import bounds
from cosim.analysis.interpret import interpret
from cosim.analysis.least import least
from cosim.executors import des, fast
from cosim.mapping.bands import Stage, order
from cosim.program.table import Column, layer_bytes
from cosim.program.verify import verify
from tests.cosim.test_cosim_tensor_memory import BOARD, lowered
from tests.support.tiny_graphs import TinyGraph
from workloads.graph import Graph
from workloads.reference import execute

BASE = default_overlay()


def banded(rows: int = 32, add: bool = True) -> Graph:
    """Four convolutions behind one another; a sum reaches over the middle ones."""
    tiny = TinyGraph(0, 32, rows, 32)
    value = tiny.convolution("first", "in", 32, 3, 1, 1, relu=True)
    one = tiny.convolution("one", value, 32, 3, 1, 1, relu=True)
    two = tiny.convolution("two", one, 32, 3, 1, 1)
    if add:
        two = tiny.sum("sum", two, value)
    return tiny.graph(tiny.convolution("last", two, 16, 3, 1, 1))


#: Tensors of 32 KiB, tiles of four rows; 16 KiB hold half a tensor.
BANDED = replace(BASE, output_words=256, input_words=1024, tensor_memory_kib=16)
BANDED_DESIGNS = {
    "banded": BANDED,
    "two columns": replace(BANDED, columns=2, accumulator_words=4096),
    "few in flight": replace(BANDED, masters=tuple(replace(item, outstanding=1)
                                                   for item in BANDED.masters)),
    "nothing fused": replace(BANDED, fusions=frozenset()),
}


@pytest.mark.parametrize("name", BANDED_DESIGNS)
@pytest.mark.parametrize("rows", [32, 30])
def test_tensors_larger_than_the_memory_pass_by_bands(name: str, rows: int) -> None:
    """Every byte in any legal order, every cycle in both executors, and only DRAM's bytes gone."""
    graph, overlay = banded(rows), BANDED_DESIGNS[name]
    inputs = {"in": np.random.default_rng(1).integers(-128, 128, (32, rows, 32)).astype(np.int8)}
    expected = execute(graph, inputs)[graph.outputs[0]]
    found = lowered(graph, overlay, frames=2)
    bands = found.mapping.bands
    assert bands and all(graph.tensors[item].elements > 16 * 1024 for item in bands)
    verify(found.program)
    for seed in range(8):
        got = interpret(found, graph, overlay, inputs, seed)[graph.outputs[0]]
        assert np.array_equal(got, expected)
    once = lowered(graph, overlay)
    without = lowered(graph, replace(overlay, tensor_memory_kib=0))
    gone = layer_bytes(without.program).sum() - layer_bytes(once.program).sum()
    table = once.program.operations
    stays = (table[:, Column.TRIPS] > 0) & (table[:, Column.ADDRESS] >= WINDOW)
    assert gone == (table[stays, Column.ROW_BYTES] * table[stays, Column.ROWS]
                    * table[stays, Column.PLANES]).sum() > 0
    for model in ("flat", "ddr3"):
        memory = memory_for(BOARD, overlay, model)
        one = des.simulate(found.program, memory, trace=True)
        assert not one.differences(fast.simulate(found.program, memory, trace=True))
        total = int(fast.simulate(once.program, memory).total_cycles)
        assert total <= fast.simulate(without.program, memory).total_cycles
        assert max(least(graph, overlay, BOARD, once.mapping).cycles,
                   bounds(once.program, memory).cycles) <= total


def test_what_would_wait_for_the_ring_does_not_pass_by_bands() -> None:
    """One bank of a buffer, ports that move half as much a cycle, a start for every layer."""
    for overlay in (replace(BANDED, input_banks=1, tile_rows=4),
                    replace(BANDED, output_banks=1, tile_rows=4),
                    replace(BANDED, control=Control(start=Start.LAYER)),
                    replace(BANDED, masters=tuple(replace(item, width_bits=32)
                                                  for item in BANDED.masters))):
        assert not lowered(banded(), overlay).mapping.bands


def test_the_order_of_bands_overwrites_nothing_that_is_still_read() -> None:
    """All of a ring's life, row by row: what a stage reads is there, whole and of its own row."""
    draw = np.random.default_rng(0)
    met = 0
    for _ in range(300):
        rows, tile, reach, ring = (int(draw.integers(*ends)) for ends in (
            (4, 40), (1, 6), (0, 3), (3, 24)))
        step = int(draw.integers(1, 6))
        writes = [Stage(low, min(rows, low + tile), min(rows, low + tile))
                  for low in range(0, rows, tile)]
        reads = [Stage(max(0, low - reach), min(rows, low + step + reach), 0)
                 for low in range(0, rows, step)]
        turns = order(writes, reads, ring)
        if turns is None:
            assert ring < rows  # a ring of the whole tensor is always enough
            continue
        met += 1
        held: dict[int, int] = {}
        done = [turn.number for turn in turns if not turn.reader]
        assert done == list(range(len(writes)))
        assert [turn.number for turn in turns if turn.reader] == list(range(len(reads)))
        stored = -1  # of the writer's stages, the last that a reader has waited for
        for turn in turns:
            if not turn.reader:
                held |= {row % ring: row for row in range(writes[turn.number].low,
                                                          writes[turn.number].high)}
                continue
            stored = max(stored, turn.after)
            stage = reads[turn.number]
            assert writes[stored].whole >= stage.high
            assert all(held[row % ring] == row for row in range(stage.low, stage.high))
    assert met > 100


def test_no_tensor_of_a_pair_lies_where_the_pair_still_reads() -> None:
    """Both layers run at once, so what one reads and the other writes lie apart in DRAM."""
    found = lowered(banded(), BANDED)
    bands = found.mapping.bands
    for index, item in enumerate(found.mapping.layers):
        if item.output not in bands:
            continue
        names = [*item.inputs, *found.mapping.layers[index + 1].inputs,
                 found.mapping.layers[index + 1].output]
        spans = {name: (found.placement.addresses[name],
                        found.placement.addresses[name] + found.placement.place(name).size_bytes)
                 for name in names if name not in bands}
        for one in spans:
            for other in spans:
                assert (one == other or spans[one][1] <= spans[other][0]
                        or spans[other][1] <= spans[one][0]), (one, other)
