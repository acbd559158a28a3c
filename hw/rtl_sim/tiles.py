"""Random single tiles for every engine of an overlay, as one program with its memory image.

It runs and judges nothing. Each tile is loaded, computed and stored before the next one begins.
A tile that a buffer cannot hold is drawn again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from arch_models.board import Board
from arch_models.engines import Tile, Work
from arch_models.engines.depthwise import words_of_plane
from arch_models.fields import FieldError
from arch_models.overlay import Engine, Fusion, Overlay
from arch_models.units import ceil_div
from cosim.lowering.wiring import wire
from cosim.program.table import (
    CONVOLUTIONS,
    NORM_CONSTANTS,
    Buffer,
    Opcode,
    Program,
    WeightOrder,
)
from hw.rtl_sim.sheet import BEAT, Block, Sheet, Step
from workloads import arithmetic

WEIGHT_BASES = 9
MOST_SHIFT = 47  # of an entry
MANY = 300  # positions: more than 8 bits hold
DRAWS = 300  # of one tile, before its buffers are refused as too small


def entries(sheet: Sheet, count: int, reach: int) -> np.ndarray:
    """Random parameter entries whose results use much of the 8-bit range.

    Some have sums of up to 31 bits and shifts of up to 47: what a requantizer promises.
    """
    found = np.zeros(count, np.dtype([("offset", "<i4"), ("multiplier", "<i2"), ("shift", "u1"),
                                      ("zero", "u1")]))
    shift = sheet.draw.integers(0, 24, count)
    found["offset"] = sheet.draw.integers(-reach, reach, count)
    found["multiplier"] = np.minimum(sheet.draw.integers(1, 200, count) << (shift // 3), 32767)
    found["shift"] = np.where(sheet.draw.random(count) < 0.05, 0, shift)
    large = np.flatnonzero(sheet.draw.random(count) < 0.2)
    bits = sheet.draw.integers(18, 31, large.size)
    found["offset"][large] = sheet.draw.integers(-(1 << bits), 1 << bits)
    found["multiplier"][large] = sheet.draw.integers(-32768, 32768, large.size)
    found["shift"][large] = np.minimum(bits + sheet.draw.integers(6, 18, large.size), MOST_SHIFT)
    return found.view(np.uint8)


def reaches(sheet: Sheet, limit: int) -> int:
    """A number from 1 to `limit`, but now and then one of nine bits."""
    return sheet.below(limit if sheet.draw.random() < 0.85 else MANY)


def convolution(sheet: Sheet) -> None:
    """Kernel 1 to 5, stride 1 or 2, padding, ReLU, whole or split reductions, and the fused
    upsample, pool and addition that the overlay has."""
    overlay, draw = sheet.overlay, sheet.draw
    in_lanes, out_lanes = overlay.tn // BEAT, overlay.tm // BEAT
    relu, split = (int(draw.integers(2)) for _ in range(2))
    pool, upsample, add = (int(draw.integers(2)) if fusion in overlay.fusions else 0
                           for fusion in (Fusion.POOL, Fusion.UPSAMPLE, Fusion.ADD))
    add = 0 if pool else add
    rows, columns, in_words, out_words = (sheet.below(limit) for limit in (7, 7, 3, 2))
    kernel_rows, kernel_columns, stride = sheet.below(5), sheet.below(5), sheet.below(2)
    room = overlay.weight_words * overlay.weight_banks - WEIGHT_BASES
    while out_words * in_words * kernel_rows * kernel_columns > max(room, out_words * in_words):
        kernel_rows, kernel_columns = max(1, kernel_rows - 1), max(1, kernel_columns - 1)
    out_rows, out_columns = (sheet.below(5) << pool for _ in range(2))
    opcode = CONVOLUTIONS[int(draw.integers(2)) if overlay.narrow_weights else 0]
    halves = 1 + (opcode is Opcode.NARROW_CONVOLUTION)
    values = {
        "in_base": sheet.below(40), "in_rows": rows, "in_columns": columns,
        "in_words": in_words, "weight_base": sheet.below(WEIGHT_BASES),
        "parameter_base": overlay.tm * sheet.below(3), "out_base": sheet.below(40),
        "out_rows": out_rows, "out_columns": out_columns, "out_words": out_words,
        "kernel_rows": kernel_rows, "kernel_columns": kernel_columns, "stride": stride,
        "pad_top": int(draw.integers(kernel_rows)),
        "pad_left": int(draw.integers(kernel_columns)),
        "upsample": upsample, "first": 1, "last": 1, "relu": relu, "pool": pool, "add": add,
        "add_multiplier_new": sheet.below(20), "add_multiplier_skip": sheet.below(20),
        "add_shift": int(draw.integers(0, 7)), "pad_value": sheet.pad_value(),
    }
    taps = kernel_rows * kernel_columns
    words = out_words * in_words * taps  # of the last operation's weights
    held = 0  # words of WEIGHT before them
    work = Work("convolution", kernel_rows, kernel_columns, stride)
    before: list[Step] = []
    last = dict(values)
    if split and in_words > 1:  # partial sums stay in the accumulators between two operations
        part = sheet.below(in_words - 1)
        before = [Step(opcode, {**values, "in_words": part, "last": 0}, work,
                       Tile(out_rows, out_columns, 1, 1, part, out_words))]
        words, held = words - out_words * part * taps, ceil_div(out_words * part * taps, halves)
        last |= {"in_base": values["in_base"] + part * rows * columns, "first": 0,
                 "in_words": in_words - part,
                 "weight_base": values["weight_base"] + held}
    positions = (out_rows >> pool) * (out_columns >> pool)
    planes = out_words * out_lanes
    sheet.tile(
        Engine.CONVOLUTION,
        Step(opcode, last, work,
             Tile(out_rows, out_columns, 1, 1, last["in_words"], out_words)),
        [(sheet.random_bytes(in_words * in_lanes * rows * columns * BEAT), in_words * in_lanes,
          rows * columns, values["in_base"])], planes, positions,
        [Block(sheet.random_bytes((held * halves + words) * overlay.tm * overlay.tn // halves),
               Buffer.WEIGHT, values["weight_base"]),
         Block(entries(sheet, out_words * overlay.tm, 1 << 18), Buffer.CONVOLUTION_PARAMETERS,
               values["parameter_base"])],
        sheet.random_bytes(planes * positions * BEAT) if add else None, before)


def matmul(sheet: Sheet) -> None:
    """A 1 x 1 convolution whose weights are an activation, by rows or by columns.

    Results of channels that the operand lacks have a multiplier of zero, as lowering gives them.
    """
    overlay, draw = sheet.overlay, sheet.draw
    in_lanes, out_lanes = overlay.tn // BEAT, overlay.tm // BEAT
    order = WeightOrder(int(draw.integers(1, 3)))
    if order is WeightOrder.ROWS:  # positions are output channels
        outputs, operand_planes = sheet.below(2 * overlay.tm), sheet.below(3 * in_lanes)
        operand_positions, in_words = outputs, -(-operand_planes // in_lanes)
    else:
        operand_planes, operand_positions = sheet.below(2 * out_lanes), sheet.below(3 * overlay.tn)
        outputs, in_words = BEAT * operand_planes, -(-operand_positions // overlay.tn)
    out_words = -(-outputs // overlay.tm)
    positions, planes = reaches(sheet, 30), -(-outputs // BEAT)
    values = {
        "in_base": sheet.below(40), "in_rows": 1, "in_columns": positions, "in_words": in_words,
        "weight_base": sheet.below(WEIGHT_BASES), "parameter_base": overlay.tm * sheet.below(3),
        "out_base": sheet.below(40), "out_rows": 1, "out_columns": positions,
        "out_words": out_words, "kernel_rows": 1, "kernel_columns": 1, "stride": 1,
        "first": 1, "last": 1}
    parameters = entries(sheet, out_words * overlay.tm, 1 << 18)
    parameters.reshape(-1, BEAT)[outputs:] = 0
    sheet.tile(
        Engine.CONVOLUTION,
        Step(Opcode.CONVOLUTION, values, Work("convolution"),
             Tile(1, positions, 1, 1, in_words, out_words)),
        [(sheet.random_bytes(in_words * in_lanes * positions * BEAT), in_words * in_lanes,
          positions, values["in_base"])], planes, positions,
        [Block(sheet.random_bytes(operand_planes * operand_positions * BEAT), Buffer.WEIGHT,
               values["weight_base"], operand_planes, order, in_words),
         Block(parameters, Buffer.CONVOLUTION_PARAMETERS, values["parameter_base"])])


def two_operands(sheet: Sheet) -> None:
    """Addition, or multiplication with or without broadcast."""
    draw = sheet.draw
    planes, positions, broadcast = sheet.below(5), reaches(sheet, 30), int(draw.integers(2))
    groups = -(-planes // (sheet.overlay.tn // BEAT))
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "planes": planes, "shift": int(draw.integers(0, 16)), "offset": sheet.offset()}
    values["other_base"] = values["in_base"] + groups * positions
    multiply = bool(draw.integers(2))
    opcode = Opcode.MULTIPLY if multiply else Opcode.ADD
    if multiply:
        values |= {"broadcast": broadcast, "multiplier": int(draw.integers(1, 32768)),
                   "zero_in": sheet.pad_value(), "zero_other": sheet.pad_value()}
    else:
        values |= {"multiplier_in": int(draw.integers(1, 32768)),
                   "multiplier_other": int(draw.integers(1, 32768))}
    others = 1 if multiply and broadcast else planes
    sheet.tile(Engine.ELEMENTWISE,
               Step(opcode, values, Work(opcode.name.lower()),
                    Tile(1, positions, planes)),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"]),
                (sheet.random_bytes(others * positions * BEAT), others, positions,
                 values["other_base"])], planes, positions)


def affine(sheet: Sheet) -> None:
    """Per-channel multiply and offset, with or without ReLU."""
    planes, positions = sheet.below(5), reaches(sheet, 30)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "planes": planes, "parameter_base": BEAT * sheet.below(4),
              "relu": int(sheet.draw.integers(2))}
    sheet.tile(Engine.ELEMENTWISE,
               Step(Opcode.AFFINE, values, Work("affine"),
                    Tile(1, positions, planes)),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"])], planes, positions,
               [Block(entries(sheet, planes * BEAT, 1 << 20), Buffer.VECTOR_PARAMETERS,
                 values["parameter_base"])])


def flow_sum(sheet: Sheet) -> None:
    """Masks times displacements plus the identity grid; whole rows."""
    channels, columns, rows = sheet.below(20), sheet.below(9), sheet.below(4)
    planes = -(-channels // BEAT)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "columns": columns,
              "positions": rows * columns, "channels": channels,
              "parameter_base": sheet.below(30), "first_row": sheet.below(60),
              "fraction_bits": int(sheet.draw.integers(0, 9))}
    sheet.tile(Engine.ELEMENTWISE,
               Step(Opcode.FLOW_SUM, values, Work("flow_sum"),
                    Tile(rows, columns, planes, channels)),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"])], 1, rows * columns,
               [Block(sheet.random_bytes(channels * BEAT), Buffer.VECTOR_PARAMETERS,
                 values["parameter_base"])])


def lookup(sheet: Sheet) -> None:
    """Any table."""
    planes, positions = sheet.below(5), reaches(sheet, 30)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "planes": planes, "table_base": 32 * int(sheet.draw.integers(2))}
    sheet.tile(Engine.LOOKUP,
               Step(Opcode.LOOKUP, values, Work("lookup"),
                    Tile(1, positions, planes)),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"])], planes, positions,
               [Block(sheet.random_bytes(256), Buffer.TABLE, values["table_base"])])


def pool(sheet: Sheet) -> None:
    """Average pools of 1, 2, 4, 8; maximum pools with any kernel, stride and padding."""
    average = bool(sheet.draw.integers(2))
    planes = sheet.below(4)
    if average:
        kernel = stride = 1 << int(sheet.draw.integers(4))
        padding, rows, columns = 0, kernel * sheet.below(3), kernel * sheet.below(3)
    else:
        kernel, stride = sheet.below(4), sheet.below(3)
        padding = int(sheet.draw.integers((kernel + 1) // 2))
        rows, columns = kernel + sheet.below(7), kernel + sheet.below(7)
    out_rows, out_columns = ((size + 2 * padding - kernel) // stride + 1
                             for size in (rows, columns))
    values = {"in_base": sheet.below(9), "in_rows": rows, "in_columns": columns,
              "planes": planes, "out_base": sheet.below(9), "kernel": kernel, "stride": stride}
    if not average:
        values["padding"] = padding
    opcode = Opcode.AVERAGE_POOL if average else Opcode.MAX_POOL
    sheet.tile(Engine.POOL,
               Step(opcode, values, Work(opcode.name.lower(), kernel, kernel, stride, padding),
                    Tile(out_rows, out_columns, planes)),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"])], planes, out_rows * out_columns)


def upsample(sheet: Sheet) -> None:
    """Nearest x2."""
    planes, rows, columns = sheet.below(4), sheet.below(6), sheet.below(6)
    values = {"in_base": sheet.below(9), "in_rows": rows, "in_columns": columns,
              "planes": planes, "out_base": sheet.below(9)}
    sheet.tile(Engine.UPSAMPLE,
               Step(Opcode.UPSAMPLE, values, Work("upsample"),
                    Tile(2 * rows, 2 * columns, planes)),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"])], planes, 4 * rows * columns)


def softmax(sheet: Sheet) -> None:
    """One to forty channels, with the table of a random input scale."""
    channels, positions = sheet.below(40), sheet.below(9)
    planes = -(-channels // BEAT)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "channels": channels, "table_base": 64, "fraction_bits": 5 + sheet.below(4)}
    table = arithmetic.exp_table(float(sheet.draw.uniform(0.001, 0.2)))
    sheet.tile(Engine.SOFTMAX,
               Step(Opcode.SOFTMAX, values, Work("softmax"),
                    Tile(1, positions, planes, channels)),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"])], planes, positions,
               [Block(table.view(np.uint8), Buffer.TABLE, 64)])


def grid_sample(sheet: Sheet) -> None:
    """Any grid: positions near the image and far outside it."""
    planes, rows, columns, positions = (sheet.below(limit) for limit in (4, 8, 8, 20))
    groups = -(-planes // (sheet.overlay.tn // BEAT))
    fraction = int(sheet.draw.integers(0, 10))
    values = {"in_base": sheet.below(9), "in_rows": rows, "in_columns": columns,
              "planes": planes, "positions": positions, "out_base": sheet.below(9),
              "fraction_bits": fraction}
    values["grid_base"] = values["in_base"] + groups * rows * columns
    grid = np.zeros((positions, 4), np.int16)
    reach = (max(rows, columns) + 2) << fraction
    near = sheet.draw.integers(-2 << fraction, reach, (positions, 2))
    far = sheet.draw.integers(-32768, 32768, (positions, 2))
    grid[:, :2] = np.clip(np.where(sheet.draw.random((positions, 1)) < 0.8, near, far),
                          -32768, 32767)
    sheet.tile(Engine.GRID_SAMPLE,
               Step(Opcode.GRID_SAMPLE, values, Work("grid_sample"),
                    Tile(1, positions, planes)),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"]),
                (grid.reshape(-1).view(np.uint8), 1, positions, values["grid_base"])],
               planes, positions)


def group_norm(sheet: Sheet) -> None:
    """Sums of a block once or over two chunks, its entries with or without film, and a part of
    the tile normalized. Scales and spreads reach from no shift of an entry to the whole one."""
    draw = sheet.draw
    groups, each, film = sheet.below(3), sheet.below(12), int(draw.integers(2))
    channels, all_positions = groups * each, sheet.below(30)
    planes, chunks = -(-channels // BEAT), sheet.below(2)
    values = {"in_base": sheet.below(9), "planes": planes}
    sums = {**values, "positions": all_positions, "channels": channels, "group_channels": each,
            "all_positions": chunks * all_positions, "film": film,
            "parameter_base": NORM_CONSTANTS,
            "gain_base": NORM_CONSTANTS + channels,
            "offset_base": NORM_CONSTANTS + channels + planes}
    first = int(draw.integers(all_positions))
    positions = sheet.below(all_positions - first)
    reach = 1 << int(draw.integers(1, 18))
    given = [np.array([draw.integers(0, 1 << 40)]).view(np.uint8),
             draw.integers(-(1 << 16), 1 << 16, 2, np.int32).view(np.uint8),
             draw.integers(-reach, reach, (channels, 2), np.int32).reshape(-1).view(np.uint8),
             sheet.random_bytes(2 * planes * BEAT)]
    data = sheet.random_bytes(planes * all_positions * BEAT)
    if draw.integers(2):  # little spread makes large multipliers
        data = (data % 4).astype(np.uint8)
    if draw.random() < 0.15:  # none: the root of the least spread
        data[:] = data[0]
        given[0][:] = 0
    before = [Step(Opcode.GROUP_SUMS, {**sums, "first": int(index == 0),
                                       "last": int(index == chunks - 1)},
                   Work("group_sums"), Tile(1, all_positions, planes, channels,
                                            groups=groups if index == chunks - 1 else 0))
              for index in range(chunks)]
    step = Step(Opcode.GROUP_NORM,
                {**values, "in_base": values["in_base"] + first, "in_positions": all_positions,
                 "out_base": sheet.below(9), "positions": positions,
                 "relu": int(draw.integers(2))}, Work("group_norm"), Tile(1, positions, planes))
    sheet.tile(Engine.NORM, step, [(data, planes, all_positions, values["in_base"])], planes,
               positions, [Block(np.concatenate(given), Buffer.NORM_PARAMETERS, 0)],
               before=before)


def depthwise(sheet: Sheet) -> None:
    """Kernel 1 to 7, stride 1 to 3, padding, ReLU."""
    draw, overlay = sheet.draw, sheet.overlay
    planes, kernel_rows, kernel_columns, stride = (sheet.below(limit) for limit in (4, 7, 7, 3))
    rows, columns = sheet.below(6), reaches(sheet, 6)
    words = planes * words_of_plane(kernel_rows, kernel_columns, overlay)
    in_rows, in_columns = sheet.below(9), sheet.below(9)
    values = {
        "in_base": sheet.below(9), "in_rows": in_rows, "in_columns": in_columns, "planes": planes,
        "weight_base": sheet.below(WEIGHT_BASES), "parameter_base": BEAT * sheet.below(3),
        "out_base": sheet.below(9), "row_span": (rows - 1) * stride + 1,
        "column_span": (columns - 1) * stride + 1, "kernel_rows": kernel_rows,
        "kernel_columns": kernel_columns, "stride": stride,
        "pad_top": int(draw.integers(kernel_rows)), "pad_left": int(draw.integers(kernel_columns)),
        "relu": int(draw.integers(2)), "pad_value": sheet.pad_value()}
    sheet.tile(
        Engine.DEPTHWISE,
        Step(Opcode.DEPTHWISE, values,
             Work("convolution", kernel_rows, kernel_columns, stride, groups=2, depthwise=True),
             Tile(rows, columns, planes)),
        [(sheet.random_bytes(planes * in_rows * in_columns * BEAT), planes, in_rows * in_columns,
          values["in_base"])], planes, rows * columns,
        [Block(entries(sheet, planes * BEAT, 1 << 14), Buffer.DEPTHWISE_PARAMETERS,
               values["parameter_base"]),
         Block(sheet.random_bytes(words * overlay.depthwise_taps * BEAT),
               Buffer.DEPTHWISE_WEIGHTS, values["weight_base"] * overlay.depthwise_taps)])


TILES: dict[Engine, tuple[Callable[[Sheet], None], ...]] = {
    Engine.CONVOLUTION: (convolution, matmul), Engine.ELEMENTWISE: (two_operands, affine, flow_sum),
    Engine.LOOKUP: (lookup,), Engine.POOL: (pool,), Engine.UPSAMPLE: (upsample,),
    Engine.SOFTMAX: (softmax,), Engine.GRID_SAMPLE: (grid_sample,),
    Engine.NORM: (group_norm,), Engine.DEPTHWISE: (depthwise,),
}


def random_tiles(overlay: Overlay, board: Board, count: int, seed: int
                 ) -> tuple[Program, np.ndarray]:
    """A program of `count` random tiles over the overlay's engines, and its memory image.

    Raises `FieldError` for an overlay with no such engine, or with a buffer that is too small.
    """
    sheet = Sheet(overlay, wire(overlay, board), np.random.default_rng(seed))
    kinds = [kind for engine in TILES if engine in overlay.engines for kind in TILES[engine]]
    if not kinds:
        raise FieldError(f"engines is {list(map(str, sorted(overlay.engines)))}, must have one "
                         f"of {', '.join(TILES)} for random tiles")
    for index in range(count):
        _draw(kinds[index % len(kinds)], sheet)
    return sheet.program(f"tiles-{seed}"), sheet.image()


def _draw(kind: Callable[[Sheet], None], sheet: Sheet) -> None:
    for left in reversed(range(DRAWS)):
        try:
            return kind(sheet)
        except FieldError:
            if not left:
                raise
