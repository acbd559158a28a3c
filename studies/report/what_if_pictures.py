"""Pictures of what-if studies: bars or a grid of a sweep, and the tornado of sensitivities.

It evaluates nothing; every title says that the figures are predicted, and by what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from studies.evaluation.values import Evaluation
from studies.report.pictures import COLOURS, PARTS
from studies.why.what_if import Row, Sensitivity

#: Sensitivities smaller than this share are left out of the picture, and counted.
LEAST_EFFECT = 0.001
MOST_BARS = 60
FIGURES = (("latency_ms", "latency, ms"), ("energy_uj_per_pixel", "energy, uJ a pixel"))


def sweep(rows: Sequence[Row], title: str) -> Figure:
    """Two fields with several values each as a grid, anything else as bars."""
    if len(rows[0].values) == 2:
        first, second = (list(dict.fromkeys(list(row.values.values())[place] for row in rows))
                         for place in (0, 1))
        if min(len(first), len(second)) > 1 and max(len(first), len(second)) <= 10:
            return _grid(rows, first, second, title)
    return _bars(rows[:MOST_BARS], title if len(rows) <= MOST_BARS else
                 f"{title}; the first {MOST_BARS} of {len(rows)}")


def label(row: Row) -> str:
    """The values of a row by name, in one line."""
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in row.values.items())


def scarcest(item: Evaluation) -> str:
    """The fabric resource with the largest share in use, with that share."""
    part = max(item.resources, key=lambda resource: resource.share)
    return f"{part.name} {100 * part.share:.0f} %"


def short(reason: str) -> str:
    """A reason without what to try."""
    return reason.partition(" (gap")[0].partition("; ")[0]


def short_value(value: str) -> str:
    """A value as written, hertz in the millions with an M behind, so that it fits a label."""
    return f"{int(value) / 1e6:.4g}M" if value.isdigit() and int(value) >= 10**6 else value


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    units = list(dict.fromkeys(row.bottleneck for row in rows if row.bottleneck))
    return {unit: ("#0072B2", "#E69F00", "#009E73", "#CC79A7", *PARTS)[index]
            for index, unit in enumerate(units)}


def _bars(rows: Sequence[Row], title: str) -> Figure:
    figure = Figure(figsize=(10, 1.9 + 0.3 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    colours = _colours(rows)
    places = np.arange(len(rows))
    for axes, (name, text) in zip(panels, FIGURES, strict=False):
        values = [getattr(row.evaluation, name) if row.evaluation else 0.0 for row in rows]
        axes.barh(places, values, color=[colours.get(row.bottleneck, "white") for row in rows],
                  height=0.7)
        for place, row in enumerate(rows):
            if row.evaluation:
                _note(axes, f"{values[place]:.4g}", values[place], place)
        axes.set_xlabel(text)
    for place, row in enumerate(rows):
        if not row.evaluation:
            panels[0].annotate(f"not feasible: {short(row.reason)}", (0, place), va="center",
                               fontsize=8, color="#D55E00", xytext=(3, 0),
                               textcoords="offset points", annotation_clip=False)
    shares = [100 * max(part.share for part in row.evaluation.resources) if row.evaluation else 0.0
              for row in rows]
    panels[2].barh(places, shares, color="#BBBBBB", height=0.7)
    for place, row in enumerate(rows):
        if row.evaluation:
            _note(panels[2], scarcest(row.evaluation), shares[place], place)
    panels[2].set_xlabel("largest share of a resource, %")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.28)
    panels[0].set_yticks(places, [label(row) for row in rows], fontsize=8)
    panels[0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    figure.legend(handles=[Patch(color=colour, label=unit) for unit, colour in colours.items()],
                  title="largest share of the critical path", title_fontsize=8, fontsize=8,
                  ncols=6, loc="outside lower center", frameon=False)
    return figure


def _note(axes: Any, text: str, value: float, place: int) -> None:
    axes.annotate(text, (value, place), va="center", fontsize=8, xytext=(3, 0),
                  textcoords="offset points")


def _grid(rows: Sequence[Row], first: list[str], second: list[str], title: str) -> Figure:
    names = list(rows[0].values)
    figure = Figure(figsize=(3.2 + 2.4 * len(second), 1.6 + 0.62 * len(first)),
                    layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, text) in zip(panels, FIGURES, strict=True):
        values = np.full((len(first), len(second)), np.nan)
        for index, row in enumerate(rows):
            if row.evaluation:
                values[divmod(index, len(second))] = getattr(row.evaluation, name)
        axes.set_facecolor("#F4F4F4")
        axes.imshow(values, aspect="auto", cmap="Blues" if name == "latency_ms" else "Greens")
        middle = np.nanmean([np.nanmin(values), np.nanmax(values)]) if np.any(
            ~np.isnan(values)) else 0.0
        for index, row in enumerate(rows):
            at = divmod(index, len(second))
            if row.evaluation:
                under = row.bottleneck if name == "latency_ms" else scarcest(row.evaluation)
                axes.annotate(f"{values[at]:.4g}\n{under}", at[::-1], ha="center", va="center",
                              fontsize=7, color="white" if values[at] > middle else "#222222")
            else:
                axes.annotate("not feasible\n" + short(row.reason).replace(", ", "\n"), at[::-1],
                              ha="center", va="center", fontsize=6, color="#D55E00")
        axes.set_xticks(range(len(second)), second, fontsize=8)
        axes.set_xlabel(names[1], fontsize=9)
        axes.set_title(text, fontsize=9)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    panels[0].set_yticks(range(len(first)), first, fontsize=8)
    panels[0].set_ylabel(names[0], fontsize=9)
    figure.suptitle(f"{title}\n(left: the unit with most of the critical path; right: the "
                    "scarcest resource)", fontsize=9)
    return figure


def tornado(base: Evaluation, rows: Sequence[Sensitivity]) -> Figure:
    """Bars from the base, widest on top: latency on the left, energy on the right."""
    kept = [[row for row in sorted(rows, key=lambda row: row.reach(base, name))
             if row.reach(base, name) > LEAST_EFFECT * getattr(base, name)]
            for name, _ in FIGURES]
    figure = Figure(figsize=(11, 1.8 + 0.3 * max(map(len, kept), default=1)),
                    layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (name, text), shown in zip(panels, FIGURES, kept, strict=True):
        start = getattr(base, name)
        for place, row in enumerate(shown):
            for side, colour in ((row.down, COLOURS["busy"]), (row.up, COLOURS["input"])):
                if side.evaluation is None:
                    continue
                value = getattr(side.evaluation, name)
                axes.barh(place, value - start, left=start, color=colour, height=0.7)
                left = value < start
                axes.annotate(short_value(side.value), (value, place), va="center", fontsize=7,
                              ha="right" if left else "left", color="#444444",
                              xytext=(-2 if left else 2, 0), textcoords="offset points")
        axes.axvline(start, color="#333333", linewidth=1)
        names = [f"{row.path} ({short_value(row.now)})" for row in shown]
        axes.set_yticks(range(len(shown)), names, fontsize=7)
        axes.set_xlabel(f"{text}; now {start:.4g}", fontsize=9)
        axes.margins(x=0.18)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{len(rows) - len(shown)} further parameters: under "
                       f"{100 * LEAST_EFFECT:g} % a step", fontsize=8)
    figure.suptitle(f"Sensitivity of {base.workload} on {base.overlay} / {base.board_label}, "
                    f"predicted ({base.memory_model}): one step down (blue), one step up (yellow)",
                    fontsize=10)
    return figure
