"""Is the Verilog of the IP clean, repeatable, and named as the driver and block design expect?"""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess

import numpy as np
import pytest

from arch_models.memory import memory_for
from arch_models.overlay import Engine, default_overlay
from cosim.analysis import interpret
from cosim.executors.fast import simulate
from cosim.program.table import Segment, UnitKind
from hw.board.driver import DONE, START
from hw.interface.configuration import EmissionError
from hw.interface.descriptors import encode
from hw.interface.plan import Start, stretch_program
from hw.interface.registers import CONTROL, INTERRUPT_STATUS, MAP_BYTES, counter_registers
from hw.project.scripts import template
from hw.rtl.ip.axi_shell import AxiShell
from hw.rtl.verilog import ip_verilog
from hw.rtl_sim.board import RtlBoard
from hw.rtl_sim.model import TESTBENCH, _verilator_root
from hw.rtl_sim.stand_in import IDLE
from hw.rtl_sim.tiles import random_tiles
from tests.support.small_frames import board

OVERLAY = dataclasses.replace(default_overlay(), tm=8, tn=8, engines=frozenset({Engine.LOOKUP}),
                              clock_gating=True)
#: What Amaranth's Verilog always has: implicit widths, cases without default, `interrupt`.
STYLE = ("-Wno-WIDTHEXPAND", "-Wno-WIDTHTRUNC", "-Wno-CASEINCOMPLETE", "-Wno-SYMRSVDWORD")


@pytest.fixture(scope="module")
def shell() -> AxiShell:
    program, _ = random_tiles(OVERLAY, board(), 9, 0)
    return AxiShell(program, OVERLAY)


def test_the_verilog_has_no_latch_loop_or_missing_driver(shell, tmp_path):
    text = ip_verilog(shell)
    (tmp_path / "overlay.v").write_text(text)
    root = _verilator_root()
    done = subprocess.run(
        [str(root / "bin" / "verilator_bin"), "--lint-only", *STYLE, "--top-module", "overlay",
         "overlay.v", str(TESTBENCH / "bufgce.v")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "VERILATOR_ROOT": str(root)})
    assert done.returncode == 0, done.stderr[-2000:]
    program, _ = random_tiles(OVERLAY, board(), 9, 0)
    assert ip_verilog(AxiShell(program, OVERLAY)) == text


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_start_runs_its_stretch_in_the_predicted_cycles(compiled_board, repeats):
    """Registers, descriptor feed, masters and interrupt, with the driver's own sequence."""
    on, shell, image = compiled_board
    program, memory = shell.program, memory_for(board(), OVERLAY, model="flat")
    on.download("")
    buffer, table = on.allocate(image.size), on.allocate(64 * len(program.operations))
    buffer[:] = image
    table[:] = np.frombuffer(encode(program), np.uint8)
    values = {"base_descriptors": table.physical_address, "first": 0,
              "count": len(program.operations), "repeats": repeats, "repeat_first": 0,
              "initialize": 1, "global_interrupt": 1, "interrupt_enable": 1}
    values |= {f"base_{name}": buffer.physical_address for name in shell.masters}
    for name, value in values.items():
        on.write(shell.registers[name], value)
        assert on.read(shell.registers[name]) == value
    assert on.read(CONTROL) & IDLE and not on.wait_interrupt(1e-4)
    on.write(CONTROL, START)
    assert not on.read(CONTROL) & IDLE
    assert on.wait_interrupt(1.0)
    assert on.read(CONTROL) & (DONE | IDLE) == DONE | IDLE
    on.write(INTERRUPT_STATUS, 1)
    assert not on.wait_interrupt(1e-4)
    expected = image.copy()
    whole = dataclasses.replace(program, segments=(Segment(0, len(program.operations), repeats),))
    interpret.run(whole, interpret.Machine(OVERLAY, expected, None))
    assert np.array_equal(buffer, expected) and not np.array_equal(image, expected)
    start = Start(0, len(program.operations), repeats, 0)
    result = simulate(stretch_program(program, shell.configuration, start), memory)
    for unit, entry in enumerate(counter_registers(program)):
        found = {name: on.read(place["offset"]) + (on.read(place["offset"] + 4) << 32)
                 for name, place in entry["registers"].items()}
        assert found["busy"] == result.busy[unit] and found["idle"] == result.idle[unit]
        assert found["memory"] == result.memory_stall[unit]
        assert sum(found.values()) == result.total_cycles
    on.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        on.write(CONTROL, START)


@pytest.fixture(scope="module")
def compiled_board():
    program, image = random_tiles(OVERLAY, board(), 9, 0)
    made = RtlBoard(program, OVERLAY, memory_for(board(), OVERLAY, model="flat"))
    return made, made.shell, image


def test_every_master_of_the_program_has_a_port_and_a_base_register(shell):
    names = [unit.name for unit in shell.program.units if unit.kind is not UnitKind.COMPUTE]
    assert list(shell.masters) == names
    for name in ("descriptors", *names):
        assert f"base_{name}" in shell.registers
        assert f"m_axi_port_{name}_ARADDR" in shell.ports or \
            f"m_axi_port_{name}_AWADDR" in shell.ports


def test_counters_lie_inside_the_register_map(shell):
    last = counter_registers(shell.program)[-1]["registers"]
    assert max(place["offset"] for place in last.values()) + 8 <= MAP_BYTES


def test_the_package_script_takes_the_emitted_file():
    assert "../rtl/overlay.v" in template("package_rtl.tcl")


def test_more_repeats_than_the_feed_counts_are_refused(shell, monkeypatch):
    # Amaranth warns of a module that is never built, also of one that was refused.
    monkeypatch.setattr(AxiShell, "_MustUse__silence", True, raising=False)
    many = (Segment(0, len(shell.program.operations), (1 << 16) + 1),)
    with pytest.raises(EmissionError, match="65537 repeats, must have at most 65536 in RTL"):
        AxiShell(dataclasses.replace(shell.program, segments=many), OVERLAY)
    gc.collect()
