"""Does the C++ equal the reference at the edges of what is promised, where random values do not go?

Sums that saturate at both ends, the largest windows and shifts, quotients below zero, every shift
of a norm. The long test plants a fault in the C++ at each of them: each must be seen.
"""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from test_hw_engines import finished, run_tile
from test_hw_host import empty_program, one_layer, run_layer

from arch_models.overlay import default_overlay
from cosim.program.table import Buffer, Opcode
from hw.csim import fabric as fabric_module
from hw.csim.fabric import Fabric, compile_sources
from tests.support.small_frames import QUICK
from tests.support.tiny_programs import (
    ENGINE,
    IN_FILLED,
    OUT_FILLED,
    OUT_FREE,
    WEIGHT_FILLED,
    Sheet,
    blocks,
    grid_blocks,
    parameter_bytes,
    planes_of,
    weight_bytes,
)
from workloads import arithmetic, reference
from workloads.convolution import convolve
from workloads.graph import Operator, TensorSpec, Window

OVERLAY = dataclasses.replace(default_overlay(), tm=8, tn=8)
ENDS = np.array([-128, -127, -1, 0, 1, 126, 127], np.int8)
NORM = """
#include "norm_arithmetic.hpp"
extern "C" void entries(const std::int64_t *given, std::int64_t rows, std::int64_t *found) {
    for (std::int64_t row = 0; row < rows; ++row, given += 6, found += 3) {
        const cosim::Sums sums = {given[0], given[1], given[2]};
        const cosim::Entry entry = cosim::norm_entry(sums, cosim::group_root(sums, given[3]),
                                                     {given[4], given[5]});
        found[0] = entry.multiplier, found[1] = entry.offset, found[2] = entry.shift;
    }
}
"""


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """int8 (8, 7, 7) twice: every end beside every end."""
    one, other = (np.broadcast_to(part, (8, 7, 7)).astype(np.int8)
                  for part in np.meshgrid(ENDS, ENDS, indexing="ij"))
    return one, other


def add(built: Fabric) -> None:
    """Twice the greatest and twice the least."""
    one, other = pairs()
    both = 32767 * (one.astype(np.int64) + other)
    want = arithmetic.saturate(arithmetic.round_shift(both, 15))
    assert {-128, 127} <= set(want.ravel().tolist())
    run_tile(built, Opcode.ADD, {"other_base": 1000, "positions": 49, "planes": 1,
             "multiplier_in": 32767, "multiplier_other": 32767, "shift": 15}, [one, other], want)


def multiply(built: Fabric) -> None:
    """Products of both ends, not narrowed, and halves of either sign, which go to the even."""
    one, other = pairs()
    for shift in (0, 1, 7):
        want = arithmetic.requantize(one.astype(np.int64) * other, 1, shift)
        run_tile(built, Opcode.MULTIPLY, {"other_base": 1000, "positions": 49, "planes": 1,
                 "multiplier": 1, "shift": shift}, [one, other], want)


def affine(built: Fabric) -> None:
    """Offsets at both ends of int32, and every shift up to 47."""
    one = np.broadcast_to(ENDS[:, None], (48, 7, 1)).copy()
    multiplier = np.where(np.arange(48) % 2, 32767, -32768)
    offset = np.where(np.arange(48) % 3 == 0, 2**31 - 1, np.where(np.arange(48) % 3 == 1,
                                                                  -(2**31), 0))
    shift = np.arange(48)
    total = one.astype(np.int64) * multiplier[:, None, None] + offset[:, None, None]
    want = arithmetic.saturate(arithmetic.round_shift(total, shift[:, None, None]))
    run_tile(built, Opcode.AFFINE, {"positions": 7, "planes": 6, "relu": 0}, [one], want,
             (parameter_bytes(offset, multiplier, shift), Buffer.VECTOR_PARAMETERS))


def flow_sum(built: Fabric) -> None:
    """Displacements that leave int16 at both ends."""
    masks = np.full((11, 2, 7), 127, np.int8)
    shift = np.zeros((2, 11, 1), np.int16)
    shift[0], shift[1] = 32767, -32768
    want = arithmetic.flow_sum(masks, shift, 7)
    assert want.min() == -32768 and want.max() == 32767
    tile = np.zeros((8, 2, 7), np.int8)
    tile[:4] = want.copy().view(np.int8).reshape(2, 2, 7, 2).transpose(0, 3, 1, 2).reshape(4, 2, 7)
    run_tile(built, Opcode.FLOW_SUM, {
        "columns": 7, "positions": 14, "channels": 11, "first_row": 0, "fraction_bits": 7},
        [masks], tile, (grid_blocks(shift), Buffer.VECTOR_PARAMETERS))


