"""Do designs whose padding is no zero compute every byte, in C and in RTL, to the cycle?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.overlay import Engine, default_overlay
from arch_models.resources import ZERO_POINTS, estimate
from cosim.program.table import Opcode
from hw.csim.fabric import Fabric, SimulationError
from hw.csim.simulate import run_frame_by_layer
from hw.interface.descriptors import encode
from studies.validate.rtl import compare_frame, compare_tiles
from tests.support.small_frames import QUICK, board, lowered_frame, small_graph
from tests.support.tiny_programs import ENGINE, OUT_FILLED, OUT_FREE, Sheet
from workloads.graph import Graph, Operator

BASE = dataclasses.replace(default_overlay(), zero_points=True)
SMALL = dataclasses.replace(BASE, tm=8, tn=8)


def shifted_graph() -> Graph:
    """The small frame; the padding of its convolutions, and what its sums and products add and
    take away, hold many values."""
    graph = small_graph()
    constants, layers = dict(graph.constants), []
    for index, layer in enumerate(graph.layers):
        value = 37 * index % 256 - 128
        if layer.operator is Operator.CONVOLUTION:
            layer = dataclasses.replace(layer, window=dataclasses.replace(
                layer.window, pad_value=value))
        roles = {Operator.ADD: ("offset",), Operator.MULTIPLY: ("zeros", "offset")}.get(
            layer.operator, ())
        for role in roles:
            name, one = f"{layer.name}.{role}", int(graph.constant(layer, "shift")[0])
            constants[name] = np.array([value, 11 - value] if role == "zeros" else [
                value << max(0, one - 2)], np.int32)
            layer = dataclasses.replace(layer, constants={**layer.constants, role: name})
        layers.append(layer)
    return dataclasses.replace(graph, layers=tuple(layers), constants=constants)


def test_a_frame_is_bit_exact_in_c():
    lowered = lowered_frame(BASE, graph=shifted_graph())
    report = run_frame_by_layer(lowered, shifted_graph(), BASE, seed=4, flags=QUICK)
    assert (report.values_differing, report.where) == (0, "")
    assert report.tensors == report.layers > 15


def test_a_design_that_pads_with_zero_refuses_another_value_in_c():
    sheet = Sheet()
    sheet.row(ENGINE, Opcode.CONVOLUTION, dict.fromkeys((
        "in_rows", "in_columns", "in_words", "out_rows", "out_columns", "out_words", "kernel_rows",
        "kernel_columns", "stride", "first", "last", "pad_value"), 1), OUT_FREE, OUT_FILLED)
    program = sheet.program()
    plain = dataclasses.replace(SMALL, zero_points=False)
    with (Fabric(program, plain, flags=QUICK) as built,
          pytest.raises(SimulationError, match="this design pads with 0 alone")):
        built.run(encode(program), program.segments, np.zeros(64, np.uint8))


@pytest.mark.parametrize(("opcode", "argument"), [
    (Opcode.ADD, "offset"), (Opcode.MULTIPLY, "zero_in"), (Opcode.MULTIPLY, "zero_other")])
def test_a_design_without_zero_points_refuses_them_in_c(opcode: Opcode, argument: str):
    sheet = Sheet()
    sheet.row(ENGINE, opcode, dict.fromkeys(("positions", "planes", argument), 1), OUT_FREE,
              OUT_FILLED)
    program = sheet.program()
    with (Fabric(program, dataclasses.replace(SMALL, zero_points=False), flags=QUICK) as built,
          pytest.raises(SimulationError, match="this design holds no zero points")):
        built.run(encode(program), program.segments, np.zeros(64, np.uint8))


@pytest.mark.parametrize("engine", [Engine.CONVOLUTION, Engine.DEPTHWISE, Engine.ELEMENTWISE])
def test_tiles_on_the_rtl(engine: Engine):
    only = dataclasses.replace(SMALL, engines=frozenset({engine}))
    tiles = compare_tiles(60, 0, only, board())
    assert tiles.equal and tiles.operations_compared > 150


@pytest.mark.long
def test_a_frame_on_the_rtl():
    assert compare_frame(shifted_graph(), SMALL, board()).equal


def test_its_sites_are_those_that_synthesis_counted():
    """LUTs of 8 and 16 channels, and of two columns, with `zero_points` and without."""
    only = frozenset({Engine.CONVOLUTION})
    for change, counted in (({}, 84), ({"columns": 2}, 155), ({"tm": 16, "tn": 16}, 148)):
        overlay = dataclasses.replace(SMALL, engines=only, **change)
        assert abs(estimate(overlay).part(ZERO_POINTS).lut - counted) < 8
    sums = estimate(dataclasses.replace(SMALL, engines=frozenset({Engine.ELEMENTWISE})))
    assert (sums.part(ZERO_POINTS).lut, sums.part(ZERO_POINTS).ff) == (80, 237)
