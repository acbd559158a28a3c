"""Do memory parameters refuse what is illegal, and follow the board and the overlay?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.memory import (
    Memory,
    Port,
    board_memory,
    cpu_traffic,
    flat_memory,
    memory_coefficients,
    memory_for,
)
from arch_models.overlay import default_overlay

BOARD = load_board("pynq-z1")


def test_ports_are_the_boards_in_its_order() -> None:
    memory = memory_for(BOARD, default_overlay(), "flat")
    assert [port.name for port in memory.ports] == [port.name for port in BOARD.ports]
    assert [port.controller_port for port in memory.ports] == [
        port.ddr_port for port in BOARD.ports]


def test_registers_become_timing() -> None:
    ddr = board_memory(BOARD, 100_000_000).ddr
    assert ddr is not None
    assert (ddr.t_rcd, ddr.t_rp, ddr.t_ras, ddr.t_rc, ddr.t_faw) == (7, 7, 19, 26, 21)
    assert (ddr.read_starve, ddr.write_starve, ddr.read_run, ddr.read_entries) == (64, 64, 8, 32)
    assert ddr.transaction_bytes == 16 and ddr.row_bytes == 2048 and ddr.banks == 8
    assert ddr.peak_bytes_per_s == BOARD.ddr.peak_bytes_per_s == 2_100_000_000


def test_a_faster_fabric_sees_more_cycles_of_latency() -> None:
    slow, fast = (board_memory(BOARD, hertz).ports[0] for hertz in (50_000_000, 200_000_000))
    assert fast.request_cycles > slow.request_cycles
    assert fast.read_latency_cycles > slow.read_latency_cycles


def test_width_of_a_port_is_that_of_its_masters() -> None:
    overlay = default_overlay()
    narrow = replace(overlay, masters=tuple(
        replace(master, width_bits=32) for master in overlay.masters))
    used = {master.port for master in narrow.masters if master.port.startswith("HP")}
    widths = {port.name: port.width_bytes for port in memory_for(BOARD, narrow).ports}
    assert used and all(widths[name] == 4 for name in used)


def test_a_width_the_port_lacks_is_refused_with_the_nearest() -> None:
    overlay = default_overlay()
    masters = (replace(overlay.masters[0], port="HP0", width_bits=128), *overlay.masters[1:])
    with pytest.raises(FieldError, match=r"width_bits is 128, port HP0 has 32, 64; nearest 64"):
        memory_for(BOARD, replace(overlay, masters=masters))


def test_two_widths_on_one_port_are_refused() -> None:
    overlay = default_overlay()
    first, second, *rest = overlay.masters
    masters = (replace(first, port="HP0", width_bits=32),
               replace(second, port="HP0", width_bits=64), *rest)
    with pytest.raises(FieldError, match="a port has one width"):
        memory_for(BOARD, replace(overlay, masters=masters))


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(FieldError, match="did you mean 'ddr3'"):
        memory_for(BOARD, default_overlay(), "ddr4")
    with pytest.raises(FieldError, match="ddr is None"):
        Memory("ddr3", (Port("p"),))


@pytest.mark.parametrize(("field", "value", "rule"), [
    ("width_bytes", 6, "power of two"), ("width_bytes", 0, "power of two"),
    ("read_latency_cycles", 0, "at least 1"), ("read_accept", 0, "at least 1")])
def test_an_impossible_port_is_refused(field: str, value: int, rule: str) -> None:
    with pytest.raises(FieldError, match=f"{field} is {value}, must be .*{rule}"):
        Port("p", **{field: value})


@pytest.mark.parametrize(("field", "value", "rule"), [
    ("t_rcd", 0, "at least 1"), ("banks", 6, "a power of two"), ("row_bytes", 8, "at least")])
def test_an_impossible_dram_is_refused(field: str, value: int, rule: str) -> None:
    ddr = board_memory(BOARD, 100_000_000).ddr
    assert ddr is not None
    with pytest.raises(FieldError, match=f"{field} is {value}, must be {rule}"):
        replace(ddr, **{field: value})


def test_an_address_map_that_is_not_row_bank_column_is_refused() -> None:
    odd = replace(BOARD, ddr=replace(BOARD.ddr, bank_low_bit=26, bank_high_bit=28,
                                     row_low_bit=11, row_high_bit=25))
    with pytest.raises(FieldError, match="row, bank, column"):
        board_memory(odd, 100_000_000)


def test_every_coefficient_has_a_source() -> None:
    evidence = memory_coefficients().evidence
    assert {item.name for item in evidence} >= {
        "hp.request_ns", "controller.write_gap_eighths", "controller.miss_gap_clocks"}
    assert all(item.source for item in evidence)
    assert cpu_traffic().period_clocks > 0


def test_flat_memory_for_teaching_has_equal_ports() -> None:
    memory = flat_memory(3, 4, 11, 5)
    assert {(port.width_bytes, port.read_latency_cycles) for port in memory.ports} == {(4, 11)}
