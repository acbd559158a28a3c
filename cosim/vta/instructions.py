"""Writes the instruction stream of a convolution on VTA: what the TVM back end would emit.

It gives no unit and no time; see `cosim.vta.lower`.

Facts used, from the published sources: loop order and virtual threads
(`vta/python/vta/top/vta_conv2d.py`), dependence tokens between loads, compute and stores
(`CoProcSync`), micro-op kernels with at most two hardware loops (`FoldUopLoop`), and the command
queue of the runtime (`cosim.vta.queue`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np

from arch_models.vta import VtaArray
from cosim.vta.cache import Missing, distances, missing_loads
from cosim.vta.queue import Field, Kind, Module, Moved, Queue, Token
from cosim.vta.schedule import Blocks, VtaConvolution, VtaSchedule, check_layer, patch

#: A convolution with these vector operations after it: bias, shift, clip from both sides.
BIAS_SHIFT_CLIP = 4


@dataclass(frozen=True, slots=True)
class VtaMemoryMap:
    """Where the tensors of a layer lie, in bytes; each starts at a multiple of 4096."""

    input: int
    weight: int
    bias: int
    output: int
    micro_op: int
    instruction: int


@dataclass(frozen=True)
class _Stream:
    """What the emission of one layer needs to know; see `instructions`."""

    layer: VtaConvolution
    schedule: VtaSchedule
    array: VtaArray
    found: Blocks
    places: VtaMemoryMap
    vector_operations: int
    bias: bool
    cache_bytes: int | None


def memory_map(layer: VtaConvolution, array: VtaArray) -> VtaMemoryMap:
    """Places for the tensors one behind another (where the runtime puts them is not published)."""
    sizes = (
        layer.batch * layer.in_channels * layer.in_rows * layer.in_columns,
        layer.out_channels * layer.in_channels * layer.kernel_rows * layer.kernel_columns,
        4 * array.block_batch * layer.out_channels,
        layer.batch * layer.out_channels * layer.out_rows * layer.out_columns,
        array.micro_op_buffer_bytes,
    )
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // 4096) * 4096)
    return VtaMemoryMap(*starts)


def instructions(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray, *,
                 vector_operations: int = 3, bias: bool = False,
                 cache_bytes: int | None = None) -> np.ndarray:
    """The stream in fetch order: int64 (count, len(Field)), addresses in bytes.

    `vector_operations`: ALU passes over each tile (shift, minimum and maximum: 3). `bias`: one
    more pass adds a bias that is loaded for each tile. `cache_bytes`: what the processor's cache
    keeps, to say which bytes miss it (none without it). Raises `VtaScheduleError`
    if a tile does not divide its dimension.
    """
    found = check_layer(layer, schedule, array)
    stream = _Stream(layer, schedule, array, found, memory_map(layer, array),
                     vector_operations + bias, bias, cache_bytes)
    groups = _groups(stream)
    queue = Queue()
    carried = len(groups) > 1
    if carried:
        for _ in range(schedule.threads):
            queue.push(Token.STORED)
    parts: list[np.ndarray] = []
    templates: dict[tuple, np.ndarray] = {}
    for index, (shape, missing, offsets) in enumerate(groups):
        key = (shape, missing, index == 0)
        if key not in templates:
            start = len(queue.rows)
            _group(queue, stream, shape, missing, first=index == 0, carried=carried)
            templates[key] = np.array(queue.rows[start:], np.int64)
            prologue = queue.rows[:start] if index == 0 else []
            if prologue:
                parts.append(np.array(prologue, np.int64))
            queue.rows = [queue.rows[-1]]
        table = templates[key].copy()
        for kind, offset in offsets.items():
            table[table[:, Field.KIND] == kind, Field.ADDRESS] += offset
        parts.append(table)
    parts.append(_epilogue(queue, parts[-1], schedule.threads if carried else 0))
    return np.concatenate(parts)


def _epilogue(queue: Queue, last_group: np.ndarray, carried_threads: int) -> np.ndarray:
    """What follows the last tile: the remaining tokens, then FINISH after the last store."""
    queue.rows = [last_group[-1].tolist()]
    for _ in range(carried_threads):
        queue.pop(Token.STORED)
    queue.push(Token.STORED)
    queue.push(Token.LOADED)
    queue.pop(Token.STORED)
    queue.pop(Token.LOADED)
    queue.commit(Module.COMPUTE)
    queue.add(Module.COMPUTE, Kind.FINISH)
    last_group[-1] = queue.rows[0]
    return np.array(queue.rows[1:], np.int64)


def _groups(stream: _Stream) -> list[tuple[tuple, Missing, dict[Kind, int]]]:
    """Tile groups in execution order: (padding of the patches, what misses, address offsets)."""
    layer, schedule, array = stream.layer, stream.schedule, stream.array
    found = stream.found
    in_plane = layer.in_rows * layer.in_columns
    out_plane = layer.out_rows * layer.out_columns
    kernel = layer.kernel_rows * layer.kernel_columns
    row_step = schedule.tile_rows * schedule.row_threads
    out_step = schedule.tile_out_blocks * schedule.out_threads
    reuse = distances(layer, schedule, array, found)
    listed: list[tuple[tuple, Missing, dict[Kind, int]]] = []
    for batch in range(0, found.batch, schedule.tile_batch_blocks):
        for row in range(0, layer.out_rows, row_step):
            for out in range(0, found.out_blocks, out_step):
                for column in range(0, layer.out_columns, schedule.tile_columns):
                    shape = _clips(layer, schedule, row, column)
                    start = (row * layer.stride_rows * layer.in_columns
                             + column * layer.stride_columns
                             + batch * found.in_blocks * in_plane)
                    place = ((batch * found.out_blocks + out) * out_plane
                             + row * layer.out_columns + column)
                    missing = Missing() if stream.cache_bytes is None else missing_loads(
                        schedule, reuse, stream.cache_bytes, first_row=batch == row == 0,
                        first_channel=out == 0, first_column=column == 0)
                    listed.append((shape, missing, {
                        Kind.INPUT: start * array.input_block_bytes,
                        Kind.WEIGHT: out * found.in_blocks * kernel * array.weight_block_bytes,
                        Kind.BIAS: out * array.accumulator_block_bytes,
                        Kind.OUTPUT: place * array.output_block_bytes,
                    }))
    return listed


def _clips(layer: VtaConvolution, schedule: VtaSchedule, row: int, column: int) -> tuple:
    """Padding (top, bottom) of every thread's patch, then (left, right), in elements."""
    rows, columns = patch(layer, schedule)
    clips = []
    for thread in range(schedule.row_threads):
        top = (row + thread * schedule.tile_rows) * layer.stride_rows - layer.pad_top
        clips.append((max(0, -top), max(0, top + rows - layer.in_rows)))
    left = column * layer.stride_columns - layer.pad_left
    return (*clips, (max(0, -left), max(0, left + columns - layer.in_columns)))


