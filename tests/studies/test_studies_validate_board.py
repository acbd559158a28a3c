"""Does the comparison with a board see what agrees, what differs, and what it must refuse?"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from arch_models.memory import flat_memory, memory_for
from arch_models.overlay import default_overlay
from cosim.executors.fast import simulate
from cosim.program.random import random_program
from cosim.program.table import UnitKind
from hw.board.measurement import Measurement, StepTime, UnitCounters, save_measurement
from hw.interface.configuration import configure
from hw.interface.plan import Start, steps, stretch_program
from hw.project.emit import emit
from studies.plain.errors import UserError
from studies.validate.board import (
    StepRow,
    fit_host,
    fit_memory,
    load_program,
    report,
    validate,
)
from tests.support.command import cosim
from tests.support.small_frames import board, lowered_frame, small_graph

pytestmark = pytest.mark.fitted

OVERLAY = default_overlay()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A project and a measurement that a board exactly as predicted would write."""
    folder = tmp_path_factory.mktemp("board") / "project"
    lowered = lowered_frame(OVERLAY)
    emit(lowered, small_graph(), OVERLAY, board(), folder)
    program = load_program(folder)
    configuration = configure(program, OVERLAY)
    model = memory_for(board(), OVERLAY, model="ddr3")
    times, results = [], []
    for step in steps(program, configuration):
        if isinstance(step, Start):
            results.append(simulate(stretch_program(program, configuration, step), model))
            seconds = results[-1].total_cycles / OVERLAY.clock_hz
            times.append(StepTime("fabric", (seconds,), step.first, step.count, step.repeats,
                                  step.repeat_first))
        else:
            times.append(StepTime("host", (1e-3,), layer=step.layer))
    counters = []
    for unit, item in enumerate(program.units):
        stalls = {"memory": sum(int(one.memory_stall[unit]) for one in results)}
        stalls |= {channel.name: sum(int(one.token_stall[unit, index]) for one in results)
                   for index, channel in enumerate(program.channels) if channel.target == unit}
        counters.append(UnitCounters(item.name, sum(int(one.busy[unit]) for one in results),
                                     sum(int(one.idle[unit]) for one in results), stalls))
    total = sum(step.seconds[0] for step in times)
    return folder, Measurement(
        "rtl simulation", "pynq-z1", "default", "0" * 64, program.content_hash(), "1" * 64,
        OVERLAY.clock_hz, "2026-01-01T00:00:00Z", 1, True, (total,), tuple(times),
        tuple(counters), 10, 0)


def test_a_board_as_predicted_differs_in_no_cycle(measured):
    folder, measurement = measured
    found = validate(measurement, folder)
    assert found.cycles_differing == 0 and len(found.units) > 40
    assert all(row.error == 0 for row in found.steps if row.kind == "fabric")
    assert "0 cycles differ" in report(found) and "not hardware's" in report(found)


def test_one_cycle_more_is_seen(measured):
    folder, measurement = measured
    first = measurement.counters[0]
    later = dataclasses.replace(first, busy_cycles=first.busy_cycles + 1)
    found = validate(dataclasses.replace(measurement,
                                         counters=(later, *measurement.counters[1:])), folder)
    assert found.cycles_differing == 1
    assert f"{first.unit} busy: predicted {first.busy_cycles}" in report(found)


def test_a_measurement_of_another_program_is_refused(measured):
    folder, measurement = measured
    with pytest.raises(UserError, match="belongs to program 222222222222"):
        validate(dataclasses.replace(measurement, program_sha256="2" * 64), folder)
    with pytest.raises(UserError, match="no readable emitted project"):
        validate(measurement, folder.parent / "nowhere")


def test_steps_and_units_of_something_else_are_refused(measured):
    """They would be looked up in the program's table."""
    folder, measurement = measured
    first = dataclasses.replace(measurement.steps[0], first=10**9, layer=10**9)
    for steps_of in (measurement.steps[1:], (first, *measurement.steps[1:])):
        with pytest.raises(UserError, match="steps are not those of the project"):
            validate(dataclasses.replace(measurement, steps=steps_of), folder)
    with pytest.raises(UserError, match="counts the units"):
        validate(dataclasses.replace(measurement, counters=measurement.counters[1:]), folder)


def rows(*ratios: float) -> list[StepRow]:
    return [StepRow("host", "layer", 0.01 * (index + 1), 0.01 * (index + 1) * ratio)
            for index, ratio in enumerate(ratios)]


def test_the_host_fit_finds_a_factor_and_refuses_noise():
    good = fit_host(rows(2.0, 2.0, 2.0, 2.0))
    assert (good.factor, good.error, good.refused) == (pytest.approx(2.0), pytest.approx(0), "")
    assert "off by" in fit_host(rows(0.1, 1.0, 10.0, 3.0)).refused
    assert "2 host steps" in fit_host(rows(1.0, 1.0)).refused


def test_the_memory_fit_finds_a_latency_and_refuses_noise():
    """Loads alone, so that every start feels the latency."""
    memory = flat_memory(2)
    slower = flat_memory(2, read_latency_cycles=20 + 12)
    starts = [random_program(seed, 2) for seed in range(30)]
    starts = [item for item in starts if any(unit.kind is UnitKind.READ for unit in item.units)]
    clock_hz = 100_000_000
    seconds = [simulate(item, slower).total_cycles / clock_hz for item in starts]
    good = fit_memory(starts, seconds, memory, clock_hz)
    assert (good.extra_cycles, good.error, good.refused) == (12, 0, "")
    assert good.error_before > 0
    draw = np.random.default_rng(0)
    noise = [value * factor for value, factor in zip(seconds, draw.uniform(0.2, 5, len(seconds)),
                                                     strict=True)]
    assert "left-out starts are off" in fit_memory(starts, noise, memory, clock_hz).refused
    assert "2 starts" in fit_memory(starts[:2], seconds[:2], memory, clock_hz).refused


def test_the_command_writes_json_and_picture_and_refuses_bad_files(measured, tmp_path, capsys):
    folder, measurement = measured
    path, out = tmp_path / "measurement.json", tmp_path / "found.json"
    save_measurement(measurement, str(path))
    picture = tmp_path / "found.png"
    command = ("validate", "board", "--project", folder, "--measured")
    assert cosim(*command, path, "--json", out, "--plot", picture) == 0
    assert json.loads(out.read_text())["cycles_differing"] == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    path.write_text("{}")
    for given in (path, tmp_path / "no.json"):
        assert cosim(*command, given) == 2
    assert capsys.readouterr().err.count("error:") == 2
