"""Are the paths of small netlists those that their cells' delays and nets add up to?

Whole designs are looked at elsewhere; no test here needs Yosys.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from arch_models.nets import Net, NetModel, read_net_model
from studies.resources.cell_delays import DELAY_FILE
from studies.resources.netlist import Cell, Netlist
from studies.resources.paths import Paths
from tests.support.command import cosim

MODEL = NetModel(base_ns=0.5, doubling_ns=0.25, share_factor=0.5, uncertainty_ns=0.1)
REGISTERS = {"AREG": "1", "BREG": "1", "MREG": "1", "PREG": "1", "A_INPUT": "DIRECT",
             "B_INPUT": "DIRECT", "USE_MULT": "MULTIPLY", "USE_DPORT": "FALSE"}


def cell(kind: str, parameters: Mapping[str, str] | None = None, **pins: int | tuple) -> Cell:
    """A cell named after its kind; a pin of one net, or a tuple of nets."""
    return Cell(kind.lower(), kind, parameters or {},
                {port: nets if isinstance(nets, tuple) else (nets,)
                 for port, nets in pins.items()}, "")


def netlist(*cells: Cell, names: Mapping[int, str] | None = None) -> Netlist:
    return Netlist(cells, {}, {}, names or {}, {})


@pytest.mark.parametrize("text", (
    "[]", "{}", '{"modules": []}', '{"modules": {"top": {"cells": []}}}', '{"modules": {"top": 1}}',
    '{"modules": {"top": {"cells": {"a": {"type": "x"}}}}}', '{"format": "cosim"}', "poem"))
def test_a_file_that_is_no_netlist_is_refused_in_words(
        tmp_path: Path, capsys: pytest.CaptureFixture, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    assert cosim("study", "paths", tmp_path / "other.json") == 2
    assert "other.json: " in capsys.readouterr().err


def test_lut_between_registers_adds_cell_and_general_net() -> None:
    path, = Paths(netlist(
        cell("FDRE", C=9, D=-1, Q=1), cell("LUT2", I0=1, I1=1, O=2), cell("FDRE", C=9, D=2, Q=3),
        names={1: "first[0]", 3: "second[0]"}), MODEL).longest()
    assert (path.start, path.end) == ("first[0]", "second[0]")
    assert path.logic_ns == pytest.approx(0.456 + 0.124)
    assert path.nets_ns == pytest.approx(0.5 + 0.25)  # two sinks; LUT to register is local
    assert path.mhz == pytest.approx(1000 / (0.456 + 0.124 + 0.75 + 0.1))


def test_nets_are_longer_where_the_fabric_is_full() -> None:
    cells = (cell("FDRE", C=9, D=-1, Q=1), cell("FDRE", C=9, D=1, Q=2))
    empty, full = (Paths(netlist(*cells), MODEL, share).longest()[0] for share in (0.0, 1.0))
    assert full.nets_ns == pytest.approx(1.5 * empty.nets_ns)
    assert full.logic_ns == empty.logic_ns


def test_carry_chain_pays_for_one_net_and_every_stage() -> None:
    stages = 4
    chain = [cell("CARRY4", CI=-1 if stage == 0 else 100 + stage, CYINIT=-1, DI=(-1,) * 4,
                  S=(5 if stage == 0 else -1, -1, -1, -1),
                  CO=(-1, -1, -1, 101 + stage), O=(200 + stage,) + (-1,) * 3)
             for stage in range(stages)]
    end = cell("FDRE", C=9, D=200 + stages - 1, Q=3)
    path = Paths(netlist(cell("FDRE", C=9, D=-1, Q=1), cell("LUT1", I0=1, O=5), *chain, end),
                 MODEL).longest()[0]
    assert path.logic_ns == pytest.approx(0.456 + 0.124 + 0.508 + (stages - 2) * 0.117 + 0.222)
    assert path.nets_ns == pytest.approx(0.5)
    assert [hop.net for hop in path.hops[2:]] == [
        Net.LOCAL, *[Net.CASCADE] * (stages - 1), Net.LOCAL]


@pytest.mark.parametrize(("registers", "arrives", "leaves"), [
    ({}, 0.362, 0.434),
    ({"AREG": "0"}, 1.928, 0.434),
    ({"AREG": "0", "MREG": "0"}, 3.722, 0.434),
    ({"PREG": "0"}, 0.362, 2.305),
    ({"MREG": "0", "PREG": "0"}, 0.362, 4.009),
])
def test_dsp_delays_follow_the_registers_that_it_uses(
        registers: Mapping[str, str], arrives: float, leaves: float) -> None:
    block = cell("DSP48E1", {**REGISTERS, **registers}, A=(1,), B=(-1,), P=(2, 3))
    paths = Paths(netlist(
        cell("FDRE", C=9, D=-1, Q=1), block, cell("FDRE", C=9, D=2, Q=4)), MODEL).longest()
    assert sorted(path.logic_ns for path in paths) == pytest.approx(
        sorted((0.456 + arrives, leaves)))


def test_dsp_without_registers_is_passed_through() -> None:
    block = cell("DSP48E1", {**REGISTERS, **dict.fromkeys(("AREG", "BREG", "MREG", "PREG"), "0")},
                 A=(1, 1), B=(-1,), P=(2, 3))
    path, = Paths(netlist(
        cell("FDRE", C=9, D=-1, Q=1), block, cell("FDRE", C=9, D=2, Q=4)), MODEL).longest()
    assert path.logic_ns == pytest.approx(0.456 + 3.841)


@pytest.mark.parametrize(("register", "leaves"), [("0", 2.454), ("1", 0.882)])
def test_block_ram_is_faster_with_its_output_register(register: str, leaves: float) -> None:
    memory = cell("RAMB36E1", {"DOB_REG": register}, DOBDO=(1,))
    path, = Paths(netlist(memory, cell("FDRE", C=9, D=1, Q=2)), MODEL).longest()
    assert path.logic_ns == pytest.approx(leaves)


def test_one_path_for_each_pair_of_words() -> None:
    bits = range(4)
    cells = [cell("FDRE", C=99, D=-1, Q=bit) for bit in bits]
    cells += [cell("FDRE", C=99, D=bit, Q=10 + bit) for bit in bits]
    names = {bit: f"a[{bit}]" for bit in bits} | {10 + bit: f"b[{bit}]" for bit in bits}
    assert len(Paths(netlist(*cells, names=names), MODEL).longest()) == 1


def test_combinational_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="loop"):
        Paths(netlist(cell("LUT1", I0=1, O=2), cell("LUT1", I0=2, O=1)), MODEL).longest()


def test_cell_without_delays_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="IDDR"):
        Paths(netlist(cell("IDDR", D=1, Q1=2)), MODEL)


def test_every_delay_names_its_source_and_is_no_guess() -> None:
    with DELAY_FILE.open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert len(set(rows)) == len(rows)
    assert {row[-1].split()[0] for row in rows} == {"prjxray-db", "vendor"}


def test_signal_enters_a_carry_through_a_lut_even_where_none_is_drawn() -> None:
    ends = cell("FDRE", C=9, D=200, Q=3)
    chain = cell("CARRY4", CI=-1, CYINIT=-1, DI=(-1,) * 4, S=(1, -1, -1, -1), O=(200, -1, -1, -1))
    path, = Paths(netlist(cell("FDRE", C=9, D=-1, Q=1), chain, ends), MODEL).longest()
    assert path.logic_ns == pytest.approx(0.456 + 0.124 + 0.228)


def test_slowest_way_through_a_cell_counts() -> None:
    path, = Paths(netlist(
        cell("FDRE", C=9, D=-1, Q=1), cell("LUT1", I0=1, O=4),
        cell("MUXF7", I0=4, I1=4, S=1, O=2), cell("FDRE", C=9, D=2, Q=3)), MODEL).longest()
    assert path.nets_ns + path.logic_ns == pytest.approx(0.456 + 0.75 + max(0.124 + 0.225, 0.314))


def test_shipped_net_model_grows_with_fan_out_and_share() -> None:
    model = read_net_model()
    by_fan_out = [model.delay_ns(Net.GENERAL, fan_out, 0.0) for fan_out in (1, 4, 64)]
    by_share = [model.delay_ns(Net.GENERAL, 1, share) for share in (0.0, 0.5, 1.0)]
    for times in (by_fan_out, by_share):
        assert times == sorted(set(times))
    assert model.delay_ns(Net.CASCADE, 8, 1.0) == 0.0
