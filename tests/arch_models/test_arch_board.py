"""Does a board carry every number with its evidence, and refuse what is wrong with a file?"""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import pytest

from arch_models.board import BOARDS, board_names, load_board
from arch_models.fields import FieldError, with_value

TRUTH = Path(__file__).parents[3] / "shared" / "truth" / "pynq_ddrc_settings.csv"


def test_pynq_z1_has_the_part_that_its_data_sheet_states() -> None:
    board = load_board("pynq-z1")
    assert (board.part.dsp, board.part.bram36, board.part.lut, board.part.ff) == (
        220, 140, 53200, 106400)
    assert board.ddr.peak_bytes_per_s == 2.1e9
    assert board.ddr.row_bytes == 2048 and board.ddr.banks == 8
    assert [port.name for port in board.ports] == ["HP0", "HP1", "HP2", "HP3", "ACP"]


@pytest.mark.parametrize("name", board_names())
def test_every_number_has_a_source_and_a_unit(name: str) -> None:
    board = load_board(name)
    assert len(board.coefficients) > 60
    for item in board.coefficients:
        assert item.source and item.unit, item.name
    assert board.coefficient("ddr.t_rcd").value == board.ddr.t_rcd
    assert pickle.loads(pickle.dumps(board)) == board


def test_registers_equal_the_table_of_settings() -> None:
    if not TRUTH.exists():
        print(f"absent: {TRUTH.name}; its values were not compared")
        return
    with TRUTH.open() as file:
        table = {row["field"].lower(): row["value"] for row in csv.DictReader(file)}
    ddr = load_board("pynq-z1").ddr
    other = {"cl_read_latency": "read_latency", "cwl": "write_latency",
             "page_policy_pageclose": "page_close",
             "lpr_xact_run_length": "lpr_transaction_run_length",
             "wr_xact_run_length": "wr_transaction_run_length",
             "burst_length": "burst_length_beats", "data_bus_width": "data_bus_bits",
             "port_priority_rd_wr": "port_priority"}
    compared = 0
    for field, value in table.items():
        name = other.get(field, field)
        if hasattr(ddr, name):
            assert getattr(ddr, name) == int(value), field
            compared += 1
    assert compared >= 30
    assert ddr.clock_hz == int(table["ddr_clock_mhz"]) * 10**6


def test_an_unknown_board_gets_the_nearest_name() -> None:
    with pytest.raises(FieldError, match="did you mean 'pynq-z1'"):
        load_board("pynq-z2")


@pytest.mark.parametrize(("old", "new", "message"), [
    ('name = "pynq-z1"', 'nam = "pynq-z1"', "unknown field 'nam'; did you mean 'name'"),
    ("t_rcd = {", "t_rdc = {", "unknown field 't_rdc'"),
    ("value = 220,", "value = 2.5,", "part.dsp: 2.5 must be a whole number"),
    ("value = 220,", 'value = "many",', "part.dsp.value: 'many' must be a number"),
    ("value = 220,", "value = -1,", "must not be negative"),
    ('status = "recalled"', 'status = "recaled"', "did you mean 'recalled'"),
    ('kind = "acp"', 'kind = "acb"', "did you mean 'acp'"),
    ('name = "HP1"', 'name = "HP0"', "must differ"),
    ("[part]", "[part", "not TOML"),
])
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, old: str, new: str,
                                         message: str) -> None:
    text = (BOARDS / "pynq_z1.toml").read_text()
    assert old in text
    path = tmp_path / "board.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FieldError, match=message.replace("(", r"\(")):
        load_board(path)


def test_a_field_left_out_is_named(tmp_path: Path) -> None:
    lines = (BOARDS / "pynq_z1.toml").read_text().splitlines()
    path = tmp_path / "board.toml"
    path.write_text("\n".join(line for line in lines if not line.startswith("t_faw")))
    with pytest.raises(FieldError, match="field 't_faw' is missing"):
        load_board(path)


def test_fields_change_by_dotted_name() -> None:
    board = load_board("pynq-z1")
    assert with_value(board, "ddr.data_bus_bits", 32).ddr.peak_bytes_per_s == 4.2e9
    assert with_value(board, "ports.HP2.fifo_bytes", 512).port("HP2").fifo_bytes == 512
    with pytest.raises(FieldError, match="did you mean 't_rrd'"):
        with_value(board, "ddr.t_rd", 3)