def average_pool(built: Fabric) -> None:
    """Windows of 4 x 4 and 8 x 8, of values at the ends and between."""
    random = np.random.default_rng(4)
    image = random.integers(-128, 128, (19, 16, 16), np.int8)
    image[0], image[1] = 127, -128
    for kernel in (4, 8):
        size = 16 // kernel
        total = image.reshape(19, size, kernel, size, kernel).astype(np.int64).sum((2, 4))
        shift = (kernel * kernel).bit_length() - 1
        run_tile(built, Opcode.AVERAGE_POOL, {"in_rows": 16, "in_columns": 16, "planes": 3,
                 "kernel": kernel, "stride": kernel}, [image],
                 arithmetic.requantize(total, 1, shift))


def convolution(built: Fabric) -> None:
    """Sums beyond 24 bits of either sign, then an addition that saturates."""
    inner, outer = 120, 8
    image = np.full((inner, 4, 4), -128, np.int8)
    weights = np.full((outer, inner, 3, 3), -128, np.int8)
    weights[1::2] = 127
    total = convolve(image, weights, 1, 1, 1).astype(np.int64)
    assert total.max() > 2**24 and total.min() < -(2**24)
    multiplier, shift = np.full(outer, 32767), np.full(outer, 32)
    want = arithmetic.requantize(total, 32767, 32)
    skip = np.random.default_rng(5).choice(ENDS, want.shape)
    both = want.astype(np.int64) * 7 + skip.astype(np.int64) * 9
    both = arithmetic.round_shift(both, 3)
    assert both.min() < -128 and both.max() > 127
    want = arithmetic.saturate(both)
    sheet = Sheet()
    image_address, skip_address = sheet.place(blocks(image)), sheet.place(blocks(skip))
    sheet.load_block(parameter_bytes(np.zeros(outer, np.int64), multiplier, shift),
                     Buffer.CONVOLUTION_PARAMETERS)
    sheet.load_block(weight_bytes(weights, 8, 8), Buffer.WEIGHT, signal=WEIGHT_FILLED)
    sheet.load(skip_address, planes_of(outer), 16, 0, Buffer.OUTPUT)
    sheet.load(image_address, planes_of(inner), 16, signal=IN_FILLED)
    sheet.row(ENGINE, Opcode.CONVOLUTION, {
        "in_rows": 4, "in_columns": 4, "in_words": inner // 8, "out_rows": 4, "out_columns": 4,
        "out_words": 1, "kernel_rows": 3, "kernel_columns": 3, "stride": 1, "pad_top": 1,
        "pad_left": 1, "first": 1, "last": 1, "add": 1, "add_multiplier_new": 7,
        "add_multiplier_skip": 9, "add_shift": 3}, IN_FILLED | WEIGHT_FILLED | OUT_FREE,
        OUT_FILLED)
    assert np.array_equal(finished(built, sheet, *want.shape), want)


def host(built: Fabric) -> None:
    """A pool of 8 x 8 with padding, and an addition that saturates, on the processor."""
    pool = one_layer(Operator.AVERAGE_POOL, out=(6, 2, 2), window=Window(8, 8, 5, 3))
    random = np.random.default_rng(6)
    image = random.integers(-128, 128, (6, 7, 10), np.int8)
    image[0], image[1] = 127, -128
    add = one_layer(Operator.ADD, out=(6, 7, 10),
                    constants={"multiplier": "two", "shift": "zero"})
    layer = dataclasses.replace(add.layers[0], inputs=("in", "other"))
    add = dataclasses.replace(
        add, inputs=("in", "other"), layers=(layer,),
        tensors={**add.tensors, "other": TensorSpec("other", 6, 7, 10)},
        constants={"two": np.array([2, 3], np.int32), "zero": np.array([0], np.int32)})
    for graph, inputs in ((pool, [image]), (add, [image, image])):
        want = reference.execute_layer(graph, graph.layers[0], inputs)
        assert np.array_equal(run_layer(built, graph, graph.layers[0], inputs), want)


