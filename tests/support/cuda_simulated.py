"""Run by `test_cosim_recurrence_cuda` in numba's CUDA simulator, which must be set before numba."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from cosim.executors import fast
from cosim.executors.fast_state import COMPUTE
from cosim.program.random import Sizes, random_memory, random_program
from cosim.program.table import Column, Opcode
from cosim.recurrence.cpu import Timer, prepare
from cosim.recurrence.cuda import CudaTimer, Job
from cosim.recurrence.lanes import lanes_of, linearize
from studies.evaluation.batch import Batch
from tests.support.tiny_graphs import TinyGraph


def random_programs(gpu: CudaTimer, seeds: int, lanes: int = 3, clocks: int = 2) -> int:
    """Programs whose every lane is what the CPU's recurrence says; how many were eligible."""
    equal = 0
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        memory = random_memory(seed)
        program = random_program(seed, len(memory.ports), Sizes(20, 3, 200))
        table = program.operations.copy()
        table[:, Column.ADVANCE] = 0
        computes = np.array([unit.kind == COMPUTE for unit in program.units])
        hosts = computes[table[:, Column.UNIT]] & (draw.random(len(table)) < 0.2)
        table[hosts, Column.KIND] = Opcode.HOST
        table[hosts, Column.INTERVAL] = table[hosts, Column.TRIPS] = 0
        table[hosts, Column.DRAIN] = 0
        prepared = prepare(replace(program, operations=table))
        host_cycles = draw.integers(1, 50, (clocks, int(hosts.sum())))
        clock = draw.integers(0, clocks, lanes)
        timer, tables, expected = Timer(), [], []
        for lane in range(lanes):
            units = fast.unit_table(program.units, memory)[0]
            moves = units["kind"] != COMPUTE
            count = int(moves.sum())
            units["outstanding"][moves] = draw.integers(1, 9, count)
            units["max_beats"][moves] = draw.choice([1, 4, 8, 16], count)
            units["lead"][moves] = draw.integers(1, 30, count)
            tables.append(units)
            expected.append(timer.total_cycles(prepared, units, timer.settings(units),
                                               host_cycles[clock[lane]]))
        steps, found = linearize(prepared, len(program.units)), lanes_of(np.array(tables), clock)
        if expected[0] is None:
            assert steps is None or not found.alone.any(), seed
            continue
        assert steps is not None and found.alone.all(), seed
        job = Job(steps, host_cycles, np.arange(lanes))
        whole, part = gpu.total_cycles(found, [job, replace(job, lanes=np.array([lanes - 1]))])
        assert whole.tolist() == expected and part.tolist() == expected[-1:], seed
        equal += 1
    return equal


def tiny_network(gpu: CudaTimer) -> int:
    """A grid of a lowered network, two masters on one channel in some of it; how many designs."""
    board, base = load_board("pynq-z1"), default_overlay()
    tiny = TinyGraph(3, 12, 8, 8)
    value = tiny.convolution("first", "in", 16, 3, padding=1, relu=True)
    value = tiny.convolution("second", tiny.pool("pool", value), 9, 3, padding=1)
    graph = tiny.graph(value)
    overlay = replace(base, engines=frozenset(item for item in base.engines
                                              if item.value == "convolution"),
                      fusions=frozenset(), input_words=256, output_words=128)
    inputs, weight, output = overlay.masters
    masters = [(replace(inputs, outstanding=limit, max_burst_beats=beats),
                replace(weight, outstanding=limit, port=port), output)
               for limit in (1, 8) for beats in (4, 16) for port in (weight.port, inputs.port)]
    clocks = (100_000_000, 125_000_000)
    wanted = Batch(graph, board).grid(overlay, (False, True), clocks, masters)
    found = Batch(graph, board, gpu=gpu).grid(overlay, (False, True), clocks, masters)
    assert (wanted.latency_cycles > 0).all() and len(np.unique(wanted.latency_cycles)) > 4
    assert np.array_equal(found.latency_cycles, wanted.latency_cycles)
    assert np.array_equal(found.energy_j, wanted.energy_j)
    return found.energy_j.size


if __name__ == "__main__":
    timer = CudaTimer()
    print(random_programs(timer, 120), tiny_network(timer))
