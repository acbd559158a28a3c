"""Fits the timing coefficients of VTA on PYNQ to the public timed rows, and cross-validates them.

It writes nothing; what it finds belongs into `arch_models/data/vta.toml`.

Rows of 2019 and 2022 together. The loss is the mean square of the relative error, with two
expectations from the hardware's source where the rows say little (`EXPECTED`). Times are nearly
linear in the coefficients, so a few steps of Gauss and Newton find the least; `cache_bytes` is a
number of ways and is tried. One network after another is left out and predicted by the others, and
so is every fourth row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from rich.console import Console

from arch_models.vta import MEANS, VtaTiming, load_vta
from cosim.executors import fast
from cosim.vta.cache import WAY_BYTES
from cosim.vta.lower import lower_vta, vta_memory
from studies.plain.errors import UserError
from studies.plain.terminal import grid
from studies.plain.truth import truth_path
from studies.validate.vta import TIMED_TABLES
from studies.validate.vta_rows import VtaRow, read_rows

#: Half the distance over which the slope of each coefficient is taken.
STEPS = {"host_cycles": 40.0, "instruction_cycles": 4.0, "gemm_cycles": 8.0, "row_cycles": 2.0,
         "padded_row_cycles": 3.0, "store_row_cycles": 6.0, "miss_burst_cycles": 0.5,
         "miss_wide_burst_cycles": 0.5}
#: What the hardware's source leads one to expect: value, standard deviation. Two loops entered and
#: left cost some three cycles each; a write response takes no longer than a read's first beat.
EXPECTED = {"padded_row_cycles": (6.0, 3.0), "store_row_cycles": (35.0, 12.0)}
#: Relative error of a row that the expectations are weighed against: about the spread between the
#: two campaigns of measurements.
ROW_ERROR = 0.006
ROUNDS = 4
WAYS = range(3, 9)
FOLDS = 4
#: Correlations above this are told.
TOLD = 0.5


@dataclass(frozen=True)
class Fit:
    """Coefficients, and the covariance of those in `STEPS`, in their order."""

    timing: VtaTiming
    covariance: np.ndarray

    def correlations(self) -> list[tuple[str, str, float]]:
        """Pairs that move together by more than `TOLD`, the closest first."""
        spread = np.sqrt(np.diag(self.covariance))
        table = self.covariance / np.outer(spread, spread)
        names = list(STEPS)
        found = [(names[i], names[j], float(table[i, j]))
                 for i in range(len(names)) for j in range(i + 1, len(names))
                 if abs(table[i, j]) > TOLD]
        return sorted(found, key=lambda pair: -abs(pair[2]))


def timed_rows() -> list[tuple[str, VtaRow]]:
    """The public timed rows with their networks; `UserError` if a table is absent."""
    rows: list[VtaRow] = []
    for name in TIMED_TABLES:
        path = truth_path(name)
        if path is None:
            raise UserError(f"the table {name} is absent; there is nothing to fit.")
        rows += read_rows(path).rows
    return [(row.label.split()[0], row) for row in rows if row.measured_ms is not None]


def errors(rows: Sequence[VtaRow], timing: VtaTiming) -> np.ndarray:
    """Signed relative error of each row's predicted time."""
    found = []
    for row in rows:
        program = lower_vta(row.layer, row.schedule, row.array, timing)
        result = fast.simulate(program, vta_memory(row.array))
        found.append(result.total_cycles / row.array.clock_hz * 1e3 / (row.measured_ms or 1) - 1)
    return np.array(found)


def fit(rows: Sequence[VtaRow], start: VtaTiming) -> Fit:
    """Coefficients of the least loss on the rows, with the ways of `start`."""
    bounds = {item.name: (item.low, item.high) for item in load_vta().fitted}
    values = {name: float(getattr(start, name)) for name in STEPS}
    for _ in range(ROUNDS):
        at = errors(rows, _timing(values, start))
        slopes, missing = [_slope(rows, values, start, name) for name in STEPS], -at
        matrix = np.stack(slopes, axis=1)
        for name, (value, deviation) in EXPECTED.items():
            line = np.array([float(name == other) for other in STEPS]) * ROW_ERROR / deviation
            matrix = np.vstack((matrix, line))
            missing = np.append(missing, (value - values[name]) * ROW_ERROR / deviation)
        change, *_ = np.linalg.lstsq(matrix, missing, rcond=None)
        values = {name: float(np.clip(value + step, *bounds[name]))
                  for (name, value), step in zip(values.items(), change, strict=True)}
    found = _timing(values, start)
    left = errors(rows, found)
    variance = float(left @ left) / max(1, len(left) - len(STEPS))
    return Fit(found, np.linalg.pinv(matrix.T @ matrix) * variance)