def norm(built: Fabric) -> None:
    """Entries of every shift, with slopes and sums of either sign that leave a remainder."""
    # Groups of equal values: the steepest slopes, beyond the greatest drop of 24.
    rows = [(1, 5 * sign, 25, 0, sign << bits, 0) for bits in (26, 27, 28, 30) for sign in (1, -1)]
    random = np.random.default_rng(7)
    for drop in range(26):
        for sign in (1, -1):
            count = int(random.choice([1, 3, 64, 4095, 1 << 18]))
            total = sign * int(random.integers(0, 128 * count))
            squares = total * total // count + int(random.integers(1, 50 * count + 2))
            scale = -sign * ((1 << drop) + int(random.integers(0, 1 << drop)))
            offset = int(random.integers(-(1 << 28), 1 << 28)) if drop % 2 else sign * drop
            epsilon = int(random.integers(0, 1 << 20))
            rows.append((count, total, squares, epsilon, scale, offset))
    want = [[int(part[0]) for part in arithmetic.group_norm_entries(
        row[:3], np.array([row[4]]), np.array([row[5]]), row[3])] for row in rows]
    assert {0, 24} <= {shift for _, _, shift in want}  # all dropped, and nothing
    assert len({shift for _, _, shift in want}) > 12
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in fabric_module.SOURCES.glob("*.hpp"):
            shutil.copy(path, folder)
        (folder / "norm.cpp").write_text(NORM)
        library = folder / f"norm_{folder.name}.so"
        compile_sources(folder, ("norm.cpp",), library, (*QUICK, "-shared", "-fPIC"))
        given, found = np.array(rows, np.int64), np.zeros((len(rows), 3), np.int64)
        ctypes.CDLL(str(library)).entries(
            given.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(rows)),
            found.ctypes.data_as(ctypes.c_void_p))
    assert np.array_equal(found, want)


EDGES = {edge.__name__: edge for edge in (add, multiply, affine, flow_sum, average_pool,
                                          convolution, host, norm)}


@pytest.fixture(scope="module")
def built():
    with Fabric(empty_program(), OVERLAY, flags=QUICK) as fabric:
        yield fabric


@pytest.mark.parametrize("name", EDGES)
def test_the_edge_is_reached_and_right(built, name):
    EDGES[name](built)


#: One fault each: file, what stands there, what is planted, the edge that must see it.
PLANTED = [
    ("spatial.hpp", "bit < 16", "bit < 6", "average_pool"),
    ("spatial.hpp", "saturate8(round_shift(sum[lane], shift))", "sum[lane] / (1 << shift)",
     "average_pool"),
    ("vector.hpp", "static_cast<std::int8_t>(saturate8(round_shift(both, item.shift)))",
     "static_cast<std::int8_t>(round_shift(both, item.shift))", "add"),
    ("vector.hpp", "put_int16(result, 0, saturate16(x));",
     "put_int16(result, 0, static_cast<std::int32_t>(x));", "flow_sum"),
    ("vector.hpp", "put_int16(result, 2, saturate16(y));",
     "put_int16(result, 2, static_cast<std::int32_t>(y));", "flow_sum"),
    ("arithmetic.hpp", "return value > greatest ? greatest : static_cast<std::int32_t>(value);",
     "(void)greatest; return static_cast<std::int32_t>(value);", "multiply"),
    ("arithmetic.hpp", "const std::int64_t floored = value >> shift;",
     "const std::int64_t floored = value / (std::int64_t{1} << shift);", "multiply"),
    ("norm_arithmetic.hpp", "quotient - (value % divisor != 0 && (value < 0) != (divisor < 0) ? "
     "1 : 0)", "quotient", "norm"),
    ("convolution.hpp", "value = saturate8(round_shift(both, item.add_shift));",
     "value = static_cast<std::int8_t>(round_shift(both, item.add_shift));", "convolution"),
    ("convolution.hpp", "requantize(sum[m],", "requantize(sum[m] << 8 >> 8,", "convolution"),
    ("norm_arithmetic.hpp", "bit_length(slope) - 15", "bit_length(slope) - 16", "norm"),
    ("norm_arithmetic.hpp", "bit_length(start) - 31", "bit_length(start) - 32", "norm"),
    ("norm_arithmetic.hpp", "drop > 2 * NORM_BITS ? 2 * NORM_BITS : drop", "drop", "norm"),
    ("host_operators.hpp", "result = rectified(layer, narrowed(layer, round_shift(both, "
     "layer.shift)));", "result = static_cast<std::int8_t>(round_shift(both, layer.shift));",
     "host"),
]


@pytest.mark.long
@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: f"{fault[0]} {fault[2][:30]}")
def test_a_planted_fault_is_seen(tmp_path, monkeypatch, fault):
    file, old, new, edge = fault
    shutil.copytree(fabric_module.SOURCES, tmp_path / "hls")
    path = tmp_path / "hls" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    monkeypatch.setattr(fabric_module, "SOURCES", tmp_path / "hls")
    with Fabric(empty_program(), OVERLAY, flags=QUICK) as fabric, pytest.raises(AssertionError):
        EDGES[edge](fabric)
