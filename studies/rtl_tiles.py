"""Random single tiles for every engine of an overlay, as one program with its memory image.

It runs and judges nothing. Each tile is loaded, computed and stored before the next one begins.
A tile that a buffer cannot hold is drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from arch_models.board import Board
from arch_models.engines import MODELS, Tile, Work
from arch_models.fields import FieldError
from arch_models.overlay import Engine, Fusion, Overlay
from cosim.descriptor_loads import with_fetches
from cosim.mapping import check_channels
from cosim.program import (
    ARGUMENT_COUNT,
    ARGUMENTS,
    Buffer,
    Column,
    Opcode,
    Program,
    Segment,
)
from cosim.wiring import Wiring, wire
from studies.tile_room import check_room
from workloads import arithmetic

BEAT = 8
WEIGHT_BASES = 9
DRAWS = 300  # of one tile, before its buffers are refused as too small


@dataclass
class Sheet:
    """Rows and memory bytes as they are drawn; `program` and `image` make values of them."""

    overlay: Overlay
    wiring: Wiring
    draw: np.random.Generator
    rows: list[np.ndarray] = field(default_factory=list)
    arguments: list[np.ndarray] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)
    size: int = 0
    stored: list[tuple[int, int]] = field(default_factory=list)  # output, row: of the last tile
    kept: list[tuple[int, int]] = field(default_factory=list)  # of the last one with blocks

    def random_bytes(self, count: int) -> np.ndarray:
        """Bytes over the whole range."""
        return self.draw.integers(0, 256, count, np.uint8)

    def below(self, limit: int) -> int:
        """An integer from 1 to `limit`."""
        return int(self.draw.integers(1, limit + 1))

    def put(self, data: np.ndarray) -> int:
        """Place bytes at any multiple of 8; their address."""
        address = self.size + BEAT * int(self.draw.integers(8))
        block = np.zeros(-(-(address + data.size - self.size) // 64) * 64, np.uint8)
        block[address - self.size :][: data.size] = data
        self.blocks.append(block)
        self.size += block.size
        return address

    def row(self, unit: int, opcode: Opcode, values: dict[str, int], **columns: int) -> None:
        """One operation."""
        row = np.zeros(len(Column), np.int64)
        row[Column.UNIT], row[Column.KIND] = unit, opcode
        for name, value in columns.items():
            row[Column[name]] = value
        functional = np.zeros(ARGUMENT_COUNT, np.int32)
        for name, value in values.items():
            functional[ARGUMENTS[opcode].index(name)] = value
        self.rows.append(row)
        self.arguments.append(functional)

    def transfer(self, unit: int, opcode: Opcode, values: dict[str, int], address: int,
                 planes: int, beats: int, pitch: int = 0, **columns: int) -> None:
        """`planes` runs of `beats`; planes lie `pitch` beats apart (0: one behind the other)."""
        self.row(unit, opcode, values, ADDRESS=address, ROW_BYTES=BEAT * beats, ROWS=1,
                 PLANES=planes, PLANE_STRIDE=BEAT * (pitch or beats), **columns)

    def parts(self, masters: list[int], planes: int, positions: int, lanes: int
              ) -> list[tuple[int, range, range]]:
        """A tile split between masters as lowering does: (master, planes, positions)."""
        words, count = -(-planes // lanes), len(masters)
        if words >= count and self.draw.integers(2):
            return [(master, range(words * index // count * lanes,
                                   min(planes, words * (index + 1) // count * lanes)),
                     range(positions)) for index, master in enumerate(masters)]
        return [(master, range(planes),
                 range(positions * index // count, positions * (index + 1) // count))
                for index, master in enumerate(masters)]

    def move(self, unit: int, opcode: Opcode, values: dict[str, int], address: int, lanes: int,
             positions: int, part: tuple[range, range], wait: int, signal: int) -> int:
        """A part of a tile; the number of its row."""
        planes, places = part
        base = values["base"] + planes.start // lanes * positions + places.start
        self.transfer(unit, opcode, {**values, "base": base, "positions": positions},
                      address + BEAT * (planes.start * positions + places.start), len(planes),
                      len(places), positions, WAIT=wait, SIGNAL=signal)
        return len(self.rows) - 1

    def sharers(self, count: int, positions: int) -> list[int]:
        """Which masters of a role work on a tile: one, or all if each gets a part."""
        if positions >= count and self.draw.integers(2):
            return list(range(count))
        return [int(self.draw.integers(count))]

    def tokens(self, stores: list[tuple[int, int]], masks: Sequence[int]) -> int:
        """Let earlier stores (output, row) signal `masks[output]`; what to wait for."""
        for output, row in stores:
            self.rows[row][Column.SIGNAL] |= masks[output]
        return sum(masks[output] for output, _ in stores)

    def load_block(self, data: np.ndarray, buffer: Buffer, base: int, wait: int,
                   signal: int) -> None:
        """Weights, parameters or a table."""
        self.transfer(self.wiring.weight, Opcode.LOAD, {"buffer": buffer, "base": base},
                      self.put(data), 1, data.size // BEAT, WAIT=wait, SIGNAL=signal)

    def tile(self, engine: Engine, opcode: Opcode, values: dict[str, int], work: Work,
             tile: Tile, inputs: list[tuple[np.ndarray, int, int, int]], out_planes: int,
             out_positions: int, blocks: list[tuple[np.ndarray, Buffer, int]] | None = None,
             skip: np.ndarray | None = None,
             before: tuple[dict[str, int], Tile] | None = None) -> None:
        """Loads, one operation and its store. `inputs`: (bytes, planes, positions, base).

        Masters share the tile at random. A tile begins when the one before it is stored.
        `before`: arguments and tile of an operation that goes before on the same banks.
        Raises `FieldError`, with nothing added, if a buffer is too small.
        """
        lanes_in, lanes_out = self.overlay.tn // BEAT, self.overlay.tm // BEAT
        check_room(
            self.overlay, opcode, tile,
            max(base + -(-planes // lanes_in) * count for _, planes, count, base in inputs),
            values["out_base"] + -(-out_planes // lanes_out) * out_positions,
            [(data.size, buffer, base) for data, buffer, base in blocks or []])
        wires, wiring = self.wiring.engines[engine], self.wiring
        readers = self.sharers(len(wiring.inputs), min(item[2] for item in inputs))
        writers = self.sharers(len(wiring.outputs), out_positions)
        working = {*readers, *([0] if skip is not None else [])}  # the first loads skip tiles
        begins = {master: (int(wires.inputs[master, 2]) if master in readers else 0)
                  | self.tokens(self.stored, [row[master] for row in wiring.layer_done])
                  for master in sorted(working)}
        for index, (data, planes, positions, base) in enumerate(inputs):
            address, last = self.put(data), index == len(inputs) - 1
            for master, *part in self.parts(readers, planes, positions, lanes_in):
                self.move(wiring.inputs[master], Opcode.LOAD,
                          {"buffer": Buffer.INPUT, "base": base}, address, lanes_in, positions,
                          (part[0], part[1]), begins.pop(master, 0),
                          int(wires.inputs[master, 1]) if last else 0)
        needs = sum(int(wires.inputs[i, 1]) for i in readers)
        needs += sum(int(wires.outputs[j, 2]) for j in writers)
        gives = sum(int(wires.inputs[i, 2]) for i in readers)
        gives += sum(int(wires.outputs[j, 1]) for j in writers)
        if skip is not None:
            self.move(wiring.inputs[0], Opcode.LOAD,
                      {"buffer": Buffer.OUTPUT, "base": values["out_base"]}, self.put(skip),
                      lanes_out, out_positions, (range(out_planes), range(out_positions)),
                      sum(int(wires.outputs[j, 3]) for j in writers) | begins.pop(0, 0),
                      wires.skip_filled)
            needs |= wires.skip_filled
        for index, (data, buffer, base) in enumerate(blocks or []):
            wait = 0 if index else wires.weight_free | self.tokens(
                self.kept, wiring.stored)
            self.load_block(data, buffer, base, wait,
                            wires.weight_filled if index == len(blocks or []) - 1 else 0)
        if blocks:
            needs, gives = needs | wires.weight_filled, gives | wires.weight_free
        model = next(item for item in MODELS if item.engine is engine)
        for arguments, size in [*([before] if before else []), (values, tile)]:
            cost = model.cost(work, size, self.overlay)
            self.row(wires.unit, opcode, arguments, WAIT=needs,
                     SIGNAL=gives if size is tile else 0, FILL=cost.fill,
                     INTERVAL=cost.interval, TRIPS=cost.trips, DRAIN=cost.drain)
            needs = 0
        address = self.put(np.full(out_planes * out_positions * BEAT, 85, np.uint8))
        self.stored = [(master, self.move(
            wiring.outputs[master], Opcode.STORE, {"base": values["out_base"]}, address, lanes_out,
            out_positions, (part[0], part[1]), int(wires.outputs[master, 1]),
            int(wires.outputs[master, 2])
            | (int(wires.outputs[master, 3]) if skip is not None else 0)))
            for master, *part in self.parts(writers, out_planes, out_positions, lanes_out)]
        if blocks:
            self.kept = self.stored

    def program(self, name: str) -> Program:
        """The rows as a program of one layer; descriptors that are fetched lie behind the image."""
        rows, arguments = np.array(self.rows), np.array(self.arguments)
        segments = [Segment(0, len(rows))]
        if self.wiring.fetch >= 0:
            rows, arguments, segments = with_fetches(
                rows, arguments, segments, self.wiring, self.size)
        return Program(name, self.wiring.units, self.wiring.channels, ("tiles",), rows, arguments,
                       tuple(segments))

    def image(self) -> np.ndarray:
        """The memory before the program runs."""
        return np.concatenate(self.blocks)


def entries(sheet: Sheet, count: int, reach: int) -> np.ndarray:
    """Random parameter entries whose results use much of the 8-bit range."""
    found = np.zeros(count, np.dtype([("offset", "<i4"), ("multiplier", "<i2"), ("shift", "u1"),
                                      ("zero", "u1")]))
    shift = sheet.draw.integers(0, 24, count)
    found["offset"] = sheet.draw.integers(-reach, reach, count)
    found["multiplier"] = np.minimum(sheet.draw.integers(1, 200, count) << (shift // 3), 32767)
    found["shift"] = np.where(sheet.draw.random(count) < 0.05, 0, shift)
    return found.view(np.uint8)


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
        "add_shift": int(draw.integers(0, 7)),
    }
    taps = kernel_rows * kernel_columns
    words = out_words * in_words * taps
    first, last = None, dict(values)
    if split and in_words > 1:  # partial sums stay in the accumulators between two operations
        part = sheet.below(in_words - 1)
        first = ({**values, "in_words": part, "last": 0},
                 Tile(out_rows, out_columns, 1, 1, part, out_words))
        last |= {"in_base": values["in_base"] + part * rows * columns, "first": 0,
                 "in_words": in_words - part,
                 "weight_base": values["weight_base"] + out_words * part * taps}
    positions = (out_rows >> pool) * (out_columns >> pool)
    planes = out_words * out_lanes
    sheet.tile(
        Engine.CONVOLUTION, Opcode.CONVOLUTION, last,
        Work("convolution", kernel_rows, kernel_columns, stride),
        Tile(out_rows, out_columns, 1, 1, last["in_words"], out_words),
        [(sheet.random_bytes(in_words * in_lanes * rows * columns * BEAT), in_words * in_lanes,
          rows * columns, values["in_base"])], planes, positions,
        [(sheet.random_bytes(words * overlay.tm * overlay.tn), Buffer.WEIGHT,
          values["weight_base"]),
         (entries(sheet, out_words * overlay.tm, 1 << 18), Buffer.CONVOLUTION_PARAMETERS,
          values["parameter_base"])],
        sheet.random_bytes(planes * positions * BEAT) if add else None, first)


def two_operands(sheet: Sheet) -> None:
    """Addition, or multiplication with or without broadcast."""
    draw = sheet.draw
    planes, positions, broadcast = sheet.below(5), sheet.below(30), int(draw.integers(2))
    groups = -(-planes // (sheet.overlay.tn // BEAT))
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "planes": planes, "shift": int(draw.integers(0, 16))}
    values["other_base"] = values["in_base"] + groups * positions
    multiply = bool(draw.integers(2))
    opcode = Opcode.MULTIPLY if multiply else Opcode.ADD
    if multiply:
        values |= {"broadcast": broadcast, "multiplier": int(draw.integers(1, 32768))}
    else:
        values |= {"multiplier_in": int(draw.integers(1, 32768)),
                   "multiplier_other": int(draw.integers(1, 32768))}
    others = 1 if multiply and broadcast else planes
    sheet.tile(Engine.ELEMENTWISE, opcode, values, Work(opcode.name.lower()),
               Tile(1, positions, planes),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"]),
                (sheet.random_bytes(others * positions * BEAT), others, positions,
                 values["other_base"])], planes, positions)


def affine(sheet: Sheet) -> None:
    """Per-channel multiply and offset, with or without ReLU."""
    planes, positions = sheet.below(5), sheet.below(30)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "planes": planes, "parameter_base": BEAT * sheet.below(4),
              "relu": int(sheet.draw.integers(2))}
    sheet.tile(Engine.ELEMENTWISE, Opcode.AFFINE, values, Work("affine"),
               Tile(1, positions, planes),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"])], planes, positions,
               [(entries(sheet, planes * BEAT, 1 << 20), Buffer.VECTOR_PARAMETERS,
                 values["parameter_base"])])


def flow_sum(sheet: Sheet) -> None:
    """Masks times displacements plus the identity grid; whole rows."""
    channels, columns, rows = sheet.below(20), sheet.below(9), sheet.below(4)
    planes = -(-channels // BEAT)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "columns": columns,
              "positions": rows * columns, "channels": channels,
              "parameter_base": sheet.below(30), "first_row": sheet.below(60),
              "fraction_bits": int(sheet.draw.integers(0, 9))}
    sheet.tile(Engine.ELEMENTWISE, Opcode.FLOW_SUM, values, Work("flow_sum"),
               Tile(rows, columns, planes, channels),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"])], 1, rows * columns,
               [(sheet.random_bytes(channels * BEAT), Buffer.VECTOR_PARAMETERS,
                 values["parameter_base"])])


def lookup(sheet: Sheet) -> None:
    """Any table."""
    planes, positions = sheet.below(5), sheet.below(30)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "planes": planes, "table_base": 32 * int(sheet.draw.integers(2))}
    sheet.tile(Engine.LOOKUP, Opcode.LOOKUP, values, Work("lookup"), Tile(1, positions, planes),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"])], planes, positions,
               [(sheet.random_bytes(256), Buffer.TABLE, values["table_base"])])


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
    sheet.tile(Engine.POOL, opcode, values,
               Work(opcode.name.lower(), kernel, kernel, stride, padding),
               Tile(out_rows, out_columns, planes),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"])], planes, out_rows * out_columns)


def upsample(sheet: Sheet) -> None:
    """Nearest x2."""
    planes, rows, columns = sheet.below(4), sheet.below(6), sheet.below(6)
    values = {"in_base": sheet.below(9), "in_rows": rows, "in_columns": columns,
              "planes": planes, "out_base": sheet.below(9)}
    sheet.tile(Engine.UPSAMPLE, Opcode.UPSAMPLE, values, Work("upsample"),
               Tile(2 * rows, 2 * columns, planes),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"])], planes, 4 * rows * columns)


def softmax(sheet: Sheet) -> None:
    """One to twenty channels, with the table of a random input scale."""
    channels, positions = sheet.below(20), sheet.below(9)
    planes = -(-channels // BEAT)
    values = {"in_base": sheet.below(9), "out_base": sheet.below(9), "positions": positions,
              "channels": channels, "table_base": 64, "fraction_bits": 5 + sheet.below(4)}
    table = arithmetic.exp_table(float(sheet.draw.uniform(0.001, 0.2)))
    sheet.tile(Engine.SOFTMAX, Opcode.SOFTMAX, values, Work("softmax"),
               Tile(1, positions, planes, channels),
               [(sheet.random_bytes(planes * positions * BEAT), planes, positions,
                 values["in_base"])], planes, positions,
               [(table.view(np.uint8), Buffer.TABLE, 64)])


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
    sheet.tile(Engine.GRID_SAMPLE, Opcode.GRID_SAMPLE, values, Work("grid_sample"),
               Tile(1, positions, planes),
               [(sheet.random_bytes(planes * rows * columns * BEAT), planes, rows * columns,
                 values["in_base"]),
                (grid.reshape(-1).view(np.uint8), 1, positions, values["grid_base"])],
               planes, positions)


TILES: dict[Engine, tuple[Callable[[Sheet], None], ...]] = {
    Engine.CONVOLUTION: (convolution,), Engine.ELEMENTWISE: (two_operands, affine, flow_sum),
    Engine.LOOKUP: (lookup,), Engine.POOL: (pool,), Engine.UPSAMPLE: (upsample,),
    Engine.SOFTMAX: (softmax,), Engine.GRID_SAMPLE: (grid_sample,),
}


def random_tiles(overlay: Overlay, board: Board, count: int, seed: int
                 ) -> tuple[Program, np.ndarray]:
    """A program of `count` random tiles over the overlay's engines, and its memory image.

    Raises `FieldError` for an overlay whose channels or buffers are too few or too small.
    """
    if refused := check_channels(overlay):
        raise FieldError(str(refused))
    sheet = Sheet(overlay, wire(overlay, board), np.random.default_rng(seed))
    kinds = [kind for engine in TILES if engine in overlay.engines for kind in TILES[engine]]
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
