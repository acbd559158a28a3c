"""Do designs with weights of 4 and of 8 bits compute every byte, in C and in RTL, to the cycle?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.overlay import Engine, default_overlay
from cosim.program.table import CONVOLUTIONS, Column, Opcode
from hw.csim.fabric import Fabric, SimulationError
from hw.csim.simulate import run_frame_by_layer
from hw.interface.descriptors import encode
from studies.validate.rtl import compare_frame, compare_tiles
from tests.support.small_frames import QUICK, board, lowered_frame, mixed_graph
from tests.support.tiny_programs import ENGINE, OUT_FILLED, OUT_FREE, Sheet

BASE = dataclasses.replace(default_overlay(), narrow_weights=True)
SMALL = dataclasses.replace(BASE, tm=8, tn=8)
CHANGES = {
    "default": {}, "odd words, small buffers": {"tm": 24, "tn": 16, "weight_words": 64},
    "packed, three columns": {"tm": 8, "columns": 3, "dsp_packing": True}}


@pytest.mark.parametrize("name", CHANGES)
def test_a_frame_of_both_widths_is_bit_exact_in_c(name):
    overlay = dataclasses.replace(BASE, **CHANGES[name])
    flags = (*QUICK, "-DCOSIM_PACK_PRODUCTS=1") if overlay.dsp_packing else QUICK
    lowered = lowered_frame(overlay, graph=mixed_graph())
    kinds = lowered.program.operations[:, Column.KIND]
    assert all(np.count_nonzero(kinds == opcode) > 5 for opcode in CONVOLUTIONS)
    report = run_frame_by_layer(lowered, mixed_graph(), overlay, seed=4, flags=flags)
    assert (report.values_differing, report.where) == (0, "")
    assert report.tensors == report.layers > 15


def test_a_design_that_cannot_unpack_refuses_narrow_weights_in_c():
    sheet = Sheet()
    sheet.row(ENGINE, Opcode.NARROW_CONVOLUTION, dict.fromkeys((
        "in_rows", "in_columns", "in_words", "out_rows", "out_columns", "out_words", "kernel_rows",
        "kernel_columns", "stride", "first", "last"), 1), OUT_FREE, OUT_FILLED)
    program = sheet.program()
    plain = dataclasses.replace(SMALL, narrow_weights=False)
    with (Fabric(program, plain, flags=QUICK) as built,
          pytest.raises(SimulationError, match="this design has no narrow weights")):
        built.run(encode(program), program.segments, np.zeros(64, np.uint8))


def test_tiles_and_a_frame_of_both_widths_on_the_rtl():
    """Blocks with an odd number of words, split reductions, and operands of a matmul among them."""
    only = dataclasses.replace(SMALL, engines=frozenset({Engine.CONVOLUTION}))
    tiles = compare_tiles(60, 0, only, board())
    frame = compare_frame(mixed_graph(), only, board())
    assert tiles.equal and frame.equal
    assert tiles.operations_compared > 150 and frame.operations_compared > 150


@pytest.mark.long
def test_a_frame_of_both_widths_with_every_engine_on_the_rtl():
    assert compare_frame(mixed_graph(), SMALL, board()).equal


@pytest.mark.long
@pytest.mark.parametrize("memory", ["flat", "ddr3"])
def test_packed_products_of_both_widths_on_the_rtl(memory):
    only = dataclasses.replace(
        BASE, tm=16, tn=16, columns=2, dsp_packing=True, engines=frozenset({Engine.CONVOLUTION}))
    assert compare_tiles(180, 0, only, board(), memory).equal
