"""Pictures of a search for documents: the Pareto front, and what all pictures share.

It does not compute figures; `what_if_pictures` draws sweeps, `page` what people look into. Every
picture says in its title that it is predicted, and by what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter

from studies.plain.files import write_whole

matplotlib.use("Agg")
#: One colour a meaning, the same in every picture; told apart by people with colour blindness
#: (Okabe and Ito's palette).
COLOURS = {"busy": "#0072B2", "memory": "#D55E00", "input": "#E69F00", "weights": "#CC79A7",
           "output": "#F0E442", "buffer": "#56B4E9", "data": "#009E73", "barrier": "#999999",
           "host": "#333333", "fetch": "#A6761D", "dependence": "#BBBBBB", "idle": "#EEEEEE"}
PARTS = ("#4D4D4D", "#A6A6A6", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00",
         "#CC79A7", "#882255", "#44AA99", "#117733", "#999933", "#DDCC77", "#332288")


def save_picture(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all. A dollar sign in a text is no formula: names come from
    files; only numbers on logarithmic axes are typeset."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                for text in axis.get_ticklabels(which="both"):
                    text.set_parse_math(True)
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=130))


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def pareto(points: np.ndarray, front: Sequence[int], marks: Mapping[str, tuple[float, float]],
           title: str) -> Figure:
    """Latency (ms) against energy (uJ a pixel) of all evaluated designs.

    `points`: (designs, 3) latency, energy and largest share of a fabric resource; rows with NaN
    are left out. `front`: rows on the front. `marks`: named designs by latency and energy.
    """
    figure, axes = _axes(8.5, 5.5)
    fine = ~np.isnan(points).any(axis=1)
    scatter = axes.scatter(points[fine, 0], points[fine, 1], c=100 * points[fine, 2], s=16,
                           cmap="viridis", vmin=0, vmax=100, alpha=0.8, linewidth=0)
    chosen = points[list(front)]
    axes.scatter(chosen[:, 0], chosen[:, 1], s=46, facecolor="none", edgecolor="#D55E00",
                 linewidth=1.1, label=f"front ({len(chosen)} designs)")
    for offset, (name, (x, y)) in enumerate(marks.items()):
        axes.scatter([x], [y], marker="*", s=190, zorder=4, edgecolor="white", linewidth=0.8,
                     color=("#333333", "#D55E00", "#0072B2")[offset % 3], label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log(axes)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("energy, uJ a pixel")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    figure.colorbar(scatter, label="largest share of a fabric resource, %")
    return figure


def energy_scale(values: Sequence[float]) -> LogNorm:
    """Logarithmic colours over some energies."""
    return LogNorm(min(values), max(max(values), 1.01 * min(values)))


def plain_log(axes: Any) -> None:
    """Logarithmic axes with plain numbers; minor ticks are named only if there is room."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        decades = np.log10(max(high, 1e-12) / max(low, 1e-12))
        named = (2, 3, 4, 6) if decades < 1.2 else (2, 5) if decades < 2.5 else ()
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(
            lambda value, _, named=named: f"{value:g}"
            if round(value / 10 ** np.floor(np.log10(value)), 3) in named else ""))
        axis.set_tick_params(which="both", labelsize=8)
