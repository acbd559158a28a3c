"""Does the C simulation of lowered frames equal the reference, for any design and order?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.memory import WINDOW
from arch_models.overlay import (
    Control,
    Engine,
    Fetch,
    Fusion,
    Master,
    Overlay,
    Role,
    Start,
    default_overlay,
)
from cosim.analysis.image import MemoryImage
from cosim.program.table import Column
from hw.csim.fabric import FLAGS, SANITIZERS, Fabric, SimulationError, run_top
from hw.csim.simulate import run_frame, run_frame_by_layer, run_layers
from hw.interface.descriptors import encode
from hw.interface.vectors import host_layers, make_vectors, outputs
from tests.cosim.test_cosim_bands import BANDED, banded
from tests.support.small_frames import QUICK, board, lowered_frame, small_graph, without
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.library import load


def masters(inputs: int, stores: int) -> tuple[Master, ...]:
    names = [("HP0", "HP3"), ("HP1",), ("HP2", "ACP")]
    roles = (Role.INPUT, Role.WEIGHT, Role.OUTPUT)
    counts = (inputs, 1, stores)
    return tuple(Master(f"{role.value}{index}" if count > 1 else role.value, role, ports[index])
                 for role, ports, count in zip(roles, names, counts, strict=True)
                 for index in range(count))


BASE = default_overlay()
DESIGNS: dict[str, Overlay] = {
    "default": BASE,
    "8x16": dataclasses.replace(BASE, tm=8, tn=16),
    "32x8 small buffers": dataclasses.replace(
        BASE, tm=32, tn=8, input_words=640, output_words=192, weight_words=64,
        accumulator_words=256),
    "single banks": dataclasses.replace(BASE, input_banks=1, weight_banks=1, output_banks=1),
    "two input masters": dataclasses.replace(BASE, masters=masters(2, 1)),
    "two input, two output masters": dataclasses.replace(
        without(Engine.POOL, Engine.SOFTMAX, Engine.UPSAMPLE), masters=masters(2, 2)),
    "nothing fused": dataclasses.replace(BASE, fusions=frozenset()),
    "only addition fused": dataclasses.replace(BASE, fusions=frozenset({Fusion.ADD})),
    "descriptors in DRAM": dataclasses.replace(
        BASE, fetch=Fetch.DRAM, masters=(*BASE.masters, Master("fetch", Role.FETCH, "HP3"))),
    "a start for each layer": dataclasses.replace(BASE, control=Control(start=Start.LAYER)),
    "tensors on chip": dataclasses.replace(BASE, tensor_memory_kib=64, input_words=4096),
    "few tensors on chip": dataclasses.replace(without(Engine.SOFTMAX), tensor_memory_kib=8,
                                               fusions=frozenset({Fusion.ADD})),
    "two columns": dataclasses.replace(BASE, columns=2),
    "three columns": dataclasses.replace(BASE, tm=8, columns=3),
    "four columns, nothing fused": dataclasses.replace(BASE, columns=4, fusions=frozenset()),
    "sampling and softmax on the host": without(Engine.GRID_SAMPLE, Engine.SOFTMAX),
    "elementwise on the host": without(Engine.ELEMENTWISE, Engine.LOOKUP),
    "only convolution": without(*(set(Engine) - {Engine.CONVOLUTION})),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_a_frame_of_any_design_is_bit_exact(name):
    overlay = DESIGNS[name]
    lowered = lowered_frame(overlay)
    report = run_frame_by_layer(lowered, small_graph(), overlay, seed=4, flags=QUICK)
    assert (report.values_differing, report.where) == (0, "")
    kept = sum(item.output in lowered.mapping.kept for item in lowered.mapping.layers)
    assert report.tensors + kept == report.layers > 15


@pytest.mark.parametrize("columns", [1, 3])
def test_two_products_from_one_multiplier_change_no_value(columns):
    overlay = dataclasses.replace(BASE, tm=8, columns=columns, dsp_packing=True)
    flags = (*QUICK, "-DCOSIM_PACK_PRODUCTS=1")
    report = run_frame_by_layer(lowered_frame(overlay), small_graph(), overlay, seed=5, flags=flags)
    assert (report.values_differing, report.where) == (0, "")


@pytest.mark.parametrize("order", [1, 12345])
def test_any_legal_order_gives_the_same_frame(order):
    overlay = DESIGNS["32x8 small buffers"]
    report = run_frame(lowered_frame(overlay), small_graph(), overlay, order=order, flags=QUICK)
    assert (report.values_compared, report.values_differing) == (3 * 32 * 64, 0)


@pytest.mark.parametrize("name", ["descriptors in DRAM", "two input, two output masters",
                                  "a start for each layer", "few tensors on chip",
                                  "sampling and softmax on the host"])
def test_the_synthesized_top_decodes_the_same_frame(name):
    overlay, graph = DESIGNS[name], small_graph()
    lowered = lowered_frame(overlay)
    vectors = make_vectors(graph, lowered, 5)
    image = MemoryImage.start(graph, lowered, overlay, vectors.inputs)
    run_top(lowered.program, overlay, image.data, host_layers(graph, lowered), QUICK)
    for output in outputs(graph, lowered):
        assert np.array_equal(image.get(output), vectors.expected[output])


def test_two_layers_at_once_decode_the_same_frame():
    """Tensors that pass the tensor memory by bands, in the scheduler's turns and in a random order,
    in the synthesized top, and layer by layer."""
    graph = banded()
    lowered = lowered_frame(BANDED, graph=graph)
    assert lowered.mapping.bands
    for order in (0, 3, 4):
        report = run_frame(lowered, graph, BANDED, order=order, flags=QUICK)
        assert report.values_compared and not report.values_differing
    assert not run_frame_by_layer(lowered, graph, BANDED, flags=QUICK).values_differing
    vectors = make_vectors(graph, lowered, 5)
    image = MemoryImage.start(graph, lowered, BANDED, vectors.inputs)
    run_top(lowered.program, BANDED, image.data, host_layers(graph, lowered), QUICK)
    for output in outputs(graph, lowered):
        assert np.array_equal(image.get(output), vectors.expected[output])


def test_two_frames_in_a_row_are_both_right():
    overlay, graph = DESIGNS["default"], small_graph()
    lowered = lowered_frame(overlay, frames=2)
    assert run_frame(lowered, graph, overlay, flags=QUICK).values_differing == 0


def test_a_changed_weight_is_noticed():
    overlay, graph = DESIGNS["default"], small_graph()
    lowered = lowered_frame(overlay)
    vectors = make_vectors(graph, lowered)
    image = MemoryImage.start(graph, lowered, overlay, vectors.inputs)
    blob = lowered.placement.blob("final", "weights")
    image.data[blob.address] ^= 0x40
    with Fabric(lowered.program, overlay, host_layers(graph, lowered), QUICK) as fabric:
        fabric.run(encode(lowered.program), lowered.program.segments, image.data)
    assert not np.array_equal(image.get("picture"), vectors.expected["picture"])


def test_layers_of_each_distinct_shape_are_bit_exact():
    report = run_layers(small_graph(), DESIGNS["default"], board())
    assert report.values_differing == 0
    assert report.layers > 15


def test_the_whole_narrow_frame_is_bit_exact():
    graph, overlay = load("agc-w16"), default_overlay()
    report = run_frame(lowered_frame(overlay, graph=graph), graph, overlay)
    assert (report.values_compared, report.values_differing) == (3 * 256 * 256, 0)
    assert report.macs == 2_992_963_584


@pytest.mark.long
def test_full_width_layers_and_the_whole_full_width_frame_are_bit_exact():
    graph, overlay = agc_graph(AgcConfig()), default_overlay()
    layers = run_layers(graph, overlay, board())
    assert layers.values_differing == 0
    whole = run_frame(lowered_frame(overlay, graph=graph), graph, overlay)
    assert (whole.values_compared, whole.values_differing) == (3 * 256 * 256, 0)


@pytest.mark.long
def test_the_frame_is_clean_under_sanitizers():
    """An error of the address or undefined-behaviour sanitizer ends the test bench."""
    import subprocess
    import tempfile
    from pathlib import Path

    from hw.csim.fabric import compile_sources
    from hw.project.emit import project_files

    overlay = DESIGNS["two input, two output masters"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, data in project_files(lowered_frame(overlay), small_graph(), overlay,
                                        board()).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        bench = folder / "bench"
        compile_sources(folder / "sources",
                        ("testbench.cpp", "scheduler.cpp", "check.cpp", "host.cpp"), bench,
                        (*FLAGS, *SANITIZERS))
        done = subprocess.run([bench, folder / "data"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_compiler_error_is_told():
    with pytest.raises(SimulationError, match="failed:"):
        Fabric(lowered_frame(BASE).program, BASE, flags=(*FLAGS, "-DTM=)"))


def test_a_tensor_memory_holds_no_weights_and_ends_with_its_window():
    """What a transfer on chip may not be; without the memory its address lies outside."""
    overlay, graph = dataclasses.replace(BASE, tensor_memory_kib=64), small_graph()
    lowered = lowered_frame(overlay)
    table, units = lowered.program.operations, [unit.name for unit in lowered.program.units]
    stays = table[:, Column.ADDRESS] >= WINDOW
    assert stays.any() and not stays.all()
    weights = (table[:, Column.UNIT] == units.index("weight")) & (table[:, Column.ROWS] == 1)
    vectors = make_vectors(graph, lowered, 5)
    for rows, address, design, message in (
            (weights, WINDOW, overlay, "holds no weights"),
            (stays, (1 << 32) - 8, overlay, "beyond the window"),
            (stays, WINDOW, dataclasses.replace(overlay, tensor_memory_kib=0), "memory has")):
        changed = table.copy()
        changed[np.flatnonzero(rows)[0], Column.ADDRESS] = address
        image = MemoryImage.start(graph, lowered, overlay, vectors.inputs)
        program = dataclasses.replace(lowered.program, operations=changed)
        with (Fabric(program, design, host_layers(graph, lowered), QUICK) as fabric,
              pytest.raises(SimulationError, match=message)):
            fabric.run(encode(program), program.segments, image.data)