def _group(queue: Queue, stream: _Stream, shape: tuple, missing: Missing, *, first: bool,
           carried: bool) -> None:
    """Instructions of the tiles that run as virtual threads."""
    schedule = stream.schedule
    threads = range(schedule.threads)
    steps = stream.found.in_blocks // schedule.tile_in_blocks
    cached = _Kernels(queue, stream, first)
    for thread in threads:
        if carried:
            queue.pop(Token.STORED)
        cached.load(_reset_loops(schedule), thread, "reset")
        queue.add(Module.COMPUTE, Kind.RESET, trips=prod(_reset_loops(schedule)))
        queue.push(Token.CONSUMED)
    for step in range(steps):
        for thread in threads:
            queue.pop(Token.CONSUMED)
            _load_input(queue, stream, shape, step, thread, missing.input[thread > 0])
            _load_weight(queue, stream, step, thread, missing.weight[thread > 0])
            queue.push(Token.LOADED)
        for thread in threads:
            queue.pop(Token.LOADED)
            loops = _gemm_loops(stream.layer, schedule)
            cached.load(loops, thread, "gemm")
            queue.add(Module.COMPUTE, Kind.GEMM, trips=prod(loops))
            if steps > 1:
                queue.push(Token.CONSUMED)
            else:
                _finish_tile(queue, stream, cached, thread)
    if steps > 1:
        for _ in threads:
            queue.pop(Token.CONSUMED)
        for thread in threads:
            _finish_tile(queue, stream, cached, thread)
    for thread in threads:
        queue.pop(Token.COMPUTED)
        _store(queue, stream, thread)
        if carried:
            queue.push(Token.STORED)


class _Kernels:
    """Micro-op kernels: loaded when first used, kept on chip afterwards."""

    def __init__(self, queue: Queue, stream: _Stream, first: bool) -> None:
        self.queue, self.first = queue, first
        self.place = stream.places.micro_op
        self.width = stream.array.micro_op_bytes
        self.known: set[tuple] = set()

    def load(self, loops: tuple[int, ...], thread: int, name: str) -> None:
        """A load of the kernel's micro-ops, if it was not used before."""
        if not self.first or (name, thread) in self.known:
            return
        self.known.add((name, thread))
        size = micro_operations(loops) * self.width
        self.queue.add(Module.COMPUTE, Kind.MICRO_OP, Moved(self.place, size, 1))
        self.place += size


def micro_operations(loops: tuple[int, ...]) -> int:
    """Micro-ops of a loop nest: the two outermost real loops run in hardware."""
    real = [extent for extent in loops if extent > 1]
    return prod(real[2:])


def _reset_loops(schedule: VtaSchedule) -> tuple[int, ...]:
    return (schedule.tile_batch_blocks, schedule.tile_columns, schedule.tile_out_blocks,
            schedule.tile_rows)


def _gemm_loops(layer: VtaConvolution, schedule: VtaSchedule) -> tuple[int, ...]:
    return (schedule.tile_batch_blocks, schedule.tile_in_blocks, schedule.tile_columns,
            layer.kernel_columns, layer.kernel_rows, schedule.tile_out_blocks,
            schedule.tile_rows)


