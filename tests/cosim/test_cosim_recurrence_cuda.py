"""Does a GPU time programs as the CPU does? numba's simulator stands for the GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosim.program.random import Sizes, random_program
from cosim.program.table import Column
from cosim.recurrence.cpu import prepare
from cosim.recurrence.cuda import CudaError, CudaTimer
from cosim.recurrence.lanes import linearize


def test_the_gpu_gives_what_the_recurrence_gives():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.cuda_simulated"], cwd=root, text=True,
        capture_output=True, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1",
                                  "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr[-3000:]
    programs, designs = map(int, done.stdout.split())
    assert programs > 40 and designs == 32


@pytest.mark.parametrize("seed", range(10))
def test_steps_are_the_operations_with_repeats_written_out(seed):
    program = random_program(seed, 4, Sizes(30))
    table = program.operations.copy()
    table[:, Column.ADVANCE] = 0
    program = replace(program, operations=table)
    steps = linearize(prepare(program), len(program.units))
    assert steps is not None
    units = np.concatenate([np.tile(table[part.first : part.last, Column.UNIT], part.repeat)
                            for part in program.segments])
    assert np.array_equal(np.bincount(steps.steps[:, 1]), np.bincount(units))
    assert (np.diff(steps.steps[:, 3], prepend=0) >= 0).all()
    assert len(steps.sources) == steps.steps[-1, 3]


def test_without_a_gpu_it_says_so():
    from numba import cuda

    if cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(CudaError, match="use the device 'cpu'"):
        CudaTimer()
