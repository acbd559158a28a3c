"""Do the bounds hold on random programs, and are they reached where nothing is shared?

Closed forms and random programs; no timing of the machine.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosim.analysis.bounds import bounds
from cosim.executors import fast
from cosim.program.random import Sizes, random_memory, random_program
from cosim.program.table import UnitKind


@pytest.mark.parametrize("model", ["flat", "ddr3"])
@pytest.mark.parametrize("seed", range(60))
def test_no_simulation_beats_its_bounds(seed: int, model: str) -> None:
    memory = random_memory(seed, model)
    program = random_program(seed, len(memory.ports), Sizes(on_chip=0.3 * (seed % 3 == 0)))
    found = bounds(program, memory)
    total = fast.simulate(program, memory).total_cycles
    assert 0 < found.critical_path_cycles <= total
    assert found.port_cycles <= total
    assert found.memory_cycles <= total


@pytest.mark.parametrize("seed", range(20))
def test_critical_path_is_reached_with_private_ports(seed: int) -> None:
    memory = random_memory(seed, "flat")
    program = random_program(seed, len(memory.ports))
    movers = [unit for unit in program.units if unit.kind != UnitKind.COMPUTE]
    ports = {id(unit): index for index, unit in enumerate(movers)}
    units = tuple(replace(unit, port=ports[id(unit)]) if id(unit) in ports else unit
                  for unit in program.units)
    private = replace(program, units=units)
    wide = replace(memory, ports=tuple(
        replace(memory.ports[unit.port], name=f"p{index}") for index, unit in enumerate(movers)))
    assert bounds(private, wide).cycles == fast.simulate(private, wide).total_cycles


def test_binding_names_the_tightest() -> None:
    memory = random_memory(3, "flat")
    found = bounds(random_program(3, len(memory.ports)), memory)
    values = {"critical path": found.critical_path_cycles, "port": found.port_cycles,
              "memory": found.memory_cycles}
    assert values[found.binding] == found.cycles
