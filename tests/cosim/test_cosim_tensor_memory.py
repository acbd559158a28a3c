"""What stays in the tensor memory: is the picture the same, and is only its traffic gone?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.memory import READ_LEAD, WINDOW, memory_for
from arch_models.overlay import Engine, Infeasible, Overlay, Start, default_overlay
from arch_models.resources import check, estimate
from cosim.analysis.alone import Alone
from cosim.analysis.bounds import bounds
from cosim.analysis.interpret import interpret
from cosim.analysis.least import least
from cosim.build import Builder, build
from cosim.executors import des, fast
from cosim.lowering.lower import Lowered
from cosim.lowering.on_chip import beats
from cosim.mapping.kept import ALIGNMENT_BYTES
from cosim.memory.bursts import flat_transfer
from cosim.memory.controller import record_type
from cosim.program.table import Column, UnitKind, executed_bytes, layer_bytes
from cosim.program.verify import verify
from cosim.recurrence.cpu import Timer, prepare
from tests.support.tiny_graphs import SMALL, tiny_agc
from workloads.graph import Graph
from workloads.library import load

BOARD = load_board("pynq-z1")
BASE = default_overlay()
#: Some tensors of the small decoder fit 4 KiB, more 16, all of them 512.
SIZES_KIB = (4, 16, 512)
DESIGNS = {
    "small": SMALL,
    "one bank": replace(SMALL, input_banks=1, weight_banks=1, output_banks=1),
    "nothing fused": replace(SMALL, fusions=frozenset(), input_words=300, output_words=140),
    "pools on the host": replace(SMALL, engines=BASE.engines - {Engine.POOL, Engine.SOFTMAX},
                                 fusions=frozenset()),
    "narrow ports": replace(SMALL, masters=tuple(replace(item, width_bits=32)
                                                 for item in SMALL.masters)),
    "start a layer": replace(SMALL, control=replace(BASE.control, start=Start.LAYER)),
}


def lowered(graph: Graph, overlay: Overlay, frames: int = 1) -> Lowered:
    found = build(graph, overlay, BOARD, frames)
    assert isinstance(found, Lowered), found
    return found


@pytest.fixture(scope="module")
def agc() -> tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    return tiny_agc()


@pytest.mark.parametrize("kib", SIZES_KIB)
@pytest.mark.parametrize("name", DESIGNS)
def test_the_picture_is_the_reference_s_and_the_executors_agree(name: str, kib: int, agc) -> None:
    graph, inputs, expected = agc
    overlay = replace(DESIGNS[name], tensor_memory_kib=kib)
    found = lowered(graph, overlay, frames=2)
    assert found.mapping.kept
    verify(found.program)
    given = inputs | {key: expected[key] for key in ("features", "small")}
    for seed in range(2):
        got = interpret(found, graph, overlay, given, seed)
        assert np.array_equal(got["picture"], expected["picture"])
    for model in ("flat", "ddr3"):
        memory = memory_for(BOARD, overlay, model)
        one = des.simulate(found.program, memory, trace=True)
        assert not one.differences(fast.simulate(found.program, memory, trace=True))
        assert not one.broken_invariants()


@pytest.mark.parametrize("kib", SIZES_KIB)
def test_dram_traffic_falls_by_just_what_is_kept(kib: int, agc) -> None:
    """The same transfers, but for those whose tensor stays: their bytes are gone, to the byte."""
    graph = agc[0]
    without, kept = lowered(graph, SMALL), lowered(graph, replace(SMALL, tensor_memory_kib=kib))
    here, there = without.program.operations, kept.program.operations
    shape = [Column[name] for name in ("UNIT", "KIND", "LAYER", "WAIT", "SIGNAL", "ROW_BYTES",
                                       "ROWS", "ROW_STRIDE", "PLANES", "PLANE_STRIDE")]
    assert np.array_equal(here[:, shape], there[:, shape])
    stays = there[:, Column.ADDRESS] >= WINDOW
    spared = executed_bytes(without.program) * stays
    assert spared.any()
    units = np.bincount(here[:, Column.UNIT], spared, len(kept.program.units)).astype(np.int64)
    gone = layer_bytes(without.program) - layer_bytes(kept.program)
    assert np.array_equal(gone.sum(axis=0), units)
    memory = memory_for(BOARD, SMALL, "flat")
    assert np.array_equal(fast.simulate(kept.program, memory).layer_bytes,
                          layer_bytes(kept.program))
    # By tensor: what its layer stores, and what its readers load.
    layers = {item.name: index for index, item in enumerate(kept.mapping.layers)}
    for item in kept.mapping.layers:
        stored = gone[layers[item.name], len(SMALL.masters) - 1]
        assert stored == (kept.mapping.layouts.bytes_of(item.output)
                          if item.output in kept.mapping.kept else 0)


def test_nothing_that_others_see_stays(agc) -> None:
    graph = agc[0]
    found = lowered(graph, replace(SMALL, tensor_memory_kib=512,
                                   engines=BASE.engines - {Engine.LOOKUP}))
    kept = found.mapping.kept
    assert not set(kept) & {*graph.inputs, *graph.outputs}
    hosts = [item for item in found.mapping.layers if item.engine is None]
    assert hosts
    assert not set(kept) & {name for item in hosts for name in (*item.inputs, item.output)}
    weight = next(i for i, unit in enumerate(found.program.units) if unit.name == "weight")
    table = found.program.operations
    assert (table[table[:, Column.UNIT] == weight, Column.ADDRESS] < WINDOW).all()


def test_tensors_needed_at_once_lie_apart(agc) -> None:
    """No two tensors that live at once share a byte, and none reaches beyond the memory."""
    graph = agc[0]
    for kib in SIZES_KIB:
        mapping = Builder(graph, BOARD).mapping(replace(SMALL, tensor_memory_kib=kib))
        assert not isinstance(mapping, Infeasible)
        uses = {name: [index for index, item in enumerate(mapping.layers)
                       if name == item.output or name in {
                           leaf for given in item.inputs
                           for leaf in mapping.layouts.leaves(given)}]
                for name in mapping.kept if name not in mapping.layouts.concats}
        ends = {name: mapping.kept[name] + mapping.layouts.bytes_of(name) for name in uses}
        assert max(ends.values()) <= kib * 1024
        assert all(mapping.kept[name] % 8 == 0 for name in uses)
        assert any(mapping.kept[name] % ALIGNMENT_BYTES == 0 for name in uses)
        for one in uses:
            for other in uses:
                alive = (min(uses[one]) <= max(uses[other])
                         and min(uses[other]) <= max(uses[one]))
                if one < other and alive:
                    assert (ends[one] <= mapping.kept[other]
                            or ends[other] <= mapping.kept[one]), (one, other)


@pytest.mark.parametrize("model", ["flat", "ddr3"])
def test_keeping_is_never_slower_and_never_beats_its_bounds(model: str, agc) -> None:
    graph = agc[0]
    before = None
    for kib in (0, *SIZES_KIB):
        overlay = replace(SMALL, tensor_memory_kib=kib)
        found, memory = lowered(graph, overlay), memory_for(BOARD, overlay, model)
        result = fast.simulate(found.program, memory)
        total = int(result.total_cycles)
        assert bounds(found.program, memory).cycles <= total
        low = least(graph, overlay, BOARD, found.mapping)
        assert low.cycles <= total
        kinds = np.array([unit.kind for unit in found.program.units])
        moved = result.layer_bytes.sum(axis=0)
        assert low.bytes_read <= moved[kinds == UnitKind.READ].sum()
        assert low.bytes_written <= moved[kinds == UnitKind.WRITE].sum()
        spans = result.layer_end - result.layer_start
        alone = Alone(graph, overlay, BOARD)
        for index, item in enumerate(found.mapping.layers):
            if item.engine is not None:
                assert alone.cycles(found.mapping.layouts, item) <= spans[index]
        if before is not None:
            assert total <= before[0] and moved.sum() < before[1]
        before = before or (total, moved.sum())


def test_the_recurrence_gives_the_same_last_cycle(agc) -> None:
    overlay = replace(SMALL, tensor_memory_kib=16)
    program = lowered(agc[0], overlay).program
    memory = memory_for(BOARD, overlay, "flat")
    prepared, timer = prepare(program), Timer()
    assert prepared is not None
    units = fast.unit_table(program.units, memory)[0]
    hosts = program.operations[program.operations[:, Column.KIND] == 14, Column.FILL]
    assert timer.total_cycles(prepared, units, timer.settings(units), hosts) == fast.simulate(
        program, memory).total_cycles


def test_the_beats_are_those_of_the_bursts() -> None:
    """However a transfer is cut, the beats are those that a flat port moves; with a request and a
    beat a cycle they follow one another, so that the whole takes the way there and the beats."""
    draw = np.random.default_rng(0)
    shape = record_type("row_bytes", "rows", "row_stride", "planes", "plane_stride")
    settings = record_type("width", "max_beats", "lead", "trail", "outstanding", "overlap",
                           "run_setup")
    for width in (4, 8, 16):
        table = np.zeros((40, len(Column)), np.int64)
        for name, most in (("ADDRESS", 900), ("ROW_BYTES", 90), ("ROWS", 7), ("PLANES", 5),
                           ("ROW_STRIDE", 120), ("PLANE_STRIDE", 900)):
            table[:, Column[name]] = draw.integers(1, most, 40) * (
                1 if name in ("ROWS", "PLANES") else 8)
        for row, count in zip(table, beats(table, width), strict=True):
            moved = np.array([tuple(row[[Column.ROW_BYTES, Column.ROWS, Column.ROW_STRIDE,
                                         Column.PLANES, Column.PLANE_STRIDE]])], shape)[0]
            port = np.array([(width, 16, READ_LEAD, 0, 8, 1, 0)], settings)[0]
            done, wanted, _ = flat_transfer(int(row[Column.ADDRESS]), moved, port,
                                            np.zeros(8, np.int64))
            assert (count, READ_LEAD + count) == (wanted, done)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(FieldError, match="tensor_memory_kib is 48, must be one of"):
        replace(BASE, tensor_memory_kib=48)
    two = replace(SMALL, tensor_memory_kib=16, masters=(
        *SMALL.masters, replace(SMALL.masters[0], name="second", port="HP3")))
    uneven = replace(SMALL, tensor_memory_kib=16, masters=(
        replace(SMALL.masters[0], width_bits=32), *SMALL.masters[1:]))
    for overlay, field in ((two, "masters"), (uneven, "width_bits")):
        for found in (check(overlay, BOARD), build(load("agc-w16"), overlay, BOARD)):
            assert isinstance(found, Infeasible) and found.field == field, found
            assert "tensor_memory_kib" in found.levers


def test_it_takes_block_ram_and_nothing_if_there_is_none() -> None:
    """36 Kb hold 512 words of 64 bits: a block for each 4 KiB."""
    for kib in (4, 64, 256):
        sites = estimate(replace(BASE, tensor_memory_kib=kib)).part("buffer tensors")
        assert sites.bram36 == kib / 4 and sites.dsp == 0
    assert "buffer tensors" not in dict(estimate(BASE).parts)
