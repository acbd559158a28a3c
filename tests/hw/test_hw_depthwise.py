"""Is a depthwise convolution the same in the reference, the interpreter, C++ and RTL?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.clock import predict
from arch_models.fields import FieldError
from arch_models.memory import memory_for
from arch_models.overlay import Engine, default_overlay, load_overlay, save_overlay
from arch_models.resources import estimate
from cosim.analysis.interpret import InterpretError, Machine, interpret, run
from cosim.analysis.least import least
from cosim.build import build
from cosim.executors import des, fast
from cosim.mapping.choose import engines_for
from cosim.program.table import ARGUMENT_COUNT, ARGUMENTS, Buffer, Column, Opcode, UnitKind
from hw.csim.fabric import Fabric, SimulationError
from hw.csim.simulate import run_frame
from hw.interface.descriptors import encode
from studies.evaluation.activity import count
from studies.evaluation.evaluate import displaced
from studies.validate.rtl import _no_host, compare_frame, compare_tiles
from tests.support.small_frames import QUICK, board
from tests.support.tiny_graphs import TinyGraph
from tests.support.tiny_programs import (
    ENGINE,
    IN_FILLED,
    OUT_FILLED,
    OUT_FREE,
    WEIGHT_FILLED,
    Sheet,
    blocks,
    parameter_bytes,
    planes_of,
    unblocked,
)
from workloads import arithmetic, reference
from workloads.convolution import convolve

BASE = dataclasses.replace(default_overlay(), tm=8, tn=8,
                           engines=frozenset({Engine.CONVOLUTION, Engine.DEPTHWISE}))
DESIGNS = {
    "8x8": BASE,
    "one tap, 16x8, a plane a tile": dataclasses.replace(BASE, tm=16, depthwise_taps=1,
                                                         input_words=120, output_words=90),
    "five taps, 24x16, few weights": dataclasses.replace(BASE, tm=24, tn=16, depthwise_taps=5,
                                                         vector_entries=48, input_banks=1),
}


def small(seed: int = 0):
    """Kernels 3 and 5, strides 1 and 2, with and without padding, between convolutions."""
    tiny = TinyGraph(seed, 5, 13, 15)
    value = tiny.convolution("wide", "in", 44, 1)
    value = tiny.convolution("three", value, 44, 3, 1, 1, relu=True, groups=44)
    value = tiny.convolution("five", value, 44, 5, 2, 2, groups=44)
    value = tiny.convolution("bare", value, 44, 3, 2, 0, groups=44)
    value = tiny.convolution("after", value, 9, 1)
    return tiny, tiny.graph("three", "five", "bare", "after")


@pytest.mark.parametrize("name", DESIGNS)
def test_every_form_of_the_meaning_is_the_same(name):
    (tiny, graph), overlay = small(), DESIGNS[name]
    lowered = build(graph, overlay, board())
    assert [item.engine for item in lowered.mapping.layers[1:4]] == [Engine.DEPTHWISE] * 3
    inputs = tiny.inputs()
    want = reference.execute(graph, inputs)
    for seed in (0, 1):
        found = interpret(lowered, graph, overlay, inputs, seed)
        for tensor in graph.outputs:
            assert np.array_equal(found[tensor], want[tensor]), tensor
    report = run_frame(lowered, graph, overlay, inputs=inputs, order=3, flags=QUICK)
    assert report.values_differing == 0 and report.values_compared > 0
    for model in ("flat", "ddr3"):
        memory = memory_for(board(), overlay, model=model)
        slow, quick = (each.simulate(lowered.program, memory) for each in (des, fast))
        assert slow.total_cycles == quick.total_cycles
        bound = least(graph, overlay, board(), lowered.mapping)
        assert bound.cycles <= quick.total_cycles
        writes = [unit.kind is UnitKind.WRITE for unit in lowered.program.units]
        written = int(quick.layer_bytes[:, writes].sum())
        assert bound.bytes_written == written  # a tile is stored once
        assert 0 < bound.bytes_read <= quick.layer_bytes.sum() - written


def test_a_frame_on_rtl_has_the_cycles_and_bytes_of_the_program():
    _, graph = small(4)
    assert compare_frame(graph, BASE, board()).equal


@pytest.mark.parametrize(("tm", "tn", "taps", "gated"), [(8, 8, 3, True), (24, 16, 2, False)])
def test_tiles_on_rtl(tm, tn, taps, gated):
    only = dataclasses.replace(BASE, tm=tm, tn=tn, depthwise_taps=taps, clock_gating=gated,
                               engines=frozenset({Engine.DEPTHWISE}))
    found = compare_tiles(60, 0, only, board())
    assert found.equal and found.operations_compared > 200


@pytest.mark.long
@pytest.mark.parametrize(("tm", "tn", "taps"), [(16, 8, 5), (8, 16, 1), (8, 24, 7), (16, 16, 4)])
def test_many_tiles_on_rtl(tm, tn, taps):
    overlay = dataclasses.replace(BASE, tm=tm, tn=tn, depthwise_taps=taps)
    assert compare_tiles(600, 7, overlay, board()).equal


@pytest.fixture(scope="module", params=(1, 3, 5))
def fabric(request):
    overlay = dataclasses.replace(BASE, depthwise_taps=request.param)
    shell = dataclasses.replace(Sheet().program(), operations=np.zeros((0, 18), np.int64),
                                arguments=np.zeros((0, ARGUMENT_COUNT), np.int32), segments=())
    with Fabric(shell, overlay, flags=QUICK) as built:
        yield overlay, built


def one_tile(overlay, window, image, weights, entries, **changes):
    """Weights, entries and an image with a border of zeros outside of it; a program of one
    operation on them, and where its result lies."""
    (kernel, stride), sheet, taps = window, Sheet(), overlay.depthwise_taps
    channels, rows, columns = image.shape
    groups, padding = -(-kernel // taps), kernel // 2
    words = np.zeros((planes_of(channels) * 8, kernel, groups * taps), np.int8)
    words[:channels, :, :kernel] = weights[:, 0]
    beats = words.reshape(-1, 8, kernel, groups, taps).transpose(0, 3, 2, 4, 1)
    source = sheet.place(blocks(image))
    sheet.load_block(parameter_bytes(*entries), Buffer.DEPTHWISE_PARAMETERS, 8)
    sheet.load_block(beats.reshape(-1).view(np.uint8), Buffer.DEPTHWISE_WEIGHTS, 2 * taps,
                     WEIGHT_FILLED)
    sheet.load(source, planes_of(channels), rows * columns, 5, signal=IN_FILLED)
    spans = [(size + 2 * padding - kernel) // stride * stride + 1 for size in (rows, columns)]
    sheet.row(ENGINE, Opcode.DEPTHWISE, {
        "in_base": 5, "in_rows": rows, "in_columns": columns, "planes": planes_of(channels),
        "weight_base": 2, "parameter_base": 8, "row_span": spans[0], "column_span": spans[1],
        "kernel_rows": kernel, "kernel_columns": kernel, "stride": stride, "pad_top": padding,
        "pad_left": padding, **changes}, IN_FILLED | WEIGHT_FILLED | OUT_FREE, OUT_FILLED)
    positions = ((spans[0] - 1) // stride + 1) * ((spans[1] - 1) // stride + 1)
    target = sheet.place(np.full(positions * planes_of(channels) * 8, 85, np.uint8))
    sheet.store(target, planes_of(channels), positions)
    return sheet, target


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_the_engine_in_cpp(fabric, kernel, stride, extreme):
    overlay, built = fabric
    draw = np.random.default_rng(kernel)
    image = draw.integers(-128, 128, (19, 9, 8), np.int8)
    weights = draw.integers(-128, 128, (19, 1, kernel, kernel), np.int8)
    entries = np.zeros((3, ARGUMENT_COUNT), np.int64)
    entries[:, :19] = (draw.integers(-5000, 5000, 19), draw.integers(1, 32768, 19),
                       draw.integers(20, 26, 19))
    if extreme:  # the largest sums, by the largest multiplier, with no shift and with the most
        image[:], weights[:] = -128, -128
        entries[1, :19], entries[2, :19] = 32767, np.where(np.arange(19) % 2, 47, 0)
        entries[0, :19] = np.where(np.arange(19) % 3, (1 << 31) - 1 - 49 * (1 << 14), -(1 << 31))
    total = convolve(image, weights, stride, kernel // 2, 19) + entries[0, :19, None, None]
    want = np.maximum(arithmetic.requantize(total, *entries[1:, :19, None, None]), 0)
    sheet, target = one_tile(overlay, (kernel, stride), image, weights, entries, relu=1)
    memory, program = sheet.image(), sheet.program()
    other = memory.copy()
    built.reset()
    built.run(encode(program), program.segments, memory)
    count = want.shape[1] * want.shape[2] * 24
    assert np.array_equal(unblocked(memory[target : target + count], *want.shape), want)
    run(program, Machine(overlay, other, _no_host))
    assert np.array_equal(memory, other)


@pytest.mark.parametrize(("changes", "words"), [
    ({"stride": 0}, "stride and spans must be at least 1"),
    ({"kernel_rows": 0}, "kernel, stride"),
    ({"in_rows": 60000}, "INPUT"), ({"row_span": 60000}, "OUTPUT"),
    ({"weight_base": 510}, "DEPTHWISE_WEIGHTS"),
    ({"parameter_base": 504}, "DEPTHWISE_PARAMETERS")])
def test_operations_that_leave_a_buffer_are_refused(fabric, changes, words):
    overlay, built = fabric
    draw = np.random.default_rng(1)
    sheet, _ = one_tile(overlay, (3, 1), draw.integers(-9, 9, (19, 9, 8), np.int8),
                        draw.integers(-9, 9, (19, 1, 3, 3), np.int8),
                        np.ones((3, ARGUMENT_COUNT), np.int64), **changes)
    memory, program = sheet.image(), sheet.program()
    built.reset()
    with pytest.raises(SimulationError, match=words):
        built.run(encode(program), program.segments, memory)
    if "base" in "".join(changes):
        with pytest.raises(InterpretError, match="of a buffer of"):
            run(program, Machine(overlay, memory, _no_host))


def test_the_cheaper_engine_is_taken():
    """With one tap a cycle a stride of two leaves the convolution fewer trips."""
    _, graph = small()
    there = {taps: build(graph, dataclasses.replace(BASE, depthwise_taps=taps), board())
             .mapping.layer("five").engine for taps in (1, 3)}
    assert there == {1: Engine.CONVOLUTION, 3: Engine.DEPTHWISE}
    assert engines_for(graph) == {Engine.CONVOLUTION, Engine.DEPTHWISE}


def test_what_does_not_fit_goes_to_the_convolution():
    """Without it the host has the layer, and says why."""
    _, graph = small()
    lowered = build(graph, dataclasses.replace(BASE, vector_entries=8), board())
    assert lowered.mapping.layer("three").engine is Engine.CONVOLUTION
    tiny = TinyGraph(1, 8, 6, 6)
    wide = tiny.graph(tiny.convolution("wide", "in", 8, 1, 1, 1, groups=8))
    alone = dataclasses.replace(BASE, engines=frozenset({Engine.DEPTHWISE}))
    mapping = build(wide, alone, board()).mapping
    assert mapping.layers[0].why_host == "padding is 1, must be less than the kernel"
    assert [item.engine for item in displaced(wide, alone, mapping)] == ["depthwise"]


@pytest.mark.parametrize("value", [0, 8])
def test_taps_that_no_engine_has_are_refused(value, tmp_path):
    near = min(max(value, 1), 7)
    with pytest.raises(FieldError, match=f"depthwise_taps is {value}, .* nearest {near}"):
        dataclasses.replace(BASE, depthwise_taps=value)
    path = tmp_path / "design.toml"
    save_overlay(BASE, path)
    path.write_text(path.read_text().replace("depthwise_taps = 3", f"depthwise_taps = {value}"))
    with pytest.raises(FieldError, match=f"design.toml.*depthwise_taps is {value}"):
        load_overlay(path)


def test_sites_and_clock_know_the_taps():
    """A tap is eight multipliers, and weights of a cycle a memory wider."""
    one, seven = (dataclasses.replace(BASE, depthwise_taps=taps) for taps in (1, 7))
    found = [estimate(item) for item in (one, seven)]
    dsp = [item.part("depthwise").dsp for item in found]
    assert dsp[1] - dsp[0] == 48
    bram = [item.part("buffer depthwise weights").bram36 for item in found]
    assert bram[1] == 7 * bram[0]
    assert "depthwise" in dict(predict(one, board()).parts)
    without = dataclasses.replace(BASE, engines=frozenset({Engine.CONVOLUTION}))
    assert estimate(dataclasses.replace(without, depthwise_taps=7)) == estimate(without)


def test_energy_counts_every_access():
    """A trip reads a beat of INPUT and a word of weights; a result is a beat; loads write."""
    _, graph = small()
    lowered = build(graph, BASE, board())
    result = fast.simulate(lowered.program, memory_for(board(), BASE, model="flat"))
    found = count(lowered, result.layer_bytes, BASE)
    names = lowered.program.layers
    for name, (trips, results) in {
            "three": (6 * 13 * 17 * 3, 6 * 13 * 15),
            "five": (6 * 7 * 17 * 10, 6 * 7 * 8), "bare": (6 * 3 * 7 * 3, 6 * 3 * 3)}.items():
        place = names.index(name)
        words = {"three": 3, "five": 10, "bare": 3}[name] * 6
        assert found.working["depthwise"][place] == trips
        assert found.working["buffer depthwise weights"][place] == trips + words
        assert found.working["buffer depthwise parameters"][place] == results + 6
        assert found.working["buffer output"][place] == 2 * results


def test_useful_products_are_those_of_the_layer():
    _, graph = small()
    program = build(graph, BASE, board()).program
    rows = program.operations[:, Column.KIND] == Opcode.DEPTHWISE
    macs = program.operations[rows, Column.MACS].sum()
    assert macs == 44 * (9 * 13 * 15 + 25 * 7 * 8 + 9 * 3 * 3)
    place = ARGUMENTS[Opcode.DEPTHWISE].index("kernel_columns")
    assert set(program.arguments[rows, place]) == {3, 5}
