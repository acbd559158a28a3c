"""Does every engine of the C++ overlay compute what the reference computes?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.overlay import default_overlay
from cosim.program.table import ARGUMENT_COUNT, Buffer, Opcode
from hw.csim.fabric import Fabric
from hw.interface.descriptors import encode
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
    unblocked,
    weight_bytes,
)
from workloads import arithmetic
from workloads.convolution import convolve

OVERLAYS = {(tm, tn): dataclasses.replace(default_overlay(), tm=tm, tn=tn)
            for tm, tn in ((16, 8), (8, 16), (8, 8), (24, 16))}


@pytest.fixture(scope="module", params=OVERLAYS, ids=str)
def fabric(request):
    overlay = OVERLAYS[request.param]
    shell = Sheet().program()
    shell = dataclasses.replace(shell, operations=np.zeros((0, 18), np.int64),
                                arguments=np.zeros((0, ARGUMENT_COUNT), np.int32), segments=())
    with Fabric(shell, overlay) as built:
        yield overlay, built


def finished(fabric: Fabric, sheet: Sheet, channels: int, rows: int, columns: int) -> np.ndarray:
    """Store OUTPUT from word 0, run, and return the stored tensor."""
    positions, planes = rows * columns, planes_of(channels)
    address = sheet.place(np.full(positions * planes * 8, 85, np.uint8))
    sheet.store(address, planes, positions)
    memory, program = sheet.image(), sheet.program()
    fabric.reset()
    report = fabric.run(encode(program), program.segments, memory)
    assert sum(report.operations) == len(program.operations)
    return unblocked(memory[address : address + positions * planes * 8], channels, rows, columns)


def random_tensor(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(-128, 128, shape, np.int8)


def average2(value: np.ndarray) -> np.ndarray:
    channels, rows, columns = value.shape
    total = value.reshape(channels, rows // 2, 2, columns // 2, 2).astype(np.int64).sum((2, 4))
    return arithmetic.requantize(total, 1, 2)


@pytest.mark.parametrize("seed", range(12))
def test_convolution(fabric, seed):
    overlay, built = fabric
    generator = np.random.default_rng(seed)
    tm, tn = overlay.tm, overlay.tn
    kernel = int(generator.choice([1, 3, 5]))
    up, pool = seed % 3 == 1, seed % 4 == 2
    add, relu = seed % 4 == 3, bool(seed % 2)
    stride = 2 if seed == 8 else 1
    inner, outer = int(generator.integers(1, 30)), int(generator.integers(1, 30))
    rows, columns = (int(value) * 2 for value in generator.integers(2, 5, 2))
    image = random_tensor(generator, inner, rows, columns)
    weights = random_tensor(generator, outer, inner, kernel, kernel)
    bias = generator.integers(-5000, 5000, outer)
    multiplier, shift = generator.integers(1, 32768, outer), generator.integers(20, 26, outer)

    grown = image.repeat(2, 1).repeat(2, 2) if up else image
    total = convolve(grown, weights, stride, kernel // 2, 1).astype(np.int64)
    total += bias[:, None, None]
    want = arithmetic.requantize(total, multiplier[:, None, None], shift[:, None, None])
    if relu:
        want = np.maximum(want, 0)
    conv_rows, conv_columns = want.shape[1:]
    skip = random_tensor(generator, *want.shape)
    if add:
        both = want.astype(np.int64) * 3 + skip.astype(np.int64) * 5
        want = arithmetic.saturate(arithmetic.round_shift(both, 3))
    if pool:
        want = average2(want)

    sheet, out_words = Sheet(), -(-outer // tm)
    image_address, skip_address = sheet.place(blocks(image)), sheet.place(blocks(skip))
    entries = np.zeros((3, out_words * tm), np.int64)
    entries[:, :outer] = bias, multiplier, shift
    sheet.load_block(parameter_bytes(*entries), Buffer.CONVOLUTION_PARAMETERS, base=4)
    sheet.load_block(weight_bytes(weights, tm, tn), Buffer.WEIGHT, base=3, signal=WEIGHT_FILLED)
    if add:
        sheet.load(skip_address, planes_of(outer), conv_rows * conv_columns, 0, Buffer.OUTPUT)
    sheet.load(image_address, planes_of(inner), rows * columns, base=7, signal=IN_FILLED)
    in_words = -(-inner // tn)
    common = {
        "in_base": 7, "in_rows": rows, "in_columns": columns, "in_words": in_words,
        "weight_base": 3, "parameter_base": 4, "out_rows": conv_rows,
        "out_columns": conv_columns, "out_words": out_words, "kernel_rows": kernel,
        "kernel_columns": kernel, "stride": stride, "pad_top": kernel // 2,
        "pad_left": kernel // 2, "upsample": up, "first": 1, "last": 1, "relu": relu,
        "pool": pool, "add": add, "add_multiplier_new": 3, "add_multiplier_skip": 5,
        "add_shift": 3}
    sheet.row(ENGINE, Opcode.CONVOLUTION, common, IN_FILLED | WEIGHT_FILLED | OUT_FREE,
              OUT_FILLED)
    assert np.array_equal(finished(built, sheet, *want.shape), want)


@pytest.mark.parametrize("pool", [0, 1])
def test_convolution_split_over_input_channels(fabric, pool):
    overlay, built = fabric
    generator = np.random.default_rng(40)
    tm, tn = overlay.tm, overlay.tn
    inner, outer, size = 2 * tn, tm + 3, 6
    image = random_tensor(generator, inner, size, size)
    weights = random_tensor(generator, outer, inner, 3, 3)
    bias, multiplier = generator.integers(-5000, 5000, outer), np.full(outer, 1)
    shift = np.full(outer, 12)
    total = convolve(image, weights, 1, 1, 1).astype(np.int64) + bias[:, None, None]
    want = arithmetic.requantize(total, 1, 12)
    want = average2(want) if pool else want
    sheet, out_words = Sheet(), -(-outer // tm)
    address = sheet.place(blocks(image))
    entries = np.zeros((3, out_words * tm), np.int64)
    entries[:, :outer] = bias, multiplier, shift
    sheet.load_block(parameter_bytes(*entries), Buffer.CONVOLUTION_PARAMETERS)
    words = out_words * 9
    for part in range(2):
        piece = weights[:, part * tn : (part + 1) * tn]
        sheet.load_block(weight_bytes(piece, tm, tn), Buffer.WEIGHT, part * words, WEIGHT_FILLED)
        sheet.load(address + part * tn * size * size, tn // 8, size * size, part * size * size,
                   signal=IN_FILLED)
        sheet.row(ENGINE, Opcode.CONVOLUTION, {
            "in_base": part * size * size, "in_rows": size, "in_columns": size, "in_words": 1,
            "weight_base": part * words, "out_rows": size, "out_columns": size,
            "out_words": out_words, "kernel_rows": 3, "kernel_columns": 3, "stride": 1,
            "pad_top": 1, "pad_left": 1, "first": part == 0, "last": part == 1, "pool": pool},
            IN_FILLED | WEIGHT_FILLED | (OUT_FREE if part else 0), OUT_FILLED if part else 0)
    assert np.array_equal(finished(built, sheet, *want.shape), want)


def run_tile(fabric: Fabric, opcode: Opcode, values: dict[str, int], tensors: list[np.ndarray],
             want: np.ndarray, block: tuple[np.ndarray, Buffer] | None = None) -> None:
    """Load tensors one behind the other into INPUT, run one operation, compare the result."""
    sheet, base = Sheet(), 0
    if block is not None:
        sheet.load_block(block[0], block[1], signal=WEIGHT_FILLED)
    for index, tensor in enumerate(tensors):
        grid = tensor.dtype == np.int16
        address = sheet.place(grid_blocks(tensor) if grid else blocks(tensor))
        planes = 1 if grid else planes_of(tensor.shape[0])
        positions = tensor.shape[1] * tensor.shape[2]
        last = index == len(tensors) - 1
        sheet.load(address, planes, positions, base, signal=IN_FILLED if last else 0)
        base += 1000
    sheet.row(ENGINE, opcode, values, IN_FILLED | OUT_FREE | (WEIGHT_FILLED if block else 0),
              OUT_FILLED)
    assert np.array_equal(finished(fabric, sheet, *want.shape), want)


@pytest.fixture(params=range(3))
def generator(request):
    return np.random.default_rng(request.param)


def test_add(fabric, generator):
    one, other = random_tensor(generator, 27, 5, 6), random_tensor(generator, 27, 5, 6)
    both = one.astype(np.int64) * 23170 + other.astype(np.int64) * 77
    want = arithmetic.saturate(arithmetic.round_shift(both, 15))
    run_tile(fabric[1], Opcode.ADD, {"other_base": 1000, "positions": 30, "planes": 4,
             "multiplier_in": 23170, "multiplier_other": 77, "shift": 15}, [one, other], want)


@pytest.mark.parametrize("broadcast", [0, 1])
def test_multiply(fabric, generator, broadcast):
    one = random_tensor(generator, 27, 5, 6)
    other = random_tensor(generator, 1 if broadcast else 27, 5, 6)
    want = arithmetic.requantize(one.astype(np.int64) * other, 20001, 21)
    run_tile(fabric[1], Opcode.MULTIPLY, {
        "other_base": 1000, "positions": 30, "planes": 4, "broadcast": broadcast,
        "multiplier": 20001, "shift": 21}, [one, other], want)


@pytest.mark.parametrize("relu", [0, 1])
def test_affine(fabric, generator, relu):
    one = random_tensor(generator, 24, 5, 6)
    multiplier = generator.integers(-32768, 32768, 24)
    offset, shift = generator.integers(-90000, 90000, 24), generator.integers(0, 18, 24)
    total = one.astype(np.int64) * multiplier[:, None, None] + offset[:, None, None]
    want = arithmetic.saturate(arithmetic.round_shift(total, shift[:, None, None]))
    run_tile(fabric[1], Opcode.AFFINE, {"positions": 30, "planes": 3, "relu": relu}, [one],
             np.maximum(want, 0) if relu else want,
             (parameter_bytes(offset, multiplier, shift), Buffer.VECTOR_PARAMETERS))


def test_lookup(fabric, generator):
    one, table = random_tensor(generator, 16, 4, 9), random_tensor(generator, 256)
    run_tile(fabric[1], Opcode.LOOKUP, {"positions": 36, "planes": 2}, [one],
             table[one.astype(int) + 128], (table.view(np.uint8), Buffer.TABLE))


def test_softmax(fabric, generator):
    one = random_tensor(generator, 11, 4, 5)
    table = arithmetic.exp_table(float(generator.choice([0.01, 0.0625, 0.3])))
    run_tile(fabric[1], Opcode.SOFTMAX, {"positions": 20, "channels": 11, "fraction_bits": 9},
             [one], arithmetic.softmax(one, table, 9), (table.view(np.uint8), Buffer.TABLE))


def test_flow_sum(fabric, generator):
    masks = generator.integers(0, 128, (11, 6, 7), np.int8)
    shift = generator.integers(-9000, 9000, (2, 11, 1), np.int16)
    want = arithmetic.flow_sum(masks, shift, 7)
    bytes_of_shift = grid_blocks(shift)
    tile = np.zeros((8, 4, 7), np.int8)
    tile[:4] = want[:, 2:].copy().view(np.int8).reshape(2, 4, 7, 2).transpose(
        0, 3, 1, 2).reshape(4, 4, 7)
    run_tile(fabric[1], Opcode.FLOW_SUM, {
        "columns": 7, "positions": 28, "channels": 11, "first_row": 2, "fraction_bits": 7},
        [masks[:, 2:]], tile, (bytes_of_shift, Buffer.VECTOR_PARAMETERS))


def test_average_pool(fabric, generator):
    one = random_tensor(generator, 19, 6, 8)
    run_tile(fabric[1], Opcode.AVERAGE_POOL, {"in_rows": 6, "in_columns": 8, "planes": 3,
             "kernel": 2, "stride": 2}, [one], average2(one))


def test_max_pool(fabric, generator):
    one = random_tensor(generator, 19, 7, 8)
    padded = np.pad(one, ((0, 0), (1, 1), (1, 1)), constant_values=-128)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    want = windows[:, ::2, ::2].max(axis=(3, 4))
    run_tile(fabric[1], Opcode.MAX_POOL, {"in_rows": 7, "in_columns": 8, "planes": 3,
             "kernel": 3, "stride": 2, "padding": 1}, [one], want)


def test_upsample(fabric, generator):
    one = random_tensor(generator, 19, 5, 4)
    run_tile(fabric[1], Opcode.UPSAMPLE, {"in_rows": 5, "in_columns": 4, "planes": 3}, [one],
             one.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("fraction_bits", [0, 4, 7])
def test_grid_sample(fabric, generator, fraction_bits):
    one = random_tensor(generator, 19, 9, 8)
    low, high = -2 << fraction_bits, 11 << fraction_bits
    grid = generator.integers(low, high, (2, 6, 7), np.int16)
    run_tile(fabric[1], Opcode.GRID_SAMPLE, {
        "in_rows": 9, "in_columns": 8, "planes": 3, "grid_base": 1000, "positions": 42,
        "fraction_bits": fraction_bits}, [one, grid], arithmetic.bilinear(one, grid,
                                                                         fraction_bits))
