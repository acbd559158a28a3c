"""Predicts published board measurements of VTA on PYNQ and says how far it is off.

It fits nothing (see `fit_vta`) and reads no tables itself (see `vta_rows`).

Three checks, each where the rows tell: time against `time_ms`; bytes against the bus counters;
legality against what the compiler accepted. Time is predicted by lowering the schedule to a
Program and running it, `cosim.executors.fast`, on the merged port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from arch_models.vta import VtaTiming, load_vta
from cosim.executors import fast
from cosim.program.result import SimResult
from cosim.program.table import Column, Program
from cosim.vta.instructions import bus_bytes, instructions
from cosim.vta.lower import (
    COMPUTE,
    LOAD,
    LOADS,
    STORE_OUTPUT,
    lower_vta,
    vta_memory,
)
from cosim.vta.schedule import reject_reason
from studies.plain.truth import truth_path
from studies.validate.vta_rows import Refusal, VtaRow, VtaTable, read_rows

TIMED_TABLES = ("vta_pynq_board_ms_2019.csv", "vta_pynq_board_ms_2022.csv")
BYTES_TABLE = "vta_pynq_bus_bytes_2022.csv"
LEGALITY_TABLE = "vta_pynq_schedule_legality_2022.csv"
REGIMES = ("compute-bound", "load-bound", "small")
#: Where the time of a row goes: the array and vector unit at work; compute waiting for loads, for
#: stores, for its own micro-ops and biases; what starting its instructions costs; the host; and the
#: rest (fetching, the first load and the last store).
CAUSES = ("compute", "load wait", "store wait", "micro-ops", "instruction cost", "host", "rest")
#: Timed rows of both tables, of which the carried one holds a part.
PUBLIC_TIMED_ROWS = 48
#: Below this a start, a first load and a last store weigh as much as the work between.
SMALL_MS = 0.5


@dataclass(frozen=True)
class Prediction:
    """One row's outcome. Times in milliseconds, `error` predicted over measured less one.

    `illegal`: why the compiler would not build the schedule (the time is predicted all the same).
    `bytes`: predicted at each bus master. `shares`: what compute did and waited for, and how long
    the load module worked, each in parts of the whole time. `causes`: the whole time divided among
    `CAUSES`.
    """

    table: str
    row: VtaRow
    predicted_ms: float | None
    regime: str
    illegal: str | None
    bytes: dict[str, int]
    shares: dict[str, float] = field(default_factory=dict)
    causes: dict[str, float] = field(default_factory=dict)

    @property
    def largest_wait(self) -> str:
        """The cause, compute aside, that takes most of the time; empty without a time."""
        waits = [name for name in self.causes if name != "compute"]
        return max(waits, key=lambda name: self.causes[name], default="")

    @property
    def error(self) -> float | None:
        """Signed relative error, None without a measurement."""
        if self.row.measured_ms is None or self.predicted_ms is None:
            return None
        return self.predicted_ms / self.row.measured_ms - 1


@dataclass(frozen=True)
class Report:
    """Predictions of all tables, the rows refused, and which tables were not found."""

    predictions: tuple[Prediction, ...]
    refused: tuple[tuple[str, Refusal], ...]
    absent: tuple[str, ...] = ()

    @property
    def timed(self) -> tuple[Prediction, ...]:
        """Rows with a measured time."""
        return tuple(item for item in self.predictions if item.error is not None)

    def errors(self, regime: str | None = None, wait: str | None = None) -> np.ndarray:
        """Signed errors, of one regime, of one `largest_wait` or of all rows."""
        return np.array([item.error for item in self.timed
                         if (regime is None or item.regime == regime)
                         and (wait is None or item.largest_wait == wait)], float)


def validate(rows_file: Path | None = None, config: str | None = None,
             timing: VtaTiming | None = None) -> Report:
    """Predict the rows of a file, or of all public tables that are present.

    Raises `UserError` for a file that cannot be used, `FieldError` for an unknown array.
    """
    used = timing or load_vta().timing
    tables: list[VtaTable] = []
    absent: list[str] = []
    if rows_file is not None:
        tables = [read_rows(rows_file, config)]
    else:
        for name in (*TIMED_TABLES, BYTES_TABLE, LEGALITY_TABLE):
            path = truth_path(name)
            if path is None:
                absent.append(name)
            else:
                tables.append(read_rows(path, config))
    found: list[Prediction] = []
    refused: list[tuple[str, Refusal]] = []
    for table in tables:
        refused += [(table.name, item) for item in table.refused]
        for row in table.rows:
            try:
                found.append(predict(table, row, used))
            except ValueError as error:
                refused.append((table.name, Refusal(row.line, str(error))))
    order = {table.name: index for index, table in enumerate(tables)}
    refused.sort(key=lambda item: (order[item[0]], item[1].line))
    return Report(tuple(found), tuple(refused), tuple(absent))


def predict(table: VtaTable, row: VtaRow, timing: VtaTiming) -> Prediction:
    """Legality always; bytes unless the row only tells legality; time unless it tells bytes.

    Raises `VtaScheduleError` where tiles do not divide the layer and the row claims a measurement.
    """
    illegal = reject_reason(row.layer, row.schedule, row.array)
    if row.accepted is not None and row.measured_ms is None:
        return Prediction(table.name, row, None, "", illegal, {})
    if row.counted is not None and row.measured_ms is None:
        stream = instructions(row.layer, row.schedule, row.array, bias=row.bias,
                              vector_operations=row.vector_operations)
        return Prediction(table.name, row, None, "", illegal, bus_bytes(stream, row.array))
    program = lower_vta(row.layer, row.schedule, row.array, timing, bias=row.bias,
                        vector_operations=row.vector_operations)
    result = fast.simulate(program, vta_memory(row.array))
    ms = result.total_cycles / row.array.clock_hz * 1e3
    shares = _shares(program, result)
    moved = {"load": int(result.layer_bytes[0, LOADS].sum()),
             "store": int(result.layer_bytes[0, STORE_OUTPUT])}
    regime = ("small" if ms < SMALL_MS else
              "compute-bound" if shares["compute works"] >= shares["load works"] else
              "load-bound")
    return Prediction(table.name, row, ms, regime, illegal, moved, shares,
                      _causes(program, result, timing))


def _shares(program: Program, result: SimResult) -> dict[str, float]:
    total = max(1, result.total_cycles)
    load = sum(int(result.busy[unit] + result.memory_stall[unit])
               for unit in (LOAD, *LOADS))
    shares = {"compute works": result.busy[COMPUTE] / total, "load works": load / total}
    for index, channel in enumerate(program.channels):
        if channel.target == COMPUTE:
            name = f"compute waits: {channel.cause}"
            shares[name] = (shares.get(name, 0.0)
                            + result.token_stall[COMPUTE, index] / total)
    return {name: float(value) for name, value in shares.items()}


def _causes(program: Program, result: SimResult, timing: VtaTiming) -> dict[str, float]:
    """The whole time divided among `CAUSES`, as the compute module spends it."""
    own = program.operations[program.operations[:, Column.UNIT] == COMPUTE]
    waits = dict.fromkeys(("input", "output", "dependence"), 0)
    for index, channel in enumerate(program.channels):
        if channel.target == COMPUTE and channel.cause in waits:
            waits[channel.cause] += int(result.token_stall[COMPUTE, index])
    parts = [int((own[:, Column.INTERVAL] * own[:, Column.TRIPS]).sum()), *waits.values(),
             int(own[:, Column.FILL].sum()), timing.host_cycles]
    parts.append(result.total_cycles - sum(parts))
    return {name: part / result.total_cycles for name, part in zip(CAUSES, parts, strict=True)}


class Errors(TypedDict):
    """Of the absolute error of some rows, as parts of one; None without rows."""

    rows: int
    median_abs_error: float | None
    p95_abs_error: float | None
    max_abs_error: float | None


class RefusedFile(TypedDict):
    """A row that is no measurement, with the reason."""

    table: str
    line: int
    reason: str


class PredictionFile(TypedDict):
    """A row, a `Prediction`."""

    table: str
    line: int
    label: str
    config: str
    predicted_ms: float | None
    measured_ms: float | None
    error: float | None
    regime: str | None
    rejected_because: str | None
    accepted: bool | None
    predicted_bytes: Mapping[str, int]
    counted_bytes: Mapping[str, int] | None
    shares: Mapping[str, float]
    causes: Mapping[str, float]


class VtaFile(TypedDict):
    """What `cosim validate vta-pynq --json` writes. `rows`: all of them, timed or not."""

    rows: int
    refused: list[RefusedFile]
    absent_tables: list[str]
    median_abs_error: float | None
    p95_abs_error: float | None
    max_abs_error: float | None
    by_regime: dict[str, Errors]
    by_largest_wait: dict[str, Errors]
    predictions: list[PredictionFile]


def summary(errors: np.ndarray) -> Errors:
    """Rows, median, 95th percentile and maximum of the absolute error (parts, not per cent)."""
    size = np.abs(errors)
    if not len(size):
        return {"rows": 0, "median_abs_error": None, "p95_abs_error": None,
                "max_abs_error": None}
    return {"rows": len(size), "median_abs_error": float(np.median(size)),
            "p95_abs_error": float(np.quantile(size, 0.95)),
            "max_abs_error": float(size.max())}


def as_json(report: Report) -> VtaFile:
    """The report as plain values: errors as parts of one, times in ms, bytes by master."""
    total = summary(report.errors())
    return {
        "rows": len(report.predictions),
        "refused": [{"table": name, "line": item.line, "reason": item.reason}
                    for name, item in report.refused],
        "absent_tables": list(report.absent),
        "median_abs_error": total["median_abs_error"], "p95_abs_error": total["p95_abs_error"],
        "max_abs_error": total["max_abs_error"],
        "by_regime": {name: summary(report.errors(name)) for name in REGIMES},
        "by_largest_wait": {name: summary(report.errors(wait=name)) for name in CAUSES[1:]},
        "predictions": [{
            "table": item.table, "line": item.row.line, "label": item.row.label,
            "config": item.row.array.name, "predicted_ms": item.predicted_ms,
            "measured_ms": item.row.measured_ms, "error": item.error,
            "regime": item.regime or None, "rejected_because": item.illegal,
            "accepted": item.row.accepted, "predicted_bytes": item.bytes,
            "counted_bytes": dict(item.row.counted) if item.row.counted else None,
            "shares": item.shares, "causes": item.causes,
        } for item in report.predictions],
    }
