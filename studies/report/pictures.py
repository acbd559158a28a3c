"""Pictures of evaluations: roofline, time and energy of each layer, Pareto front.

It does not compute figures; `what_if_pictures` draws sweeps. Every picture says in its title that
it is predicted, and by what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter

from studies.evaluation.values import Evaluation
from studies.plain.files import write_whole

matplotlib.use("Agg")
#: One colour a meaning, the same in every picture; told apart by people with colour blindness
#: (Okabe and Ito's palette).
COLOURS = {"busy": "#0072B2", "memory": "#D55E00", "input": "#E69F00", "weights": "#CC79A7",
           "output": "#F0E442", "buffer": "#56B4E9", "data": "#009E73", "barrier": "#999999",
           "host": "#333333", "fetch": "#A6761D", "dependence": "#BBBBBB", "idle": "#EEEEEE"}
PARTS = ("#4D4D4D", "#A6A6A6", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00",
         "#CC79A7", "#882255", "#44AA99", "#117733", "#999933", "#DDCC77", "#332288")


#: Layers shorter than this share are left out of pictures, and counted.
LEAST_LAYER = 0.001
LEAST_PART = 0.01


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


def _origin(item: Evaluation) -> str:
    return f"{item.workload}, {item.overlay} on {item.board}, predicted ({item.memory_model})"


def roofline(item: Evaluation, peak_bytes_per_s: float) -> Figure:
    """Layers with MACs against the array's and the DRAM's ceilings. Needs layer detail.

    `peak_bytes_per_s`: the DRAM's peak (both edges times width).
    """
    figure, axes = _axes(8.5, 5.5)
    peak = item.peak_macs_per_cycle * item.clock_hz / 1e9
    points = [layer for layer in item.layers if layer.macs and layer.bytes_moved]
    reach = [layer.intensity for layer in points] or [1.0]
    intensity = np.geomspace(min(1.0, *reach) / 1.5, max(reach) * 2, 200)
    roof = np.minimum(peak, intensity * peak_bytes_per_s / 1e9)
    axes.plot(intensity, roof, color="#333333", linewidth=1.5)
    axes.annotate(f"array: {peak:.1f} GMAC/s", (peak / peak_bytes_per_s * 1e9, peak), va="bottom",
                  fontsize=9, textcoords="offset points", xytext=(6, 3))
    knee = peak / (peak_bytes_per_s / 1e9)
    axes.axvline(knee, color="#BBBBBB", linewidth=0.8, linestyle=":")
    axes.annotate(f"DRAM: {peak_bytes_per_s / 1e9:.2f} GB/s", (intensity[30], roof[30]),
                  fontsize=9, xytext=(8, -4), textcoords="offset points")
    sizes = np.array([layer.cycles for layer in points], float)
    rates = [layer.macs * item.clock_hz / max(1, layer.cycles) / 1e9 for layer in points]
    axes.scatter([layer.intensity for layer in points], rates, zorder=3, alpha=0.75,
                 s=20 + 600 * sizes / max(1.0, sizes.sum()), color=COLOURS["busy"],
                 edgecolor="white", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log(axes)
    order = sorted(range(len(points)), key=lambda index: -sizes[index])
    _label_spots(axes, [(points[index].name, reach[index], rates[index]) for index in order])
    axes.set_xlabel("operational intensity, MAC a byte of DRAM traffic")
    axes.set_ylabel("10^9 MAC a second")
    axes.set_title(f"Roofline (area of a dot: time of the layer)\n{_origin(item)}", fontsize=10)
    return figure


#: Size of a label's letter as a share of the axes, for keeping labels apart; a guess of the font.
LETTER = (0.0085, 0.024)
MOST_LETTERS = 18


def _label_spots(axes: Any, spots: Sequence[tuple[str, float, float]]) -> None:
    """Name spots (name, x, y) in the order given, below or above; a label that would lie on
    another one is left out."""
    (left, right), (low, high) = np.log10(axes.get_xlim()), np.log10(axes.get_ylim())
    taken: list[tuple[float, float, float, float]] = []
    named: set[str] = set()
    for name, x, y in spots:
        text = name if len(name) <= MOST_LETTERS else ".".join(name.split(".")[-2:])
        if text in named:
            continue
        named.add(text)
        at_x = (np.log10(x) - left) / (right - left)
        at_y = (np.log10(max(y, 1e-9)) - low) / (high - low)
        width = LETTER[0] * len(text)
        to_left = at_x + width > 1
        begin = at_x - width if to_left else at_x
        for down in (9, 18, 27):
            bottom = at_y - down / 320
            box = (begin, bottom, begin + width, bottom + LETTER[1])
            if not any(box[0] < other[2] and other[0] < box[2] and box[1] < other[3]
                       and other[1] < box[3] for other in taken):
                taken.append(box)
                axes.annotate(text, (x, y), fontsize=7, xytext=(-4 if to_left else 5, -down),
                              ha="right" if to_left else "left", textcoords="offset points",
                              color="#333333")
                break


def layer_times(item: Evaluation, engine_units: Sequence[str] = ()) -> Figure:
    """Time of each layer, split for the unit that works on it: busy, stalls by cause, idle."""
    shown = [layer for layer in item.layers
             if layer.cycles > LEAST_LAYER * item.latency_cycles]
    short = len(item.layers) - len(shown)
    figure, axes = _axes(8.5, 1.6 + 0.19 * len(shown))
    left = np.zeros(len(shown))
    parts: dict[str, np.ndarray] = {}
    for index, layer in enumerate(shown):
        unit = next((u for u in layer.units if u.name == layer.engine), None)
        # What the engine did before the layer before it had ended is not this layer's time.
        split = {"busy": unit.busy_cycles, **unit.stalls} if unit else {"busy": layer.cycles}
        left_over = layer.cycles
        for name, value in split.items():
            shown_cycles = min(value, left_over)
            left_over -= shown_cycles
            parts.setdefault(name, np.zeros(len(shown)))[index] = (
                shown_cycles / item.clock_hz * 1e3)
        parts.setdefault("idle", np.zeros(len(shown)))[index] = left_over / item.clock_hz * 1e3
    whole = sum(float(values.sum()) for values in parts.values())
    for name in [name for name in parts if name not in ("busy", "idle")]:
        if parts[name].sum() < LEAST_LAYER * whole:
            parts["idle"] += parts.pop(name)
    order = ["busy", *sorted(set(parts) - {"busy", "idle"}), "idle"]
    rows = np.arange(len(shown))
    for name in order:
        if name in parts and parts[name].any():
            label = ({"busy": "busy", "idle": "idle, and shorter stalls"}.get(name)
                     or f"stall: {name}")
            axes.barh(rows, parts[name], left=left, color=COLOURS.get(name, "#BBBBBB"),
                      label=label, height=0.78, edgecolor="#888888", linewidth=0.3)
            left += parts[name]
    _layer_axis(axes, [layer.name for layer in shown])
    axes.set_xlabel("ms")
    axes.set_title(f"Time of each layer, as its engine spends it ({short} shorter than "
                   f"{100 * LEAST_LAYER:g} % left out)\n{_origin(item)}", fontsize=10)
    axes.legend(fontsize=8, loc="best", frameon=False)
    return figure


def layer_energies(item: Evaluation) -> Figure:
    """Energy of each layer in millijoules."""
    shown = [layer for layer in item.layers
             if layer.cycles > LEAST_LAYER * item.latency_cycles]
    figure, axes = _axes(8.5, 1.6 + 0.19 * len(shown))
    axes.barh(np.arange(len(shown)), [layer.energy_j * 1e3 for layer in shown],
              color=COLOURS["data"], height=0.78)
    _layer_axis(axes, [layer.name for layer in shown])
    axes.set_xlabel("mJ, static power included")
    axes.set_title(f"Energy of each layer\n{_origin(item)}", fontsize=10)
    return figure


def _layer_axis(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)


def energy_split(items: Mapping[str, Evaluation]) -> Figure:
    """Energy a pixel of several results, stacked by where it goes; small parts together."""
    figure, axes = _axes(8.5, 1.8 + 0.55 * len(items))
    splits = [{name: value / item.pixels * 1e6 for name, value in item.energy.parts.items()}
              for item in items.values()]
    totals = [sum(split.values()) for split in splits]
    names = list(dict.fromkeys(name for split in splits for name in split))
    shown = [name for name in names
             if any(split.get(name, 0.0) > LEAST_PART * total
                    for split, total in zip(splits, totals, strict=True))]
    workloads = list(dict.fromkeys(item.workload for item in items.values()))
    labels = list(items) if len(workloads) == 1 else [
        f"{name}: {item.workload}" for name, item in items.items()]
    left = np.zeros(len(items))
    for index, name in enumerate([*shown, "other"]):
        values = np.array([split.get(name, 0.0) if name in shown else
                           sum(value for part, value in split.items() if part not in shown)
                           for split in splits])
        if values.max() > 0:
            axes.barh(labels, values, left=left, label=name,
                      color=PARTS[index % len(PARTS)] if name in shown else "#DDDDDD", height=0.6)
            left += values
    for row, (value, item) in enumerate(zip(left, items.values(), strict=True)):
        low, high = item.energy_limits_uj_per_pixel
        axes.plot([low, high], [row, row], color="#333333", linewidth=1.2, marker="|")
        axes.annotate(f"{value:.1f}", (high, row), va="center", fontsize=9,
                      xytext=(4, 0), textcoords="offset points")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.set_xlabel("uJ a pixel; the lines are 80 % limits")
    axes.set_title(f"Energy of a picture, {', '.join(workloads)} on "
                   f"{', '.join(dict.fromkeys(item.board for item in items.values()))}, predicted "
                   f"(other: parts under {100 * LEAST_PART:g} %)", fontsize=10)
    figure.legend(fontsize=8, ncols=6, loc="outside lower center", frameon=False)
    return figure


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
