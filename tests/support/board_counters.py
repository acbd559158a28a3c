"""Counters that a driver has read, against the executors."""

from __future__ import annotations

import numpy as np

from cosim.executors.fast import simulate
from hw.interface.plan import Start, steps, stretch_program


def same_counters(measurement, program, configuration, memory):
    """Every counter of every unit is the sum of its predictions over the starts of the frame."""
    starts = [item for item in steps(program, configuration) if isinstance(item, Start)]
    predicted = [simulate(stretch_program(program, configuration, item), memory)
                 for item in starts]
    for unit, counters in enumerate(measurement.counters):
        assert counters.busy_cycles == sum(int(item.busy[unit]) for item in predicted)
        assert counters.idle_cycles == sum(int(item.idle[unit]) for item in predicted)
        stalls = dict(counters.stall_cycles)
        assert stalls.pop("memory") == sum(int(item.memory_stall[unit]) for item in predicted)
        names = [program.channels[index].name for index in
                 np.flatnonzero([channel.target == unit for channel in program.channels])]
        assert stalls == {name: sum(int(item.token_stall[unit, index]) for item in predicted)
                          for index, name in ((i, c.name) for i, c in enumerate(program.channels))
                          if name in names}
        total = counters.busy_cycles + counters.idle_cycles + sum(counters.stall_cycles.values())
        assert total == sum(item.total_cycles for item in predicted)
