"""Executes a program's functional meaning on bytes, in token order and without time.

It is the numpy counterpart of the emitted C++; it counts no cycles and no bursts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np

from arch_models.overlay import Overlay
from cosim.analysis.image import MemoryImage
from cosim.lowering.lower import Lowered
from cosim.program.table import ARGUMENTS, Buffer, Column, Opcode, Program, WeightOrder, flat
from workloads import arithmetic
from workloads.graph import Graph

BEAT = 8


class InterpretError(RuntimeError):
    """The program stops before its end, or an operation leaves its buffer."""


class Machine:
    """The buffers of an overlay and a memory image (uint8); operations change them in place."""

    def __init__(self, overlay: Overlay, memory: np.ndarray,
                 host: Callable[[int, np.ndarray], None]) -> None:
        self.tm, self.tn = overlay.tm, overlay.tn
        self.memory, self.host = memory, host
        # Stale contents must not matter, so buffers start with garbage.
        garbage = np.random.default_rng(7)

        def buffer(*shape: int) -> np.ndarray:
            return garbage.integers(-128, 128, shape, np.int8)

        self.input = buffer(overlay.input_words * overlay.input_banks, self.tn)
        self.output = buffer(overlay.output_words * overlay.output_banks, self.tm)
        self.weight = buffer(overlay.weight_words * overlay.weight_banks, self.tm * self.tn)
        self.parameters = buffer(overlay.parameter_entries, BEAT)
        self.vectors = buffer(overlay.vector_entries, BEAT)
        self.table = buffer(overlay.table_bytes // BEAT, BEAT)
        self.norm = buffer(overlay.vector_entries, BEAT)
        self.sums = np.zeros((2, overlay.vector_entries), np.int64)
        self.entries = np.zeros((3, overlay.vector_entries), np.int64)
        self.accumulator = np.zeros((overlay.accumulator_words, self.tm), np.int64)

    def _runs(self, line: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The DRAM pattern of a transfer: (plane, its bytes as a view list of rows)."""
        address, size = int(line[Column.ADDRESS]), int(line[Column.ROW_BYTES])
        for plane in range(int(line[Column.PLANES])):
            start = address + plane * int(line[Column.PLANE_STRIDE])
            rows = [start + row * int(line[Column.ROW_STRIDE])
                    for row in range(int(line[Column.ROWS]))]
            index = (np.array(rows)[:, None] + np.arange(size)[None]).reshape(-1)
            if index[-1] >= len(self.memory):
                raise InterpretError(f"address {index[-1]} is outside the memory")
            yield plane, index

    def load(self, line: np.ndarray, a: dict[str, int]) -> None:
        """DRAM beats into a buffer."""
        kind, base, positions = Buffer(a["buffer"]), a["base"], a["positions"]
        if kind in (Buffer.INPUT, Buffer.OUTPUT):
            words, width = ((self.input, self.tn) if kind is Buffer.INPUT
                            else (self.output, self.tm))
            lanes = width // BEAT
            for plane, index in self._runs(line):
                beats = self.memory[index].view(np.int8).reshape(-1, BEAT)
                first, lane = base + plane // lanes * positions, plane % lanes * BEAT
                words[_range(words, first, len(beats)), lane : lane + BEAT] = beats
            return
        if a["order"] != WeightOrder.STORED:
            self._load_operand(line, a)
            return
        data = np.concatenate([self.memory[index] for _, index in self._runs(line)])
        target = {Buffer.WEIGHT: self.weight, Buffer.TABLE: self.table,
                  Buffer.CONVOLUTION_PARAMETERS: self.parameters,
                  Buffer.VECTOR_PARAMETERS: self.vectors, Buffer.NORM_PARAMETERS: self.norm}[kind]
        beats = data.view(np.int8).reshape(-1, target.shape[1])
        target[_range(target, base, len(beats))] = beats

    def _load_operand(self, line: np.ndarray, a: dict[str, int]) -> None:
        """An activation's beats into WEIGHT; a beat also clears the input channels behind it."""
        words = a["positions"]
        for plane, index in self._runs(line):
            beats = self.memory[index].view(np.int8).reshape(-1, BEAT)
            for position, beat in enumerate(beats):
                if a["order"] == WeightOrder.ROWS:
                    outs, inner = np.array([position]), plane * BEAT
                    value = beat[None]
                else:
                    outs, inner = plane * BEAT + np.arange(BEAT), position
                    value = beat[:, None]
                word = a["base"] + int(outs[0]) // self.tm * words + inner // self.tn
                block = self.weight[_range(self.weight, word, 1)][0].reshape(self.tm, self.tn)
                low = inner % self.tn
                block[outs % self.tm, low:] = 0
                block[outs % self.tm, low : low + value.shape[1]] = value

    def store(self, line: np.ndarray, a: dict[str, int]) -> None:
        """OUTPUT beats into DRAM."""
        lanes = self.tm // BEAT
        for plane, index in self._runs(line):
            first, lane = a["base"] + plane // lanes * a["positions"], plane % lanes * BEAT
            beats = self.output[_range(self.output, first, len(index) // BEAT),
                                lane : lane + BEAT]
            self.memory[index] = np.ascontiguousarray(beats).view(np.uint8).reshape(-1)

    def convolution(self, a: dict[str, int]) -> None:
        """One operation of the convolution engine."""
        rows, columns, up = a["in_rows"], a["in_columns"], a["upsample"]
        count = a["in_words"] * rows * columns
        tile = self.input[_range(self.input, a["in_base"], count)]
        tile = tile.reshape(a["in_words"], rows, columns, self.tn)
        # Products in float64 are exact far beyond int32 sums, and much faster than in integers.
        tile = tile.repeat(1 << up, axis=1).repeat(1 << up, axis=2).astype(np.float64)
        taps = a["kernel_rows"] * a["kernel_columns"]
        words = self.weight[_range(self.weight, a["weight_base"],
                                   a["out_words"] * a["in_words"] * taps)]
        words = words.reshape(a["out_words"], a["in_words"], a["kernel_rows"],
                              a["kernel_columns"], self.tm, self.tn)
        # [kernel row][kernel column][in word, n][out word, m]
        factors = words.transpose(2, 3, 1, 5, 0, 4).astype(np.float64).reshape(
            a["kernel_rows"], a["kernel_columns"], a["in_words"] * self.tn, -1)
        out_rows, out_columns = a["out_rows"], a["out_columns"]
        y = np.arange(out_rows) * a["stride"] - a["pad_top"]
        x = np.arange(out_columns) * a["stride"] - a["pad_left"]
        low_y, low_x = max(0, -int(y[0])), max(0, -int(x[0]))
        high_y = max(0, int(y[-1]) + a["kernel_rows"] - tile.shape[1])
        high_x = max(0, int(x[-1]) + a["kernel_columns"] - tile.shape[2])
        padded = np.pad(tile, ((0, 0), (low_y, high_y), (low_x, high_x), (0, 0)))
        padded = padded.transpose(1, 2, 0, 3).reshape(*padded.shape[1:3], -1)
        sums = np.zeros((out_rows * out_columns, a["out_words"] * self.tm))
        for ky in range(a["kernel_rows"]):
            for kx in range(a["kernel_columns"]):
                part = padded[(y + ky + low_y)[:, None], (x + kx + low_x)[None]]
                sums += part.reshape(out_rows * out_columns, -1) @ factors[ky, kx]
        total = sums.astype(np.int64).reshape(out_rows, out_columns, a["out_words"], self.tm)
        total = total.transpose(2, 0, 1, 3).copy()
        entries = self.parameters[_range(self.parameters, a["parameter_base"],
                                         a["out_words"] * self.tm)]
        offset, multiplier, shift = (item.reshape(a["out_words"], 1, 1, self.tm)
                                     for item in _entries(entries))
        places = _range(self.accumulator, 0, 0)
        if not (a["first"] and a["last"]):
            places = _range(self.accumulator, 0, a["out_words"] * out_rows * out_columns)
        if a["first"]:
            total += offset
        else:
            total += self.accumulator[places].reshape(total.shape)
        if not a["last"]:
            self.accumulator[places] = total.reshape(-1, self.tm)
            return
        value = arithmetic.requantize(total, multiplier, shift).astype(np.int64)
        if a["relu"]:
            value = np.maximum(value, 0)
        halve = a["pool"]
        count = a["out_words"] * (out_rows >> halve) * (out_columns >> halve)
        target = _range(self.output, a["out_base"], count)
        if a["add"]:
            skip = self.output[target].astype(np.int64).reshape(value.shape)
            both = value * a["add_multiplier_new"] + skip * a["add_multiplier_skip"]
            value = arithmetic.saturate(
                arithmetic.round_shift(both, a["add_shift"])).astype(np.int64)
        if halve:
            value = value.reshape(a["out_words"], out_rows // 2, 2, out_columns // 2, 2, self.tm)
            value = arithmetic.round_shift(value.sum(axis=(2, 4)), 2)
        self.output[target] = value.reshape(-1, self.tm).astype(np.int8)

    def read(self, base: int, positions: int, planes: int) -> np.ndarray:
        """int64 (planes, positions, 8) of a tile in INPUT."""
        lanes = self.tn // BEAT
        found = np.empty((planes, positions, BEAT), np.int64)
        for plane in range(planes):
            lane = plane % lanes * BEAT
            found[plane] = self.input[_range(self.input, base + plane // lanes * positions,
                                             positions), lane : lane + BEAT]
        return found

    def write(self, base: int, value: np.ndarray) -> None:
        """Put (planes, positions, 8) int8 values into OUTPUT."""
        lanes = self.tm // BEAT
        planes, positions = value.shape[:2]
        for plane in range(planes):
            lane = plane % lanes * BEAT
            self.output[_range(self.output, base + plane // lanes * positions, positions),
                        lane : lane + BEAT] = value[plane].astype(np.int8)

    def pointwise(self, opcode: Opcode, a: dict[str, int]) -> None:
        """Elementwise, lookup, softmax or flow sum on one tile."""
        positions, planes = a["positions"], a.get("planes", 0)
        if opcode is Opcode.SOFTMAX:
            self._softmax(a)
            return
        if opcode is Opcode.FLOW_SUM:
            self._flow_sum(a)
            return
        value = self.read(a["in_base"], positions, planes)
        if opcode is Opcode.ADD:
            other = self.read(a["other_base"], positions, planes)
            both = value * a["multiplier_in"] + other * a["multiplier_other"]
            result = arithmetic.saturate(arithmetic.round_shift(both, a["shift"]))
        elif opcode is Opcode.MULTIPLY:
            if a["broadcast"]:
                other = self.read(a["other_base"], positions, 1)[:, :, :1]
            else:
                other = self.read(a["other_base"], positions, planes)
            result = arithmetic.requantize(value * other, a["multiplier"], a["shift"])
        elif opcode is Opcode.AFFINE:
            entries = self.vectors[_range(self.vectors, a["parameter_base"], planes * BEAT)]
            offset, multiplier, shift = (item.reshape(planes, 1, BEAT)
                                         for item in _entries(entries))
            result = arithmetic.saturate(
                arithmetic.round_shift(value * multiplier + offset, shift))
            if a["relu"]:
                result = np.maximum(result, 0)
        else:
            table = self.table[_range(self.table, a["table_base"], 32)].reshape(-1)
            result = table[value + 128]
        self.write(a["out_base"], result)

    def _softmax(self, a: dict[str, int]) -> None:
        channels = a["channels"]
        planes = -(-channels // BEAT)
        value = self.read(a["in_base"], a["positions"], planes)
        logits = value.transpose(0, 2, 1).reshape(planes * BEAT, -1)[:channels]
        table = self.table[_range(self.table, a["table_base"], 64)].reshape(-1).view("<u2")
        result = np.zeros((planes * BEAT, a["positions"]), np.int8)
        result[:channels] = arithmetic.softmax(logits[:, :, None], table,
                                               a["fraction_bits"])[:, :, 0]
        self.write(a["out_base"], result.reshape(planes, BEAT, -1).transpose(0, 2, 1))

    def _flow_sum(self, a: dict[str, int]) -> None:
        channels, positions, columns = a["channels"], a["positions"], a["columns"]
        planes = -(-channels // BEAT)
        masks = self.read(a["in_base"], positions, planes).transpose(0, 2, 1)
        masks = masks.reshape(planes * BEAT, positions)[:channels]
        entries = self.vectors[_range(self.vectors, a["parameter_base"], channels)]
        shift = np.ascontiguousarray(entries).view("<i2")[:, :2].T.astype(np.int64)
        moved = arithmetic.round_shift(shift @ masks, arithmetic.MASK_FRACTION_BITS)
        place = np.arange(positions)
        identity = np.stack([place % columns, place // columns + a["first_row"]])
        grid = arithmetic.saturate((identity << a["fraction_bits"]) + moved, 16)
        beats = np.zeros((positions, 4), "<i2")
        beats[:, :2] = grid.T
        self.write(a["out_base"], beats.view(np.int8).reshape(1, positions, BEAT))

    def group_sums(self, a: dict[str, int]) -> None:
        """Sums of a block's channels; behind the last of them the entries of its affine step."""
        planes, channels, each = a["planes"], a["channels"], a["group_channels"]
        value = self.read(a["in_base"], a["positions"], planes).transpose(0, 2, 1)
        value = value.reshape(planes * BEAT, -1)[:channels]
        if a["first"]:
            self.sums[:] = 0
        self.sums[0, :channels] += value.sum(axis=1)
        self.sums[1, :channels] += (value * value).sum(axis=1)
        if not a["last"]:
            return
        constants = self.norm.view("<i4").astype(np.int64)
        scale, offset = constants[_range(constants, a["parameter_base"], channels)].T
        if a["film"]:
            gain, moved = (
                self.norm[_range(self.norm, base, planes)].reshape(-1)[:channels].astype(np.int64)
                for base in (a["gain_base"], a["offset_base"]))
            scale, offset = arithmetic.modulated(scale, offset, gain, moved, constants[1])
        epsilon = int(self.norm[0].view("<i8")[0])
        self.entries[:, channels : planes * BEAT] = 0
        for start in range(0, channels, each):
            group = slice(start, start + each)
            sums = (each * a["all_positions"], int(self.sums[0, group].sum()),
                    int(self.sums[1, group].sum()))
            self.entries[:, group] = arithmetic.group_norm_entries(
                sums, scale[group], offset[group], epsilon)

    def group_norm(self, a: dict[str, int]) -> None:
        """The affine step of a block with the entries of its sums."""
        planes, stride = a["planes"], a["in_positions"]
        lanes = self.tn // BEAT
        value = np.concatenate([
            self.read(a["in_base"] + word * stride, a["positions"], min(lanes, planes - first))
            for word, first in enumerate(range(0, planes, lanes))])
        multiplier, begin, shift = (
            item[: planes * BEAT].reshape(planes, 1, BEAT) for item in self.entries)
        result = arithmetic.saturate(arithmetic.round_shift(value * multiplier + begin, shift))
        self.write(a["out_base"], np.maximum(result, 0) if a["relu"] else result)

    def spatial(self, opcode: Opcode, a: dict[str, int]) -> None:
        """Pool, upsample or grid sampling on one tile."""
        rows, columns, planes = a["in_rows"], a["in_columns"], a["planes"]
        value = self.read(a["in_base"], rows * columns, planes)
        value = value.reshape(planes, rows, columns, BEAT)
        if opcode is Opcode.GRID_SAMPLE:
            beats = self.read(a["grid_base"], a["positions"], 1)[0].astype(np.int8)
            grid = np.ascontiguousarray(beats).view("<i2")[:, :2].T[:, :, None]
            image = value.transpose(0, 3, 1, 2).reshape(planes * BEAT, rows, columns)
            image = image.astype(np.int8)
            result = arithmetic.bilinear(image, grid, a["fraction_bits"])[:, :, 0]
            self.write(a["out_base"], result.reshape(planes, BEAT, -1).transpose(0, 2, 1))
            return
        if opcode is Opcode.UPSAMPLE:
            result = value.repeat(2, axis=1).repeat(2, axis=2)
        else:
            kernel, stride, pad = a["kernel"], a["stride"], a.get("padding", 0)
            padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad), (0, 0)),
                            constant_values=-128)
            windows = np.lib.stride_tricks.sliding_window_view(
                padded, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
            if opcode is Opcode.MAX_POOL:
                result = windows.max(axis=(4, 5))
            else:
                shift = (kernel * kernel).bit_length() - 1
                result = arithmetic.round_shift(windows.sum(axis=(4, 5)), shift)
        self.write(a["out_base"], result.reshape(planes, -1, BEAT))

    def execute(self, line: np.ndarray, arguments: np.ndarray) -> None:
        """One operation."""
        opcode = Opcode(int(line[Column.KIND]))
        a = dict(zip(ARGUMENTS[opcode], (int(item) for item in arguments), strict=False))
        if opcode is Opcode.LOAD:
            self.load(line, a)
        elif opcode is Opcode.STORE:
            self.store(line, a)
        elif opcode is Opcode.CONVOLUTION:
            self.convolution(a)
        elif opcode is Opcode.GROUP_SUMS:
            self.group_sums(a)
        elif opcode is Opcode.GROUP_NORM:
            self.group_norm(a)
        elif opcode is Opcode.HOST:
            self.host(a["layer"], self.memory)
        elif opcode in (Opcode.AVERAGE_POOL, Opcode.MAX_POOL, Opcode.UPSAMPLE,
                        Opcode.GRID_SAMPLE):
            self.spatial(opcode, a)
        elif opcode not in (Opcode.FETCH, Opcode.OTHER):
            self.pointwise(opcode, a)


def _range(buffer: np.ndarray, base: int, count: int) -> slice:
    if base < 0 or base + count > len(buffer):
        raise InterpretError(f"words {base} to {base + count} of a buffer of {len(buffer)}")
    return slice(base, base + count)


def _entries(beats: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offset, multiplier and shift of 8-byte entries, int64."""
    data = np.ascontiguousarray(beats)
    return (data.view("<i4")[:, 0].astype(np.int64), data.view("<i2")[:, 2].astype(np.int64),
            data.view(np.uint8)[:, 6].astype(np.int64))


def run(program: Program, machine: Machine, seed: int = 0) -> None:
    """Execute every operation as tokens allow; the choice among ready units is random.

    Any order must give the same bytes. `InterpretError` if no unit can go on.
    """
    whole = flat(program)
    table = whole.operations
    queues = [np.flatnonzero(table[:, Column.UNIT] == unit) for unit in range(len(whole.units))]
    heads = [0] * len(queues)
    tokens = [channel.initial for channel in whole.channels]
    choice = random.Random(seed)
    left = len(table)
    while left:
        order = list(range(len(queues)))
        choice.shuffle(order)
        for unit in order:
            if heads[unit] == len(queues[unit]):
                continue
            row = int(queues[unit][heads[unit]])
            wait, signal = int(table[row, Column.WAIT]), int(table[row, Column.SIGNAL])
            needed = [bit for bit in range(len(tokens)) if wait >> bit & 1]
            if any(tokens[bit] == 0 for bit in needed):
                continue
            for bit in needed:
                tokens[bit] -= 1
            machine.execute(table[row], whole.arguments[row])
            for bit in range(len(tokens)):
                tokens[bit] += signal >> bit & 1
            heads[unit] += 1
            left -= 1
            break
        else:
            raise InterpretError(f"{left} operations left and no unit can go on")


def interpret(lowered: Lowered, graph: Graph, overlay: Overlay, inputs: dict[str, np.ndarray],
              seed: int = 0) -> dict[str, np.ndarray]:
    """Run a lowered graph on given tensors; return every tensor that is in memory at the end.

    `inputs`: the graph's inputs, and tensors of phases that are not mapped; those that no mapped
    layer reads are left out.
    """
    addresses = lowered.placement.addresses
    image = MemoryImage.start(graph, lowered, overlay, {
        name: array for name, array in inputs.items() if name in addresses})
    machine = Machine(overlay, image.data, lambda index, data: image.run_host(index))
    run(lowered.program, machine, seed)
    return {name: image.get(name) for name in addresses}
