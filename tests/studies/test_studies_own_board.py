"""Does a meter's table give back the powers of the board that made it, and refuse nonsense?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import Board, load_board
from arch_models.overlay import default_overlay
from arch_models.power.energy import Activity, energy
from studies.energy.own_board import board_text, calibrated, read_readings
from studies.plain.errors import UserError
from tests.support.command import cosim

BOARD, DESIGN = load_board("pynq-z1"), default_overlay()
FRAME = Activity(10**8, 100e6, 0.01, {"convolution": 9e7, "buffer input": 9e7},
                 bytes_read=10**7, bytes_written=10**6, row_misses=100)
MINE = replace(BOARD, power=replace(
    BOARD.power, vccint_static_w=0.08, ps_sleep_w=0.3, ps_poll_w=0.5, ps_work_w=0.6,
    ddr_bus_w=0.2, fabric_scale=1.3))


def reading(state: str, megahertz: float, board: Board = MINE) -> dict[str, float]:
    """Watts that a board would show, by the model itself."""
    design = replace(DESIGN, clock_hz=round(megahertz * 1e6))
    if state == "running":
        work, seconds = replace(FRAME, clock_hz=megahertz * 1e6), FRAME.cycles / megahertz / 1e6
    else:
        seconds = 1.0
        work = Activity(megahertz * 1e6, megahertz * 1e6, host_s=1.0)
    found = energy(work, design, board)
    power = board.power
    processor = {"sleep": power.ps_sleep_w, "work": power.ps_work_w}.get(state, power.ps_poll_w)
    return {"vccint_w": found.pl_dynamic_j / seconds + power.vccint_static_w, "ps_w": processor,
            "ddr_w": found.ddr_j / seconds}


def table(path: Path, states: list[tuple[str, float]], rails: tuple[str, ...],
          plug: bool = False) -> Path:
    lines = ["state,clock_mhz," + ",".join(("total_w",) if plug else rails)]
    for state, clock in states:
        watts = reading(state, clock)
        cells = [sum(watts.values())] if plug else [watts[name] for name in rails]
        lines.append(f"{state},{clock}," + ",".join(f"{value:.9f}" for value in cells))
    path.write_text("\n".join(lines) + "\n")
    return path


STATES = [("sleep", 100), ("poll", 100), ("work", 100), ("loaded", 100), ("running", 50),
          ("running", 100), ("running", 125)]


def test_rails_give_back_every_power_of_the_board_they_came_from(tmp_path: Path) -> None:
    path = table(tmp_path / "rails.csv", STATES, ("vccint_w", "ps_w", "ddr_w"))
    found = {item.name: item.value for item in calibrated(read_readings(path), DESIGN, BOARD,
                                                          FRAME)}
    for name in ("vccint_static_w", "ps_sleep_w", "ps_poll_w", "ps_work_w", "ddr_bus_w",
                 "fabric_scale"):
        assert found[name] == pytest.approx(getattr(MINE.power, name), rel=1e-5), name


def test_the_written_board_predicts_with_what_was_measured(tmp_path: Path) -> None:
    path = table(tmp_path / "rails.csv", STATES, ("vccint_w", "ps_w", "ddr_w"))
    out = tmp_path / "mine.toml"
    out.write_text(board_text("pynq-z1", calibrated(read_readings(path), DESIGN, BOARD, FRAME)))
    mine = load_board(out)
    assert mine.coefficient("power.fabric_scale").status == "measured"
    one, other = energy(FRAME, DESIGN, mine), energy(FRAME, DESIGN, MINE)
    assert one.total_j == pytest.approx(other.total_j, rel=1e-4)
    # A measured scale takes the place of the law's error.
    before = energy(FRAME, DESIGN, BOARD)
    assert one.high / one.low < before.high / before.low


def test_a_meter_at_the_plug_gives_the_fabrics_scale(tmp_path: Path) -> None:
    path = table(tmp_path / "plug.csv", [("loaded", 100), ("running", 100)], (), plug=True)
    found, = calibrated(read_readings(path), DESIGN, BOARD, FRAME)
    assert found.name == "fabric_scale"
    # The frame's traffic is in the difference too.
    assert 1.3 < found.value < 1.5


@pytest.mark.parametrize(("text", "said"), [
    ("state,clock_mhz,ps_w\nasleep,100,1\n", "Did you mean 'sleep'"),
    ("state,clock_mhz,ps_w\nsleep,100,\n", "no watts"),
    ("state,clock_mhz,ps_w\nsleep,fast,1\n", "clock_mhz is 'fast'"),
    ("state,ps_w\nsleep,1\n", "no column 'clock_mhz'"),
    ("state,clock_mhz,ps_w\n", "holds no row"),
    ("state,clock_mhz,total_w\nrunning,100,2\n", "give no coefficient"),
    ("state,clock_mhz,vccint_w\nloaded,100,0.9\nrunning,100,0.2\n", "must be positive"),
    ("state,clock_mhz,ddr_w\nsleep,100,0.01\n", "less than the 0.0"),
])
def test_what_says_nothing_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        calibrated(read_readings(path), DESIGN, BOARD, FRAME)


def test_the_command_writes_the_board_and_every_number_of_it(tmp_path: Path) -> None:
    rails = table(tmp_path / "rails.csv", STATES, ("vccint_w", "ps_w", "ddr_w"))
    out, figures = tmp_path / "mine.toml", tmp_path / "powers.json"
    assert cosim("calibrate", "--power", rails, "--workload", "agc-t32b4", "--design", "face",
                 "--out", out, "--json", figures) == 0
    found = {item["name"]: item for item in json.loads(figures.read_text())["measured"]}
    assert load_board(str(out)).power.ps_work_w == pytest.approx(MINE.power.ps_work_w, rel=1e-5)
    assert found["ps_work_w"]["value"] == pytest.approx(MINE.power.ps_work_w, rel=1e-5)
    assert {"vccint_static_w", "ddr_bus_w", "fabric_scale"} < found.keys()
