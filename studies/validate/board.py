"""Sets the time a board took, or a simulation in its place, beside the predicted time.

It measures nothing; a `Measurement` file and the emitted project it was taken on go in.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.files import MOST_ARRAYS, read_bytes, read_text
from arch_models.memory import Memory, memory_for
from arch_models.overlay import Rate, load_overlay
from cosim.executors.fast import simulate
from cosim.program.result import SimResult
from cosim.program.table import Column, Program, ProgramError
from cosim.program.verify import verify
from hw.board.measurement import (
    Measurement,
    StepTime,
    UnitCounters,
    load_measurement,
)
from hw.interface.configuration import Configuration, configure
from hw.interface.descriptors import DescriptorError, unpack
from hw.interface.plan import HostStep, Start, steps, stretch_program
from hw.project.prediction import host_cycles
from studies.plain.errors import UserError

#: A fit of the host's costs must predict steps it has not seen this well, or it is refused.
LARGEST_FIT_ERROR = 0.2
LEAST_FIT_STEPS = 3
LARGEST_MEMORY_ERROR = 0.05
EXTRA_CYCLES = (-8, -4, -2, 0, 2, 4, 8, 12, 16, 24, 32, 48)


@dataclass(frozen=True)
class StepRow:
    """One step of a frame: seconds predicted, and the median of those measured."""

    kind: str
    name: str
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_s / self.measured_s - 1.0


@dataclass(frozen=True)
class UnitRow:
    """Cycles of one unit in one state (busy, idle, memory, or the channel it waited for)."""

    unit: str
    state: str
    predicted_cycles: int
    measured_cycles: int


@dataclass(frozen=True)
class HostFit:
    """`factor` turns predicted host seconds into measured ones; `error`: median relative error
    on steps left out of the fit, one at a time. `refused` says why it must not be used."""

    factor: float
    error: float
    steps: int
    refused: str


@dataclass(frozen=True)
class MemoryFit:
    """`extra_cycles` more latency of every port turns predicted into measured starts best.

    `error`: median relative error on starts left out of the fit, one at a time; `error_before`:
    without any fit. `refused` says why it must not be used.
    """

    extra_cycles: int
    error: float
    error_before: float
    starts: int
    refused: str


@dataclass(frozen=True)
class BoardValidation:
    """`source` says what was measured; only "board" is hardware."""

    DERIVED: ClassVar = ("cycles_differing",)
    source: str
    steps: tuple[StepRow, ...]
    units: tuple[UnitRow, ...]
    host: HostFit
    memory: MemoryFit

    @property
    def cycles_differing(self) -> int:
        """Cycles by which the counters differ from the prediction, over all units and states."""
        return sum(abs(row.predicted_cycles - row.measured_cycles) for row in self.units)


def validate(measurement: Measurement, project: Path, memory: str = "ddr3") -> BoardValidation:
    """Predict every start and host step of the project's frame and set it beside the measurement.

    Raises `UserError` if the measurement belongs to another program or the project is broken.
    """
    program = load_program(project)
    if program.content_hash() != measurement.program_sha256:
        raise UserError(f"the measurement belongs to program {measurement.program_sha256[:12]}, "
                        f"the project holds {program.content_hash()[:12]}; give the project that "
                        "was measured")
    board = load_board(measurement.board)
    lowered = load_overlay(project / "design.toml")
    # What ran counts, whatever was asked for; host steps were counted at the project's rate.
    overlay = replace(lowered, clock_hz=measurement.clock_hz, rate=Rate.FIXED)
    configuration = configure(program, overlay)
    model = memory_for(board, overlay, model=memory)
    _check_steps(measurement, program, configuration)
    results, rows, starts, seconds = [], [], [], []
    for step in measurement.steps:
        if step.kind == "host":
            rows.append(_host_row(program, step, lowered.clock_hz))
            continue
        start = Start(step.first, step.count, step.repeats, step.repeat_first)
        result = simulate(stretch_program(program, configuration, start), model)
        results.append(result)
        starts.append(stretch_program(program, configuration, start))
        seconds.append(statistics.median(step.seconds))
        rows.append(StepRow("fabric", _layers(program, step),
                            result.total_cycles / overlay.clock_hz,
                            statistics.median(step.seconds)))
    units = [row for index, counters in enumerate(measurement.counters)
             for row in _unit_rows(program, index, counters, results)]
    return BoardValidation(measurement.source, tuple(rows), tuple(units), fit_host(rows),
                           fit_memory(starts, seconds, model, overlay.clock_hz))


def _check_steps(measurement: Measurement, program: Program,
                 configuration: Configuration) -> None:
    """Refuse steps and units that are not those of the program."""
    made = [HostStep(step.layer) if step.kind == "host" else
            Start(step.first, step.count, step.repeats, step.repeat_first)
            for step in measurement.steps]
    if made != list(steps(program, configuration)):
        raise UserError("the measurement's steps are not those of the project; measure it again")
    units = [counters.unit for counters in measurement.counters]
    if units and units != [unit.name for unit in program.units]:
        raise UserError(f"the measurement counts the units {', '.join(units)}, the project has "
                        f"{', '.join(unit.name for unit in program.units)}")


def _layers(program: Program, step: StepTime) -> str:
    """The layers of a start: one if the host starts each layer, else the first and the last."""
    numbers = program.operations[step.first : step.first + step.count, Column.LAYER]
    first, last = program.layers[numbers[0]], program.layers[numbers[-1]]
    return first if first == last else f"{first} to {last}"


def load_program(project: Path) -> Program:
    """The program of an emitted project."""
    data = project / "data"
    try:
        program = unpack(read_bytes(data / "descriptors.bin", MOST_ARRAYS),
                         read_text(data / "program.json"))
        verify(program)
        return program
    except (FieldError, DescriptorError, ProgramError) as error:
        raise UserError(f"{project}: no readable emitted project ({error})") from None


def _host_row(program: Program, step: StepTime, clock_hz: int) -> StepRow:
    return StepRow("host", program.layers[step.layer],
                   host_cycles(program, step.layer) / clock_hz, statistics.median(step.seconds))


def _unit_rows(program: Program, unit: int, counters: UnitCounters,
               results: list[SimResult]) -> list[UnitRow]:
    predicted = {"busy": sum(int(item.busy[unit]) for item in results),
                 "idle": sum(int(item.idle[unit]) for item in results),
                 "memory": sum(int(item.memory_stall[unit]) for item in results)}
    for index, channel in enumerate(program.channels):
        if channel.target == unit:
            predicted[channel.name] = sum(int(item.token_stall[unit, index]) for item in results)
    measured = {"busy": counters.busy_cycles, "idle": counters.idle_cycles,
                **counters.stall_cycles}
    return [UnitRow(counters.unit, state, predicted.get(state, 0), measured.get(state, 0))
            for state in dict.fromkeys([*predicted, *measured])]


def fit_host(rows: list[StepRow]) -> HostFit:
    """One factor on the host's predicted times, by least squares of relative errors.

    Refused with fewer than three host steps, or if steps left out of the fit are predicted worse
    than 20 % in the median: then a factor does not explain the data.
    """
    ratios = [row.measured_s / row.predicted_s for row in rows
              if row.kind == "host" and row.predicted_s > 0]
    if len(ratios) < LEAST_FIT_STEPS:
        return HostFit(1.0, 0.0, len(ratios),
                       f"{len(ratios)} host steps, at least {LEAST_FIT_STEPS} are needed")
    errors = [abs(_factor([*ratios[:index], *ratios[index + 1 :]]) / ratio - 1.0)
              for index, ratio in enumerate(ratios)]
    error = statistics.median(errors)
    refused = ("" if error <= LARGEST_FIT_ERROR else
               f"left-out steps are off by {error:.0%} in the median, at most "
               f"{LARGEST_FIT_ERROR:.0%}")
    return HostFit(_factor(ratios), error, len(ratios), refused)


def fit_memory(starts: list[Program], seconds: list[float], memory: Memory,
               clock_hz: int) -> MemoryFit:
    """One number, the latency that every port has more than assumed, by trying each of
    `EXTRA_CYCLES`: the least sum of squared relative errors.

    Refused with fewer than three starts, if starts left out of the fit are predicted worse than
    5 % in the median, or if the fit makes them no better than no fit.
    """
    if len(starts) < LEAST_FIT_STEPS:
        return MemoryFit(0, 0.0, 0.0, len(starts),
                         f"{len(starts)} starts, at least {LEAST_FIT_STEPS} are needed")
    measured = np.array(seconds) * clock_hz
    errors = np.array([[simulate(start, _slower(memory, extra)).total_cycles
                        for start in starts] for extra in EXTRA_CYCLES]) / measured - 1.0
    squares = errors**2
    best = int(squares.sum(axis=1).argmin())
    left_out = [abs(errors[(squares.sum(axis=1) - squares[:, index]).argmin(), index])
                for index in range(len(starts))]
    error = float(np.median(left_out))
    before = float(np.median(np.abs(errors[EXTRA_CYCLES.index(0)])))
    refused = ""
    if error > LARGEST_MEMORY_ERROR:
        refused = (f"left-out starts are off by {error:.1%} in the median, at most "
                   f"{LARGEST_MEMORY_ERROR:.0%}")
    elif EXTRA_CYCLES[best] and error >= before:
        refused = f"left-out starts are off by {error:.1%}, without a fit by {before:.1%}"
    return MemoryFit(EXTRA_CYCLES[best], error, before, len(starts), refused)


def _slower(memory: Memory, extra: int) -> Memory:
    """Every port with so many cycles more between a request and its data (at least one)."""
    ports = tuple(replace(
        port, read_latency_cycles=max(1, port.read_latency_cycles + extra),
        response_cycles=max(1, port.response_cycles + extra)) for port in memory.ports)
    return replace(memory, ports=ports)


def _factor(ratios: list[float]) -> float:
    """The f with the least sum of (f / ratio - 1) squared."""
    return sum(1 / ratio for ratio in ratios) / sum(1 / ratio**2 for ratio in ratios)


def report(found: BoardValidation) -> str:
    """The comparison as text."""
    lines = [f"measured on: {found.source}"
             + ("" if found.source == "board" else " (its seconds are not hardware's)")]
    for row in found.steps:
        lines.append(f"{row.kind:7} {row.name:32} predicted {row.predicted_s * 1e3:10.3f} ms  "
                     f"measured {row.measured_s * 1e3:10.3f} ms  error {row.error:+.1%}")
    if found.units:
        lines.append(f"counters: {len(found.units)} compared, {found.cycles_differing} cycles "
                     "differ")
        lines += [f"  {row.unit} {row.state}: predicted {row.predicted_cycles}, measured "
                  f"{row.measured_cycles}" for row in found.units
                  if row.predicted_cycles != row.measured_cycles]
    host = found.host
    lines.append(f"host fit refused: {host.refused}" if host.refused else
                 f"host fit: times {host.factor:.3f}, error on left-out steps {host.error:.1%}")
    fit = found.memory
    lines.append(f"memory fit refused: {fit.refused}" if fit.refused else
                 f"memory fit: {fit.extra_cycles:+d} cycles a port, error on left-out starts "
                 f"{fit.error:.1%} (without a fit {fit.error_before:.1%})")
    return "\n".join(lines)


def draw(found: BoardValidation, path: Path) -> None:
    """Predicted against measured seconds of every step, both axes logarithmic, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 5))
    for kind in ("fabric", "host"):
        rows = [row for row in found.steps if row.kind == kind]
        axes.loglog([row.measured_s for row in rows], [row.predicted_s for row in rows], "o",
                    label=kind)
    ends = [row.measured_s for row in found.steps]
    axes.loglog([min(ends), max(ends)], [min(ends), max(ends)], "k-", linewidth=0.5)
    axes.set_xlabel(f"measured on {found.source}, s")
    axes.set_ylabel("predicted, s")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)



def validate_files(measured: Path, project: Path, memory: str) -> BoardValidation:
    """`validate` of a measurement file; `UserError` or `MeasurementError` names what is wrong."""
    return validate(load_measurement(str(measured)), project, memory)