def _timing(values: dict[str, float], start: VtaTiming) -> VtaTiming:
    whole = {name: round(value, 2) if name in MEANS else round(value)
             for name, value in values.items()}
    return replace(start, **whole)  # type: ignore[arg-type]


def _slope(rows: Sequence[VtaRow], values: dict[str, float], start: VtaTiming,
           name: str) -> np.ndarray:
    """Change of the errors with one coefficient."""
    ends = [_timing(values | {name: max(0.0, values[name] + sign * STEPS[name])}, start)
            for sign in (-1, 1)]
    low, high = (errors(rows, end) for end in ends)
    return (high - low) / (getattr(ends[1], name) - getattr(ends[0], name))


@dataclass(frozen=True)
class LeftOut:
    """What coefficients that were fitted without some rows say of these: `kind` network or fold,
    signed relative errors."""

    kind: str
    group: str
    timing: VtaTiming
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """The fit to all rows with the errors it leaves, the spread of each coefficient, pairs that
    move together, and the fits that leave rows out."""

    timing: VtaTiming
    errors: tuple[float, ...]
    spread: dict[str, float]
    correlations: list[tuple[str, str, float]]
    left_out: tuple[LeftOut, ...]


def run() -> Found:
    """Fit all rows, then leave out each network and each fold; takes minutes."""
    named = timed_rows()
    rows = [row for _, row in named]
    best = min((fit(rows, replace(load_vta().timing, cache_bytes=ways * WAY_BYTES))
                for ways in WAYS),
               key=lambda found: float(np.mean(errors(rows, found.timing) ** 2)))
    networks = np.array([name for name, _ in named])
    folds = np.arange(len(rows)) % FOLDS
    outside = []
    for kind, groups in (("network", networks), ("fold", folds)):
        for group in np.unique(groups):
            kept = [row for row, own in zip(rows, groups, strict=True) if own != group]
            tested = [row for row, own in zip(rows, groups, strict=True) if own == group]
            timing = fit(kept, best.timing).timing
            outside.append(LeftOut(kind, str(group), timing,
                                   tuple(errors(tested, timing).tolist())))
    spread = dict(zip(STEPS, np.sqrt(np.diag(best.covariance)).tolist(), strict=True))
    return Found(best.timing, tuple(errors(rows, best.timing).tolist()), spread,
                 best.correlations(), tuple(outside))


def show(console: Console, found: Found) -> None:
    """Print coefficients with unit and spread, and the errors of each fit in percent."""
    table = grid("VTA on PYNQ, fitted to all timed rows",
                 ("coefficient", "value", "spread", "unit"), ("unit",))
    units = {item.name: item.unit for item in load_vta().fitted}
    for name, value in asdict(found.timing).items():
        spread = found.spread.get(name)
        table.add_row(name, f"{value:g}", "-" if spread is None else f"{spread:.2g}",
                      units.get(name, "bytes"))
    console.print(table)
    table = grid("Predicted against measured, error in % of the time measured",
                 ("fitted to", "rows", "median", "95th percentile", "maximum", "mean"))
    table.add_row("all, told of all", *_told(found.errors))
    for kind in ("network", "fold"):
        table.add_section()
        own = [item for item in found.left_out if item.kind == kind]
        for item in own:
            table.add_row(f"all but {kind} {item.group}, told of it", *_told(item.errors))
        table.add_row(f"every {kind} from the others",
                      *_told([error for item in own for error in item.errors]))
    console.print(table)
    for first, second, together in found.correlations:
        console.print(f"{first} and {second} move together: {together:+.2f}")


def _told(found: Sequence[float]) -> tuple[str, ...]:
    size = 100 * np.abs(np.array(found))
    return (str(len(size)), f"{np.median(size):.2f}", f"{np.quantile(size, 0.95):.2f}",
            f"{size.max():.2f}", f"{100 * np.mean(found):+.2f}")
