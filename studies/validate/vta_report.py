"""Shows a VTA validation: tables on the terminal and the predicted-against-measured plot.

It computes no prediction; see `validate_vta`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from studies.plain.files import write_whole
from studies.plain.terminal import grid, terminal
from studies.validate.vta import (
    CAUSES,
    PUBLIC_TIMED_ROWS,
    REGIMES,
    Prediction,
    Report,
    summary,
)
from studies.validate.vta_rows import COUNTERS

WORST = 5
REFUSALS_SHOWN = 10
MASTERS = tuple(COUNTERS.values())


def show(report: Report, console: Console | None = None) -> None:
    """Print every timed row, the errors by regime, the worst rows explained, bytes, legality."""
    out = console or terminal()
    for name in report.absent:
        out.print(f"table {name} is absent: its rows were not checked")
    timed = report.timed
    if report.absent:
        out.print(f"checked {len(timed)} of the {PUBLIC_TIMED_ROWS} public timed rows")
    if timed:
        out.print(_rows(timed))
        out.print(_regimes(report))
        out.print(_waits(report))
        for line in explanations(timed):
            out.print(line)
    predicted = [item for item in report.predictions
                 if item.predicted_ms is not None and item.error is None]
    if predicted:
        out.print(_rows(predicted))
    for line in (*byte_lines(report), *legality_lines(report)):
        out.print(line)
    for table, item in report.refused[:REFUSALS_SHOWN]:
        out.print(f"refused: {table} line {item.line}: {item.reason}", markup=False)
    if len(report.refused) > REFUSALS_SHOWN:
        out.print(f"refused: {len(report.refused) - REFUSALS_SHOWN} more rows, see --json")


def _rows(items: Iterable[Prediction]) -> Table:
    table = grid("Time of each row, predicted and measured", (
        "line", "array", "layer and schedule", "regime", "predicted ms", "measured ms", "error %"),
        ("array", "layer and schedule", "regime"))
    for item in items:
        known = item.error is not None
        table.add_row(str(item.row.line), item.row.array.name,
                      item.row.label + (" (not buildable)" if item.illegal else ""), item.regime,
                      f"{item.predicted_ms:.4f}",
                      f"{item.row.measured_ms:.4f}" if known else "-",
                      f"{100 * (item.error or 0):+.2f}" if known else "-")
    return table


def _regimes(report: Report) -> Table:
    table = grid("Absolute error of the predicted time", (
        "regime", "rows", "median %", "95th percentile %", "maximum %"))
    for name in (*REGIMES, "all"):
        found = summary(report.errors(None if name == "all" else name))
        if found["rows"]:
            table.add_row(name, str(found["rows"]), *(
                f"{100 * float(found[key] or 0):.2f}"
                for key in ("median_abs_error", "p95_abs_error", "max_abs_error")))
    return table


def wait_rows(report: Report) -> list[tuple[str, ...]]:
    """Rows grouped by what takes most of their time beside the arithmetic, and their errors.

    (cause, rows, its mean share of the time, mean signed error, median and largest error), in per
    cent: a term of the model that is wrong shows as a mean error of its group.
    """
    found = []
    for name in CAUSES[1:]:
        mine = [item for item in report.timed if item.largest_wait == name]
        if mine:
            errors = report.errors(wait=name)
            share = float(np.mean([item.causes[name] for item in mine]))
            found.append((name, str(len(mine)), *(f"{100 * value:{form}}" for value, form in (
                (share, ".0f"), (float(errors.mean()), "+.2f"),
                (float(np.median(np.abs(errors))), ".2f"),
                (float(np.abs(errors).max()), ".2f")))))
    return found


WAIT_HEAD = ("most time beside compute", "rows", "mean share %", "mean error %",
             "median absolute error %", "maximum %")


def _waits(report: Report) -> Table:
    table = grid("Error by cause", WAIT_HEAD)
    for row in wait_rows(report):
        table.add_row(*row)
    return table


def explanations(items: Iterable[Prediction], count: int = WORST) -> list[str]:
    """The rows with the largest errors, each with what its modules did and waited for."""
    worst = sorted(items, key=lambda item: -abs(item.error or 0))[:count]
    lines = ["Largest errors, with what the simulated modules did:"] if worst else []
    for item in worst:
        parts = sorted(((name, share) for name, share in item.shares.items() if share >= 0.005),
                       key=lambda part: -part[1])
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts)
        lines.append(f"  {100 * (item.error or 0):+.2f} % {item.row.label}: {told}")
    return lines


def byte_lines(report: Report) -> list[str]:
    """How many rows match the bus counters exactly, by master, and how far the others are."""
    counted = [item for item in report.predictions if item.row.counted]
    lines = []
    for name, items in (("marked exact", [i for i in counted if i.row.exact]),
                        ("not marked exact", [i for i in counted if not i.row.exact])):
        if not items:
            continue
        lines.append(f"Bytes at the bus masters, {len(items)} rows {name}:")
        for master in MASTERS:
            gaps = [(item.bytes[master], item.row.counted[master]) for item in items
                    if item.row.counted is not None and master in item.row.counted
                    and master in item.bytes]
            same = sum(mine == theirs for mine, theirs in gaps)
            off = [abs(mine / theirs - 1) if theirs else 1.0 for mine, theirs in gaps
                   if mine != theirs]
            told = (f"; the others are off by a median of {100 * float(np.median(off)):.2f} %, "
                    f"at most {100 * max(off):.2f} %" if off else "")
            lines.append(f"  {master}: {same} of {len(gaps)} equal{told}")
    return lines


def legality_lines(report: Report) -> list[str]:
    """How many schedules are accepted and rejected as by the compiler."""
    known = [item for item in report.predictions if item.row.accepted is not None]
    if not known:
        return []
    same = sum((item.illegal is None) == item.row.accepted for item in known)
    accepted = sum(bool(item.row.accepted) for item in known)
    return [f"Legality: {same} of {len(known)} rows ({100 * same / len(known):.2f} %) agree with "
            f"the compiler, which accepted {accepted}"]


def picture(report: Report) -> Figure:
    """Predicted against measured time, both axes logarithmic, one mark a regime."""
    figure = Figure(figsize=(7.5, 6.0), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(REGIMES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
    marks = dict(zip(REGIMES, ("o", "s", "^"), strict=True))
    for name in REGIMES:
        chosen = [item for item in report.timed if item.regime == name]
        if chosen:
            axes.scatter([item.row.measured_ms or 0.0 for item in chosen],
                         [item.predicted_ms or 0.0 for item in chosen], s=28, marker=marks[name],
                         color=colours[name], label=f"{name} ({len(chosen)})")
    times = [item.row.measured_ms or 1.0 for item in report.timed] or [1.0]
    reach = np.array([min(times) * 0.8, max(times) * 1.25])
    axes.plot(reach, reach, color="#333333", linewidth=0.8)
    axes.fill_between(reach, reach * 0.95, reach * 1.05, color="#BBBBBB", alpha=0.5,
                      label="within 5 %")
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms",
             title="VTA on PYNQ: conv2d time, predicted against measured")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def plot(report: Report, path: Path) -> None:
    """Write the picture as PNG, whole or not at all."""
    figure = picture(report)
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=130))
