"""What the project's frame should take, step by step, for the board's notebook to show.

It measures nothing; `cosim validate board` compares more.
"""

from __future__ import annotations

import numpy as np

from arch_models.memory import Memory
from cosim.executors.fast import simulate
from cosim.program.table import Column, Opcode, Program
from hw.interface.configuration import Configuration
from hw.interface.plan import HostStep, steps, stretch_program
from hw.project.documents import PredictedStep, Prediction


def host_cycles(program: Program, layer: int) -> int:
    """Predicted fabric cycles of a host layer, by its number in the program."""
    table = program.operations
    host = (table[:, Column.KIND] == Opcode.HOST) & (program.arguments[:, 0] == layer)
    row = table[int(np.argmax(host))]
    return int(row[Column.FILL] + row[Column.INTERVAL] * row[Column.TRIPS] + row[Column.DRAIN])


def prediction(program: Program, configuration: Configuration, memory: Memory,
               clock_hz: int) -> Prediction:
    """Seconds of every step of a frame, in the order of the manifest's `steps`."""
    found: list[PredictedStep] = []
    for step in steps(program, configuration):
        if isinstance(step, HostStep):
            kind, cycles = "host", host_cycles(program, step.layer)
        else:
            part = stretch_program(program, configuration, step)
            kind, cycles = "fabric", simulate(part, memory).total_cycles
        found.append({"kind": kind, "cycles": cycles, "seconds": cycles / clock_hz})
    return {"what": "predicted, not measured", "clock_hz": clock_hz, "steps": found}
