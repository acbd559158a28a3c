"""Sets the shipped decoders' quality beside time and energy, each on its fastest shipped design.

It measures and searches nothing: quality is that of `quality.csv` (measured), time and energy are
predicted. `cosim study decoders` runs it and draws README's picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from rich.console import Console

from arch_models.board import Board
from arch_models.overlay import Infeasible, Overlay
from studies.evaluation.evaluate import evaluate
from studies.evaluation.inputs import own_designs
from studies.plain.quality_table import measured_on, quality_db, quality_names
from studies.plain.terminal import grid
from studies.report import pictures
from workloads.library import load

#: A frame each so many milliseconds are 25 a second.
WANTED_MS = 40.0
#: Qualities that are nearly equal are drawn so.
LEAST_SPAN_DB = 0.5


@dataclass(frozen=True)
class Point:
    """One decoder on the design that is fastest for it. `period_ms`: from picture to picture in a
    stream; of a sampler, whose pictures do not overlap, the latency. `unchecked`: of the board."""

    network: str
    design: str
    psnr_db: float
    latency_ms: float
    period_ms: float
    energy_uj_per_pixel: float
    unchecked: tuple[str, ...] = ()


Points = Sequence[Point]


def run(board: Board, networks: Sequence[str] = ()) -> list[Point]:
    """A point for each trained network, those that are named or all; DDR3 by the controller's
    rules. A network that no shipped design holds is left out."""
    designs = own_designs()
    found = [_fastest(name, designs, board) for name in networks or quality_names()]
    return [point for point in found if point is not None]


def _fastest(name: str, designs: Sequence[Overlay], board: Board) -> Point | None:
    graph, points = load(name), []
    for overlay in designs:
        item = evaluate(graph, overlay, board, "ddr3")
        if not isinstance(item, Infeasible):
            points.append(Point(
                name, overlay.name, quality_db(name), item.latency_ms,
                item.period_ms or item.latency_ms, item.energy_uj_per_pixel,
                board.unchecked))
    return min(points, key=lambda point: point.latency_ms, default=None)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other, measured on the same pictures, beats in quality, latency and energy."""
    def beaten(point: Point) -> bool:
        return any(measured_on(other.network) == measured_on(point.network) and other != point
                   and other.psnr_db >= point.psnr_db and other.latency_ms <= point.latency_ms
                   and other.energy_uj_per_pixel <= point.energy_uj_per_pixel for other in points)

    return [point for point in points if not beaten(point)]


def show(console: Console, points: Sequence[Point]) -> None:
    """The points as a table."""
    table = grid("Decoders: quality measured, time and energy predicted", (
        "network", "fastest design", "PSNR, dB", "latency, ms", "picture each, ms", "uJ a pixel",
        "front"))
    best = front(points)
    for point in points:
        table.add_row(point.network, point.design, f"{point.psnr_db:.2f}",
                      f"{point.latency_ms:.1f}", f"{point.period_ms:.1f}",
                      f"{point.energy_uj_per_pixel:.2f}", "yes" if point in best else "no")
    console.print(table)


def picture(points: Sequence[Point], board: Board) -> Figure:
    """Quality against latency, energy as the colour; a panel for each set of pictures.

    A set with one network has nothing to be compared with and is left out beside others.
    """
    networks = Counter(measured_on(point.network) for point in points)
    kinds = sorted(kind for kind in networks if networks[kind] > 1) or sorted(networks)
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    panels, best = figure.subplots(1, len(kinds), squeeze=False)[0], front(points)
    scale = pictures.energy_scale([point.energy_uj_per_pixel for point in points])
    for axes, kind in zip(panels, kinds, strict=True):
        own = [point for point in points if measured_on(point.network) == kind]
        axes.spines[["top", "right"]].set_visible(False)
        drawn = axes.scatter([point.latency_ms for point in own], [point.psnr_db for point in own],
                             c=[point.energy_uj_per_pixel for point in own], norm=scale, s=90,
                             cmap="viridis", zorder=3, linewidth=1.4, edgecolor=[
                                 "#D55E00" if point in best else "white" for point in own])
        for point in own:
            axes.annotate(f"{point.network}\non {point.design}, {point.energy_uj_per_pixel:.2f} uJ",
                          (point.latency_ms, point.psnr_db), xytext=(7, -12), fontsize=7.5,
                          textcoords="offset points")
        axes.axvline(WANTED_MS, color="#999999", linewidth=0.8, linestyle="--", zorder=0)
        axes.set_xscale("log")
        pictures.plain_log(axes)
        axes.margins(x=0.35, y=0.25)
        low, high = axes.get_ylim()
        more = max(0.0, LEAST_SPAN_DB - (high - low)) / 2
        axes.set_ylim(low - more, high + more)
        axes.set_xlabel("latency of a picture, ms (predicted)")
        axes.set_title(f"{kind}: PSNR, dB (measured, integers)", fontsize=9)
    figure.colorbar(drawn, ax=list(panels), label="energy, uJ a pixel (predicted)")
    figure.suptitle(f"Shipped decoders on their fastest shipped design, {board.label}, DDR3; "
                    "ringed: on the front; dashed: 25 pictures a second", fontsize=9)
    return figure
