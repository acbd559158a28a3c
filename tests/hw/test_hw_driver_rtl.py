"""Does the driver decode a frame on the RTL, and are its counters the predicted cycles?"""

from __future__ import annotations

import dataclasses

import pytest

from arch_models.memory import memory_for
from arch_models.overlay import Engine, default_overlay
from cosim.program.table import Column
from hw.board.driver import Driver
from hw.board.emitted import DriverError, Project
from hw.board.seal import seal
from hw.csim.fabric import Fabric
from hw.interface.configuration import configure
from hw.interface.plan import Start, steps, stretch_program
from hw.interface.registers import counter_registers
from hw.interface.vectors import host_layers
from hw.project.emit import emit
from hw.rtl_sim.board import RtlBoard
from studies.validate.board import validate
from tests.cosim.test_cosim_bands import BANDED, banded
from tests.support.board_counters import same_counters
from tests.support.small_frames import QUICK, board, lowered_frame, small_graph

OVERLAY = dataclasses.replace(default_overlay(), tm=8, tn=8)


def test_a_start_begins_with_the_tokens_that_the_starts_before_have_left():
    """By hand: one token a row, in the order of the table."""
    overlay = dataclasses.replace(OVERLAY, engines=frozenset({Engine.CONVOLUTION}))
    program = lowered_frame(overlay).program
    configuration = configure(program, overlay)
    inside = {number for number, channel in enumerate(program.channels)
              if "host" not in (program.units[channel.source].name,
                                program.units[channel.target].name)}
    tokens = {number: program.channels[number].initial for number in inside}
    changed = 0
    for step in steps(program, configuration):
        if not isinstance(step, Start):
            continue
        part = stretch_program(program, configuration, step)
        for number in inside:
            assert part.channels[number].initial == tokens[number]
            changed += tokens[number] != program.channels[number].initial
            for row in part.operations:
                tokens[number] += int(row[Column.SIGNAL] >> number & 1)
                tokens[number] -= int(row[Column.WAIT] >> number & 1)
    assert changed


def built(lowered, graph, overlay, tmp_path):
    """(project, bitstream): a sealed project as if a bitstream had been made of it."""
    folder, bitstream = tmp_path / "project", tmp_path / "overlay.bit"
    emit(lowered, graph, overlay, board(), folder)
    bitstream.write_bytes(b"a stand-in for a bitstream")
    seal(str(folder), str(bitstream))
    project = Project(str(folder))
    project.manifest["counters"] = counter_registers(lowered.program)
    return project, bitstream


@pytest.mark.long
def test_a_frame_through_the_registers_and_buses_of_the_ip(tmp_path):
    """The same driver, on the compiled AXI-Lite slave, descriptor feed, masters and interrupt."""
    overlay = dataclasses.replace(OVERLAY, engines=frozenset({Engine.CONVOLUTION}))
    lowered, graph = lowered_frame(overlay), small_graph()
    program, configuration = lowered.program, configure(lowered.program, overlay)
    memory = memory_for(board(), overlay, model="flat")
    project, bitstream = built(lowered, graph, overlay, tmp_path)
    hardware = RtlBoard(program, overlay, memory)
    with Fabric(program, overlay, host_layers(graph, lowered), QUICK) as host, \
            Driver(project, hardware, host, str(bitstream), str(tmp_path / "lock")) as driver:
        driver.put_vectors()
        measurement = driver.measure(1, driver.expected_vectors())
    assert hardware.stopped
    assert (measurement.values_compared, measurement.values_differing) == (3 * 32 * 64, 0)
    assert validate(measurement, tmp_path / "project", "flat").cycles_differing == 0
    same_counters(measurement, program, configuration, memory)

    late = RtlBoard(program, overlay, memory, late=True)
    with Fabric(program, overlay, host_layers(graph, lowered), QUICK) as host, \
            Driver(project, late, host, str(bitstream), str(tmp_path / "lock")) as driver:
        with pytest.raises(DriverError, match="time-out"):
            driver.run()
        assert late.stopped


@pytest.mark.long
def test_tensors_on_chip_through_the_registers_and_buses_of_the_ip(tmp_path):
    """The ports' base address moves what lies on chip for reader and writer alike."""
    overlay = dataclasses.replace(BANDED, engines=frozenset({Engine.CONVOLUTION}))
    graph = banded()
    lowered = lowered_frame(overlay, graph=graph)
    assert lowered.mapping.bands
    program, configuration = lowered.program, configure(lowered.program, overlay)
    memory = memory_for(board(), overlay, model="flat")
    project, bitstream = built(lowered, graph, overlay, tmp_path)
    with Fabric(program, overlay, host_layers(graph, lowered), QUICK) as host, \
            Driver(project, RtlBoard(program, overlay, memory), host, str(bitstream),
                   str(tmp_path / "lock")) as driver:
        driver.put_vectors()
        measurement = driver.measure(1, driver.expected_vectors())
    assert measurement.values_compared and not measurement.values_differing
    assert validate(measurement, tmp_path / "project", "flat").cycles_differing == 0
    same_counters(measurement, program, configuration, memory)