def _finish_tile(queue: Queue, stream: _Stream, cached: _Kernels, thread: int) -> None:
    """Bias, vector operations, and the token for the store."""
    schedule, array = stream.schedule, stream.array
    if stream.bias:
        out = thread * schedule.tile_out_blocks if schedule.out_threads > 1 else 0
        queue.add(Module.COMPUTE, Kind.BIAS, Moved(
            stream.places.bias + out * array.accumulator_block_bytes,
            schedule.tile_out_blocks * array.accumulator_block_bytes, 1))
    for number in range(stream.vector_operations):
        cached.load((), thread, f"alu{number}")
        queue.add(Module.COMPUTE, Kind.ALU, trips=prod(_reset_loops(schedule)))
    queue.push(Token.COMPUTED)


def _load_input(queue: Queue, stream: _Stream, shape: tuple, step: int, thread: int,
                missing: float) -> None:
    layer, schedule = stream.layer, stream.schedule
    block = stream.array.input_block_bytes
    rows, columns = patch(layer, schedule)
    row_thread = thread if schedule.row_threads > 1 else 0
    (top, bottom), (left, right) = shape[row_thread], shape[-1]
    real_rows, real_columns = max(0, rows - top - bottom), max(0, columns - left - right)
    plane = layer.in_rows * layer.in_columns
    row = row_thread * schedule.tile_rows * layer.stride_rows - layer.pad_top + top
    start = (step * schedule.tile_in_blocks * plane + row * layer.in_columns
             - layer.pad_left + left)
    images = (schedule.tile_batch_blocks, stream.found.in_blocks * plane)
    if layer.padded:
        pattern = (real_columns, real_rows * schedule.tile_in_blocks * images[0],
                   layer.in_columns)
    else:
        pattern = _pattern((images, (schedule.tile_in_blocks, plane), (rows, layer.in_columns),
                            (columns, 1)))
    queue.add(Module.LOAD, Kind.INPUT, Moved(
        stream.places.input + start * block, pattern[0] * block, pattern[1], pattern[2] * block,
        rows * columns - real_rows * real_columns if layer.padded else 0, missing))


def _load_weight(queue: Queue, stream: _Stream, step: int, thread: int,
                 missing: float) -> None:
    layer, schedule = stream.layer, stream.schedule
    kernel = layer.kernel_rows * layer.kernel_columns * stream.array.weight_block_bytes
    out = thread * schedule.tile_out_blocks if schedule.out_threads > 1 else 0
    start = out * stream.found.in_blocks + step * schedule.tile_in_blocks
    pattern = _pattern(((schedule.tile_out_blocks, stream.found.in_blocks),
                        (schedule.tile_in_blocks, 1)))
    queue.add(Module.LOAD, Kind.WEIGHT, Moved(
        stream.places.weight + start * kernel, pattern[0] * kernel, pattern[1],
        pattern[2] * kernel, missing=missing))


def _store(queue: Queue, stream: _Stream, thread: int) -> None:
    layer, schedule = stream.layer, stream.schedule
    block = stream.array.output_block_bytes
    plane = layer.out_rows * layer.out_columns
    out = thread * schedule.tile_out_blocks if schedule.out_threads > 1 else 0
    row = thread * schedule.tile_rows if schedule.row_threads > 1 else 0
    pattern = _pattern(((schedule.tile_batch_blocks, stream.found.out_blocks * plane),
                        (schedule.tile_out_blocks, plane),
                        (schedule.tile_rows, layer.out_columns), (schedule.tile_columns, 1)))
    queue.add(Module.STORE, Kind.OUTPUT, Moved(
        stream.places.output + (out * plane + row * layer.out_columns) * block,
        pattern[0] * block, pattern[1], pattern[2] * block))


def _pattern(parts: tuple[tuple[int, int], ...]) -> tuple[int, int, int]:
    """(run, runs, stride) in blocks of a nest of (size, stride), outer to inner.

    Neighbouring dimensions fold. A third dimension, which no instruction has, counts as more
    runs at the last stride (such schedules are rejected by the compiler).
    """
    real = [part for part in parts if part[0] > 1]
    run, runs, stride = 1, 1, 0
    if real and real[-1][1] == 1:
        run = real.pop()[0]
        while real and real[-1][1] == run:
            run *= real.pop()[0]
    if real:
        runs, stride = real.pop()
        while real and real[-1][1] == runs * stride:
            runs *= real.pop()[0]
        runs = reduce(lambda count, part: count * part[0], real, runs)
    return run, runs, stride


def bus_bytes(table: np.ndarray, array: VtaArray) -> dict[str, int]:
    """Bytes that each bus master moves: fetch, load, micro_op, bias, store."""
    size = table[:, Field.RUN_BYTES] * table[:, Field.RUNS]
    kind = table[:, Field.KIND]
    found = {name: int(size[np.isin(kind, kinds)].sum()) for name, kinds in (
        ("load", (Kind.INPUT, Kind.WEIGHT)), ("micro_op", (Kind.MICRO_OP,)),
        ("bias", (Kind.BIAS,)), ("store", (Kind.OUTPUT,)))}
    return {"fetch": len(table) * array.instruction_bytes, **found}
