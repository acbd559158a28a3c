"""Executes a program's functional meaning on bytes, in token order and without time.

It is the numpy counterpart of the emitted C++; it counts no cycles and no bursts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np

from arch_models.memory import WINDOW, tensor_bytes
from arch_models.overlay import Overlay
from cosim.analysis.image import MemoryImage
from cosim.engines import RUNS
from cosim.engines.buffers import BEAT, Buffers, InterpretError, span_of
from cosim.lowering.lower import Lowered
from cosim.program.table import ARGUMENTS, Buffer, Column, Opcode, Program, WeightOrder, flat
from workloads.graph import Graph


class Machine(Buffers):
    """The buffers of an overlay and a memory image (uint8); operations change them in place."""

    def __init__(self, overlay: Overlay, memory: np.ndarray,
                 host: Callable[[int, np.ndarray], None]) -> None:
        super().__init__(overlay)
        self.memory, self.host = memory, host
        self.tensors = np.random.default_rng(7).integers(0, 256, tensor_bytes(overlay), np.uint8)

    def _runs(self, line: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The pattern of a transfer: (plane, the memory, places of the plane's bytes in it)."""
        address, size = int(line[Column.ADDRESS]), int(line[Column.ROW_BYTES])
        on_chip = address >= WINDOW
        memory = self.tensors if on_chip else self.memory
        for plane in range(int(line[Column.PLANES])):
            start = address + plane * int(line[Column.PLANE_STRIDE])
            rows = [start + row * int(line[Column.ROW_STRIDE])
                    for row in range(int(line[Column.ROWS]))]
            index = (np.array(rows)[:, None] + np.arange(size)[None]).reshape(-1)
            if on_chip and len(memory):
                index = index % len(memory)
            if index[-1] >= len(memory):
                raise InterpretError(f"address {index[-1]} is outside the memory")
            yield plane, memory, index

    def load(self, line: np.ndarray, a: dict[str, int]) -> None:
        """DRAM beats into a buffer."""
        kind, base, positions = Buffer(a["buffer"]), a["base"], a["positions"]
        if kind in (Buffer.INPUT, Buffer.OUTPUT):
            words, width = ((self.input, self.tn) if kind is Buffer.INPUT
                            else (self.output, self.tm))
            lanes = width // BEAT
            for plane, memory, index in self._runs(line):
                beats = memory[index].view(np.int8).reshape(-1, BEAT)
                first, lane = base + plane // lanes * positions, plane % lanes * BEAT
                words[span_of(words, first, len(beats)), lane : lane + BEAT] = beats
            return
        if a["order"] != WeightOrder.STORED:
            self._load_operand(line, a)
            return
        data = np.concatenate([memory[index] for _, memory, index in self._runs(line)])
        target = self.weight if kind is Buffer.WEIGHT else self.beats[kind]
        width = target.shape[1]
        words = target[span_of(target, base, -(-len(data) // width))]
        words.reshape(-1)[: len(data)] = data.view(np.int8)  # the last may stay half full

    def _load_operand(self, line: np.ndarray, a: dict[str, int]) -> None:
        """An activation's beats into WEIGHT; a beat also clears the input channels behind it."""
        words = a["positions"]
        for plane, memory, index in self._runs(line):
            beats = memory[index].view(np.int8).reshape(-1, BEAT)
            for position, beat in enumerate(beats):
                if a["order"] == WeightOrder.ROWS:
                    outs, inner = np.array([position]), plane * BEAT
                    value = beat[None]
                else:
                    outs, inner = plane * BEAT + np.arange(BEAT), position
                    value = beat[:, None]
                word = a["base"] + int(outs[0]) // self.tm * words + inner // self.tn
                block = self.weight[span_of(self.weight, word, 1)][0].reshape(self.tm, self.tn)
                low = inner % self.tn
                block[outs % self.tm, low:] = 0
                block[outs % self.tm, low : low + value.shape[1]] = value

    def store(self, line: np.ndarray, a: dict[str, int]) -> None:
        """OUTPUT beats into DRAM."""
        lanes = self.tm // BEAT
        for plane, memory, index in self._runs(line):
            first, lane = a["base"] + plane // lanes * a["positions"], plane % lanes * BEAT
            beats = self.output[span_of(self.output, first, len(index) // BEAT),
                                lane : lane + BEAT]
            memory[index] = np.ascontiguousarray(beats).view(np.uint8).reshape(-1)

    def execute(self, line: np.ndarray, arguments: np.ndarray) -> None:
        """One operation."""
        opcode = Opcode(int(line[Column.KIND]))
        a = dict(zip(ARGUMENTS[opcode], (int(item) for item in arguments), strict=False))
        if opcode is Opcode.LOAD:
            self.load(line, a)
        elif opcode is Opcode.STORE:
            self.store(line, a)
        elif opcode is Opcode.HOST:
            self.host(a["layer"], self.memory)
        elif opcode in RUNS:
            RUNS[opcode].compute(self, opcode, a)


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
    """Run a lowered graph on given tensors; return every tensor that is in DRAM at the end.

    `inputs`: the graph's inputs, and tensors of phases that are not mapped; those that no mapped
    layer reads are left out.
    """
    addresses = [name for name, address in lowered.placement.addresses.items()
                 if address < WINDOW]
    image = MemoryImage.start(graph, lowered, overlay, {
        name: array for name, array in inputs.items() if name in addresses})
    machine = Machine(overlay, image.data, lambda index, data: image.run_host(index))
    run(lowered.program, machine, seed)
    return {name: image.get(name) for name in addresses}
