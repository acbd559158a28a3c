"""A program and its memory image written down tile by tile: loads, operations, stores.

It chooses no tiles (`rtl_tiles` does), and runs and judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from arch_models.engines import MODELS, Tile, Work
from arch_models.overlay import Engine, Overlay
from cosim.lowering.fetches import with_fetches
from cosim.lowering.wiring import Wiring
from cosim.program.table import (
    ARGUMENT_COUNT,
    ARGUMENTS,
    Buffer,
    Column,
    Opcode,
    Program,
    Segment,
    WeightOrder,
)
from hw.rtl_sim.room import check_room

BEAT = 8


@dataclass(frozen=True)
class Block:
    """What the weight master loads: `planes` runs of equal length into `buffer` at `base`.

    `order`, `words`: of an activation that becomes weights, with that many input words.
    """

    data: np.ndarray
    buffer: Buffer
    base: int
    planes: int = 1
    order: WeightOrder = WeightOrder.STORED
    words: int = 0


@dataclass(frozen=True)
class Step:
    """One operation of an engine."""

    opcode: Opcode
    values: dict[str, int]
    work: Work
    tile: Tile


class Part(NamedTuple):
    """What one master moves of a tile."""

    master: int
    planes: range
    positions: range


class Tokens(NamedTuple):
    """Masks of the channels that an operation waits for and signals."""

    wait: int
    signal: int


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

    def pad_value(self) -> int:
        """What padding holds: 0 in a design that has no other."""
        return int(self.draw.integers(-128, 128)) if self.overlay.zero_points else 0

    def offset(self) -> int:
        """What zero points add to a sum or a product: 0 in a design that holds none."""
        return int(self.draw.integers(-1 << 22, 1 << 22)) if self.overlay.zero_points else 0

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
              ) -> list[Part]:
        """A tile split between masters as lowering does."""
        words, count = -(-planes // lanes), len(masters)
        if words >= count and self.draw.integers(2):
            return [Part(master, range(words * index // count * lanes,
                                       min(planes, words * (index + 1) // count * lanes)),
                         range(positions)) for index, master in enumerate(masters)]
        return [Part(master, range(planes),
                     range(positions * index // count, positions * (index + 1) // count))
                for index, master in enumerate(masters)]

    def move(self, unit: int, opcode: Opcode, values: dict[str, int], address: int, lanes: int,
             positions: int, part: Part, tokens: Tokens) -> int:
        """A part of a tile; the number of its row."""
        planes, places = part.planes, part.positions
        base = values["base"] + planes.start // lanes * positions + places.start
        self.transfer(unit, opcode, {**values, "base": base, "positions": positions},
                      address + BEAT * (planes.start * positions + places.start), len(planes),
                      len(places), positions, WAIT=tokens.wait,
                      SIGNAL=tokens.signal)
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

    def load_block(self, block: Block, wait: int, signal: int) -> None:
        """Weights, parameters, a table or an operand."""
        values = {"buffer": block.buffer, "base": block.base, "order": block.order,
                  "positions": block.words}
        self.transfer(self.wiring.weight, Opcode.LOAD, values, self.put(block.data), block.planes,
                      block.data.size // BEAT // block.planes, WAIT=wait, SIGNAL=signal)

    def words(self, block: Block) -> int:
        """Words of its buffer that a block reaches, from its base on."""
        overlay = self.overlay
        if block.buffer is not Buffer.WEIGHT:
            return block.data.size // BEAT
        positions = block.data.size // BEAT // block.planes
        if block.order is WeightOrder.STORED:
            return -(-block.data.size // (overlay.tm * overlay.tn))
        outputs = positions if block.order is WeightOrder.ROWS else BEAT * block.planes
        return -(-outputs // overlay.tm) * block.words

    def tile(self, engine: Engine, step: Step, inputs: list[tuple[np.ndarray, int, int, int]],
             out_planes: int, out_positions: int, blocks: Sequence[Block] = (),
             skip: np.ndarray | None = None, before: Sequence[Step] = ()) -> None:
        """Loads, one operation and its store. `inputs`: (bytes, planes, positions, base).

        Masters share the tile at random. A tile begins when the one before it is stored.
        `before`: operations that go before on the same banks.
        Raises `FieldError`, with nothing added, if a buffer is too small.
        """
        lanes_in, lanes_out = self.overlay.tn // BEAT, self.overlay.tm // BEAT
        check_room(
            self.overlay, step.opcode, step.tile,
            max(base + -(-planes // lanes_in) * count for _, planes, count, base in inputs),
            step.values["out_base"] + -(-out_planes // lanes_out) * out_positions,
            [(self.words(block), block.buffer, block.base) for block in blocks])
        wires, wiring = self.wiring.engines[engine], self.wiring
        readers = self.sharers(len(wiring.inputs), min(item[2] for item in inputs))
        writers = self.sharers(len(wiring.outputs), out_positions)
        working = {*readers, *([0] if skip is not None else [])}  # the first loads skip tiles
        begins = {master: (int(wires.inputs[master, 2]) if master in readers else 0)
                  | self.tokens(self.stored, [row[master] for row in wiring.layer_done])
                  for master in sorted(working)}
        for index, (data, planes, positions, base) in enumerate(inputs):
            address, last = self.put(data), index == len(inputs) - 1
            for part in self.parts(readers, planes, positions, lanes_in):
                self.move(wiring.inputs[part.master], Opcode.LOAD,
                          {"buffer": Buffer.INPUT, "base": base}, address, lanes_in, positions,
                          part, Tokens(begins.pop(part.master, 0),
                                       int(wires.inputs[part.master, 1]) if last else 0))
        needs = sum(int(wires.inputs[i, 1]) for i in readers)
        needs += sum(int(wires.outputs[j, 2]) for j in writers)
        gives = sum(int(wires.inputs[i, 2]) for i in readers)
        gives += sum(int(wires.outputs[j, 1]) for j in writers)
        if skip is not None:
            self.move(wiring.inputs[0], Opcode.LOAD,
                      {"buffer": Buffer.OUTPUT, "base": step.values["out_base"]}, self.put(skip),
                      lanes_out, out_positions, Part(0, range(out_planes), range(out_positions)),
                      Tokens(sum(int(wires.outputs[j, 3]) for j in writers) | begins.pop(0, 0),
                             wires.skip_filled))
            needs |= wires.skip_filled
        for index, block in enumerate(blocks):
            wait = 0 if index else wires.weight_free | self.tokens(
                self.kept, wiring.stored)
            self.load_block(block, wait,
                            wires.weight_filled if index == len(blocks) - 1 else 0)
        if blocks:
            needs, gives = needs | wires.weight_filled, gives | wires.weight_free
        self.compute(engine, (*before, step), Tokens(needs, gives))
        address = self.put(np.full(out_planes * out_positions * BEAT, 85, np.uint8))
        self.stored = [(part.master, self.move(
            wiring.outputs[part.master], Opcode.STORE, {"base": step.values["out_base"]}, address,
            lanes_out, out_positions, part, Tokens(
                int(wires.outputs[part.master, 1]), int(wires.outputs[part.master, 2])
                | (int(wires.outputs[part.master, 3]) if skip is not None else 0))))
            for part in self.parts(writers, out_planes, out_positions, lanes_out)]
        if blocks:
            self.kept = self.stored

    def compute(self, engine: Engine, steps: Sequence[Step], tokens: Tokens) -> None:
        """Operations of an engine on the same banks; the first waits, the last signals."""
        model = next(item for item in MODELS if item.engine is engine)
        wait = tokens.wait
        for item in steps:
            cost = model.cost(item.work, item.tile, self.overlay)
            self.row(self.wiring.engines[engine].unit, item.opcode, item.values, WAIT=wait,
                     SIGNAL=tokens.signal if item is steps[-1] else 0, FILL=cost.fill,
                     INTERVAL=cost.interval, TRIPS=cost.trips, DRAIN=cost.drain)
            wait = 0

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
