"""Fits the timing coefficients of VTA on PYNQ to the public timed rows, and cross-validates them.

It writes nothing: it prints what belongs into `arch_models/data/vta.toml`.

Rows of 2019 and 2022 together, numbered as they lie in the tables. Fold k leaves out the rows
with number k modulo the number of folds; its coefficients predict the rows left out. The loss is
the mean square of the relative error. All coefficients are whole numbers of cycles (or KiB), so
the search is a pattern search over single and paired steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations

import numpy as np

from arch_models.vta import VtaTiming, load_vta
from cosim.executors import fast
from cosim.vta.lower import lower_vta, vta_memory
from studies.plain.errors import UserError
from studies.plain.truth import truth_path
from studies.validate.vta import TIMED_TABLES
from studies.validate.vta_rows import VtaRow, read_rows

FOLDS = 4
#: First steps of the search, halved until they are one.
STEPS = {"host_cycles": 128, "instruction_cycles": 8, "row_cycles": 4, "miss_burst_cycles": 1,
         "weight_beat_cycles": 1, "cache_bytes": 32 * 1024}
SMALLEST = {"host_cycles": 16, "cache_bytes": 16 * 1024}


def timed_rows() -> list[VtaRow]:
    """The public timed rows; `UserError` if a table is absent."""
    rows: list[VtaRow] = []
    for name in TIMED_TABLES:
        path = truth_path(name)
        if path is None:
            raise UserError(f"the table {name} is absent; there is nothing to fit.")
        rows += read_rows(path).rows
    return [row for row in rows if row.measured_ms is not None]


def errors(rows: Sequence[VtaRow], timing: VtaTiming) -> np.ndarray:
    """Signed relative error of each row's predicted time."""
    found = []
    for row in rows:
        program = lower_vta(row.layer, row.schedule, row.array, timing)
        result = fast.simulate(program, vta_memory(row.array, timing))
        found.append(result.total_cycles / row.array.clock_hz * 1e3 / (row.measured_ms or 1) - 1)
    return np.array(found)


def fit(rows: Sequence[VtaRow], start: VtaTiming) -> VtaTiming:
    """Coefficients with the least mean square error on the rows, near `start`."""
    bounds = {item.name: (item.low, item.high) for item in load_vta().fitted}
    known: dict[tuple, float] = {}

    def loss(values: dict[str, int]) -> float:
        key = tuple(values.values())
        if key not in known:
            inside = all(bounds[n][0] <= v <= bounds[n][1] for n, v in values.items())
            known[key] = (float(np.mean(errors(rows, VtaTiming(**values)) ** 2)) if inside
                          else float("inf"))
        return known[key]

    best = {name: int(value) for name, value in asdict(start).items()}
    steps = dict(STEPS)
    while True:
        better = _improve(best, steps, loss)
        if better is not None:
            best = better
        elif all(steps[n] <= SMALLEST.get(n, 1) for n in steps):
            return VtaTiming(**best)
        else:
            steps = {n: max(SMALLEST.get(n, 1), step // 2) for n, step in steps.items()}


def _improve(best: dict[str, int], steps: dict[str, int], loss) -> dict[str, int] | None:  # type: ignore[no-untyped-def]
    now = loss(best)
    moves = [{name: sign * step} for name, step in steps.items() for sign in (1, -1)]
    moves += [one | two for one, two in combinations(moves, 2) if not one.keys() & two.keys()]
    for move in moves:
        tried = {name: value + move.get(name, 0) for name, value in best.items()}
        if loss(tried) < now * (1 - 1e-6):
            return tried
    return None


def run() -> None:
    """Fit all rows, then each fold, and print coefficients with spread and both errors."""
    rows = timed_rows()
    whole = fit(rows, load_vta().timing)
    inside = np.abs(errors(rows, whole))
    outside = np.zeros(len(rows))
    folds = []
    for fold in range(FOLDS):
        left_out = np.arange(len(rows)) % FOLDS == fold
        kept = [row for row, out in zip(rows, left_out, strict=True) if not out]
        found = fit(kept, replace(whole))
        folds.append(found)
        tested = [row for row, out in zip(rows, left_out, strict=True) if out]
        outside[left_out] = np.abs(errors(tested, found))
        print(f"fold {fold}: {found}", flush=True)
    for name, found_error in (("fitted", inside), ("cross-validated", outside)):
        print(f"{name}: {len(found_error)} rows, median {100 * np.median(found_error):.2f} %, "
              f"95th percentile {100 * np.quantile(found_error, 0.95):.2f} %, "
              f"maximum {100 * found_error.max():.2f} %")
    for name, value in asdict(whole).items():
        values = [getattr(item, name) for item in folds]
        print(f"{name} = {value}, spread {(max(values) - min(values)) / 2}")
