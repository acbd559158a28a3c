"""Do attention and group norm in the C++ fabric equal the reference, for any design and order?"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from arch_models.overlay import Engine, Overlay, load_overlay
from cosim.analysis.image import MemoryImage
from cosim.analysis.interpret import interpret
from cosim.build import build
from cosim.lowering.lower import Lowered
from cosim.program.table import ARGUMENTS, Column, Opcode, WeightOrder
from hw.board.driver import Driver
from hw.board.emitted import Project
from hw.board.seal import seal
from hw.csim.fabric import Fabric, run_top
from hw.csim.simulate import run_frame, run_frame_by_layer
from hw.interface.vectors import host_layers, make_vectors, outputs
from hw.project.emit import emit
from hw.rtl_sim.stand_in import CSimRunner, StandIn
from tests.support.small_frames import QUICK, board
from workloads.frames import Frame
from workloads.graph import Graph
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import NEXT_LATENT, OUTPUT, unicorn_graph
from workloads.unicorn.run import decode, looped, starting_values
from workloads.verify import verify

SMALL = UnicornConfig(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,),
                      head_channels=8, embedding=32, latent_rows=8, latent_cols=8,
                      decoder_widths=(16, 8), images=4, groups=4, steps=3)
BASE = load_overlay("diffusion")
DESIGNS: dict[str, Overlay] = {
    "diffusion": BASE,
    "small buffers": dataclasses.replace(BASE, tm=8, tn=16, input_words=80, weight_words=80,
                                         output_words=40, accumulator_words=64),
    "padded words, two columns": dataclasses.replace(BASE, tm=24, tn=24, columns=2,
                                                     input_words=150, output_words=20),
    "single banks": dataclasses.replace(BASE, input_banks=1, weight_banks=1, output_banks=1),
}


def lowered_step(graph: Graph, overlay: Overlay, steps: int = 1) -> Lowered:
    found = build(graph, overlay, board(), steps=steps)
    assert isinstance(found, Lowered)
    return found


@pytest.mark.parametrize("name", DESIGNS)
def test_a_step_and_its_picture_are_bit_exact(name: str) -> None:
    overlay, graph = DESIGNS[name], unicorn_graph(SMALL)
    lowered = lowered_step(graph, overlay)
    report = run_frame_by_layer(lowered, graph, overlay, seed=4, flags=QUICK)
    assert (report.values_differing, report.where) == (0, "")
    assert report.tensors == report.layers == len(lowered.mapping.layers)
    orders = lowered.program.arguments[
        lowered.program.operations[:, Column.KIND] == Opcode.LOAD,
        ARGUMENTS[Opcode.LOAD].index("order")]
    assert set(orders) == set(WeightOrder)
    assert Engine.NORM in {item.engine for item in lowered.mapping.layers}


@pytest.mark.parametrize("order", [1, 12345])
def test_any_legal_order_gives_the_same_picture(order: int) -> None:
    """Operands and gains are loaded by the weight master, which runs ahead of the barriers."""
    overlay, graph = DESIGNS["small buffers"], unicorn_graph(SMALL)
    report = run_frame(lowered_step(graph, overlay), graph, overlay, order=order, flags=QUICK)
    assert report.values_compared == 4 * 8 * 8 + 3 * 16 * 16
    assert report.values_differing == 0


def test_the_emitted_loop_decodes_the_picture_of_the_reference() -> None:
    """All steps as one repeated segment: counter and latent are carried by their addresses."""
    plain, overlay = unicorn_graph(SMALL), DESIGNS["diffusion"]
    graph, given = looped(plain), starting_values(plain, 2)
    verify(graph)
    lowered = lowered_step(graph, overlay, SMALL.steps)
    assert [part.repeat for part in lowered.program.segments] == [SMALL.steps, 1]
    places = lowered.placement.addresses
    assert places["latent"] == places[NEXT_LATENT] and places["step"] == places["step_next"]
    want = decode(plain, SMALL, 2)
    assert np.array_equal(interpret(lowered, graph, overlay, given)[OUTPUT], want)
    vectors = make_vectors(graph, lowered, inputs=given)
    assert np.array_equal(vectors.expected[OUTPUT], want)
    report = run_frame(lowered, graph, overlay, inputs=given, order=3, flags=QUICK)
    assert report.values_differing == 0
    image = MemoryImage.start(graph, lowered, overlay, vectors.inputs)
    run_top(lowered.program, overlay, image.data, host_layers(graph, lowered), QUICK)
    assert np.array_equal(image.get(OUTPUT), want)


def test_an_emitted_project_says_what_each_frame_needs_anew(tmp_path) -> None:
    graph = looped(unicorn_graph(SMALL))
    lowered = lowered_step(graph, BASE, SMALL.steps)
    emit(lowered, graph, BASE, board(), tmp_path / "out",
         Frame(starting_values(unicorn_graph(SMALL), 0)))
    tensors = json.loads((tmp_path / "out" / "manifest.json").read_text())["tensors"]
    assert {name for name, entry in tensors.items() if entry.get("renew")} == {"latent", "step"}


def test_the_driver_decodes_picture_after_picture_of_a_sampler(tmp_path) -> None:
    """What a frame's steps hand on is put back before the next frame."""
    plain = unicorn_graph(SMALL)
    graph, folder = looped(plain), tmp_path / "out"
    lowered = lowered_step(graph, BASE, SMALL.steps)
    emit(lowered, graph, BASE, board(), folder, Frame(starting_values(plain, 1)))
    bitstream = tmp_path / "overlay.bit"
    bitstream.write_bytes(b"a stand-in for a bitstream")
    seal(str(folder), str(bitstream))
    project = Project(str(folder))
    with Fabric(lowered.program, BASE, host_layers(graph, lowered), QUICK) as fabric:
        hardware = StandIn(CSimRunner(fabric), tuple(project.manifest["memory_ports"]))
        with Driver(project, hardware, fabric, str(bitstream), str(tmp_path / "lock")) as driver:
            driver.put_vectors()
            measurement = driver.measure(2, driver.expected_vectors())
            for number in (3, 0):
                given = starting_values(plain, number)
                for name in project.manifest["tensors"].keys() & given.keys():
                    driver.put(name, given[name])  # the others are the same for every picture
                driver.run()
                assert np.array_equal(driver.get(OUTPUT), decode(plain, SMALL, number))
    assert measurement.values_compared > 0 and measurement.values_differing == 0


def test_the_synthesized_top_makes_the_same_picture() -> None:
    overlay, graph = DESIGNS["small buffers"], unicorn_graph(SMALL)
    lowered = lowered_step(graph, overlay)
    vectors = make_vectors(graph, lowered, 5)
    image = MemoryImage.start(graph, lowered, overlay, vectors.inputs)
    run_top(lowered.program, overlay, image.data, host_layers(graph, lowered), QUICK)
    for output in outputs(graph, lowered):
        assert np.array_equal(image.get(output), vectors.expected[output])
